//! `henge debug …`: the inner state of nodes, for the diagnosis of faults.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use henge_client::{Address, Client, Deadlines};
use henge_types::NodeId;
use henge_types::tasks::NodeTasks;

use crate::cluster::{group_label, span, write_json};
use crate::console::Console;
use crate::context::{self, Context, Environment, Output, Remote, long_help};
use crate::error::CliError;
use crate::exit::{EXIT_CODES_HELP, Exit};
use crate::table::Table;

/// `henge debug …`
#[derive(Debug, Args)]
pub struct Debug {
    /// Which cluster.
    #[command(flatten)]
    pub remote: Remote,
    /// What to show.
    #[command(subcommand)]
    pub verb: DebugVerb,
}

/// What can be looked at inside of nodes.
#[derive(Debug, Subcommand)]
pub enum DebugVerb {
    /// The background tasks of the groups that each node leads
    #[command(after_help = EXIT_CODES_HELP, after_long_help = long_help())]
    Tasks {
        /// Only those of this node
        #[arg(long, value_name = "NODE")]
        node: Option<NodeId>,
    },
}

pub(crate) async fn run(
    command: Debug,
    environment: &Environment,
    console: &mut Console<'_>,
) -> Result<Exit, CliError> {
    let context = context::resolve(&command.remote, environment)?;
    let DebugVerb::Tasks { node } = command.verb;
    let status = context.client().cluster().await;
    let status = status.map_err(|source| CliError::Call {
        what: "cannot get the nodes of the cluster".to_owned(),
        source,
    })?;
    let mut asked = status.nodes;
    if let Some(node) = node {
        asked.retain(|member| member.node == node);
        if asked.is_empty() {
            return Err(CliError::NoSuchNode { node });
        }
    }
    let (mut answers, mut silent) = (Vec::new(), None);
    for member in asked {
        match tasks_of(&context, &member.http).await {
            Ok(tasks) => answers.push(tasks),
            Err(error) => {
                writeln!(console.err, "node {}: {error}", member.node)?;
                silent = Some(error);
            }
        }
    }
    if let (true, Some(error)) = (answers.is_empty(), silent) {
        return Err(error);
    }
    match command.remote.output {
        Output::Json => write_json(&answers, console.out)?,
        Output::Table => write_table(&answers, console.out)?,
    }
    Ok(Exit::Ok)
}

/// The tasks of one node: no other node can answer for it.
async fn tasks_of(context: &Context, http: &str) -> Result<NodeTasks, CliError> {
    let addresses = Address::parse_list(&format!("http://{http}"))?;
    let client = Client::with_deadlines(addresses, context.token.clone(), Deadlines::default());
    client.tasks().await.map_err(|source| CliError::Call {
        what: "it does not say what it does".to_owned(),
        source,
    })
}

fn write_table(nodes: &[NodeTasks], out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&["NODE", "TASK", "GROUP", "TERM", "STEPS", "FOR", "STATE"]);
    for node in nodes {
        for task in &node.leader_tasks {
            table.row([
                node.node.to_string(),
                task.name.clone(),
                group_label(task.group),
                task.term.to_string(),
                task.steps.to_string(),
                span(task.state_ms),
                task.state.to_string(),
            ]);
        }
    }
    table.write(out)
}

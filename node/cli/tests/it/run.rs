//! Runs a command line as the binary would, against a server with fixed answers.

use std::io::Cursor;

use axum::Router;
use clap::Parser;
use henge_cli::console::Input;
use henge_cli::{Command, Console, Environment, Exit};
use henge_client::Secret;
use tokio::net::TcpListener;

#[derive(Debug, Parser)]
#[command(name = "henge")]
pub(crate) struct Henge {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) struct Server {
    pub(crate) url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        #[expect(clippy::disallowed_methods, reason = "a test has no task scope")]
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serves");
        });
        Self { url, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Runs `henge ARGS` with `HENGE_URL` set to the given addresses.
pub(crate) async fn henge(url: &str, args: &[&str]) -> Done {
    henge_at(url, args, Input::Other, "").await
}

/// The same with a user at the keyboard.
pub(crate) async fn henge_typing(url: &str, args: &[&str], typed: &str) -> Done {
    henge_at(url, args, Input::Terminal, typed).await
}

async fn henge_at(url: &str, args: &[&str], input: Input, typed: &str) -> Done {
    let henge = Henge::try_parse_from(std::iter::once(&"henge").chain(args)).expect("arguments");
    let environment = Environment {
        url: Some(url.to_owned()),
        token: Some(Secret::new("t")),
        folder: "/nonexistent".into(),
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut answers = Cursor::new(typed.as_bytes().to_vec());
    let mut console = Console {
        out: &mut out,
        err: &mut err,
        answers: &mut answers,
        input,
        watcher: Input::Other,
    };
    let exit = henge_cli::run(henge.command, &environment, &mut console).await;
    Done {
        exit,
        out: String::from_utf8(out).expect("text"),
        err: String::from_utf8(err).expect("text"),
    }
}

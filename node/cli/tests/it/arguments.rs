//! Valid and invalid command lines.

use clap::{Arg, Command, CommandFactory, Parser};
use henge_cli::exit::EXIT_CODES_HELP;

use crate::run::Henge;

#[test]
fn the_arguments_are_consistent_and_every_help_shows_the_exit_codes() {
    Henge::command().debug_assert();
    for path in [
        vec!["cluster", "status"],
        vec!["cluster", "shards"],
        vec!["repo", "create"],
        vec!["repo", "list"],
        vec!["repo", "show"],
        vec!["repo", "delete"],
    ] {
        let mut command = &mut Henge::command();
        for name in &path {
            command = command.find_subcommand_mut(name).expect("a command");
        }
        let help = command.render_long_help().to_string();
        assert!(help.contains(EXIT_CODES_HELP), "{path:?}:\n{help}");
        assert!(
            help.contains(".henge-dev/cluster.json"),
            "{path:?}:\n{help}"
        );
    }
}

#[test]
fn paths_and_formats_are_checked_before_anything_is_asked() {
    for args in [
        vec!["repo", "create", "no-owner"],
        vec!["repo", "create", "../x"],
        vec!["repo", "list", "--owner", "a/b"],
        vec!["repo", "edit", "a/b", "--fsck", "none"],
        vec!["cluster", "status", "--output", "yaml"],
        vec!["cluster"],
    ] {
        let parsed = Henge::try_parse_from(std::iter::once(&"henge").chain(&args));
        assert_eq!(parsed.expect_err("refused").exit_code(), 2, "{args:?}");
    }
}

/// A global flag has no other meaning in a verb below: its value would be taken for both.
#[test]
fn flags_of_all_verbs_are_no_other_flags_of_one() {
    fn look(command: &Command, path: &str, above: &[&Arg]) {
        for argument in command.get_arguments() {
            let id = argument.get_id();
            let clashes = above.iter().any(|flag| {
                flag.get_id() == id
                    || flag
                        .get_long()
                        .is_some_and(|long| argument.get_long() == Some(long))
            });
            assert!(!clashes, "{path}: {id}");
        }
        let own = command.get_arguments().filter(|flag| flag.is_global_set());
        let all: Vec<_> = above.iter().copied().chain(own).collect();
        for below in command.get_subcommands() {
            look(below, &format!("{path} {}", below.get_name()), &all);
        }
    }
    look(&Henge::command(), "henge", &[]);
}

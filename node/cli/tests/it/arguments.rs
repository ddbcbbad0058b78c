//! What can be typed, and what cannot.

use clap::{CommandFactory, Parser};
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
        vec!["cluster", "status", "--output", "yaml"],
        vec!["cluster"],
    ] {
        let parsed = Henge::try_parse_from(std::iter::once(&"henge").chain(&args));
        assert_eq!(parsed.expect_err("refused").exit_code(), 2, "{args:?}");
    }
}

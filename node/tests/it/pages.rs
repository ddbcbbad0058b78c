//! docs/cli.md agrees with the binary: every command and flag, and no others.

use std::collections::BTreeSet;

use crate::process::{henge, text};

const PAGE: &str = include_str!("../../../docs/cli.md");
const SHARED: &[&str] = &["--url", "--token", "--token-file", "--output"];

/// Sections of the page whose heading is a command.
fn commands() -> Vec<(Vec<&'static str>, &'static str)> {
    PAGE.split("\n## ")
        .filter_map(|section| section.split_once('\n'))
        .filter_map(|(heading, body)| Some((heading.strip_prefix("henge ")?, body)))
        .map(|(command, body)| (command.split(' ').collect(), body))
        .collect()
}

fn flags(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
        .filter(|word| word.len() > 2 && word.starts_with("--") && !word.ends_with('-'))
        .filter(|word| !["--help", "--version"].contains(word))
        .collect()
}

#[test]
fn every_command_and_flag_is_on_the_page() {
    let commands = commands();
    assert_eq!(commands.len(), 34, "{commands:?}");
    for (command, body) in commands {
        let args: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let help = henge(&args);
        assert!(help.status.success(), "{command:?}");
        let help = text(&help.stdout);
        let options = help.split("\nOptions:").nth(1).expect("options");
        let mut known = flags(options);
        let told: BTreeSet<&str> = flags(body);
        for shared in SHARED {
            known.remove(shared);
        }
        for flag in &known {
            assert!(told.contains(flag), "{command:?}: the page lacks {flag}");
        }
        let own = flags(&help);
        // The section of `henge dev` names a flag of another command, which restarts a node.
        let foreign = ["--config"];
        let unknown = told.difference(&own).find(|flag| !foreign.contains(flag));
        assert_eq!(unknown, None, "{command:?}: there is no such flag");
    }
    for shared in SHARED {
        assert!(PAGE.contains(&format!("| `{shared} ")), "{shared}");
    }
}

#[test]
fn the_exit_codes_are_on_the_page() {
    let help = text(&henge(&["cluster", "status", "--help"]).stdout);
    let codes = help.split("Exit codes:").nth(1).expect("exit codes");
    let mut seen = 0;
    for line in codes.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (code, meaning) = line.split_once("  ").expect("a code and its meaning");
        assert!(PAGE.contains(&format!("| {code} | {meaning} |")), "{line}");
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn wrong_usage_ends_with_two() {
    for args in [
        &["dev", "--nodes", "0"][..],
        &["node"],
        &["repo", "create"],
        &["cluster", "status", "--url", "127.0.0.1:7401"],
        &["node", "run"],
    ] {
        let done = henge(args);
        assert_eq!(done.status.code(), Some(2), "{args:?}");
        assert!(!done.stderr.is_empty(), "{args:?}");
    }
}

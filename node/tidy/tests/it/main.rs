//! Runs every check on the real tree. A failure prints the change to make.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use henge_tidy::graph::{Graph, PURE_CRATES};
use henge_tidy::{SourceFile, limits, links, lints, lock, sources, stored, words};
use henge_types::stored::Row;

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2);
    root.expect("two folders below the root").to_owned()
}

#[expect(clippy::disallowed_methods, reason = "a test may start processes")]
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Every file that is tracked, or untracked and not ignored.
fn paths() -> BTreeSet<String> {
    let listed = output(
        "git",
        &[
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
    );
    let paths = listed.split('\0').filter(|path| !path.is_empty());
    paths
        .filter(|path| root().join(path).is_file())
        .map(str::to_owned)
        .collect()
}

/// Every text file of the tree except the lock file, which is generated.
fn files() -> Vec<SourceFile> {
    let mut files = Vec::new();
    for path in paths() {
        let bytes = fs::read(root().join(&path)).expect("a readable file");
        if let Ok(text) = String::from_utf8(bytes)
            && path != "Cargo.lock"
        {
            files.push(SourceFile { path, text });
        }
    }
    assert!(files.len() > 20, "the tree has only {} files", files.len());
    files
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rows() -> Vec<&'static Row> {
    henge_types::stored::rows().collect()
}

fn graph() -> Graph {
    let arguments = [
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform=x86_64-unknown-linux-gnu",
    ];
    Graph::parse(&output(env!("CARGO"), &arguments)).expect("cargo metadata")
}

#[track_caller]
fn none(found: &[String]) {
    assert!(found.is_empty(), "\n  {}\n", found.join("\n  "));
}

#[test]
fn dependencies_point_down() {
    none(&graph().forbidden_edges());
}

#[test]
fn libraries_are_named_by_their_owners_only() {
    none(&graph().misplaced_libraries());
}

#[test]
fn nothing_impure_lies_below_the_purity_wall() {
    none(&graph().impurities());
}

#[test]
fn the_lock_file_is_small_and_free_of_banned_packages() {
    none(&lock::violations(&read("Cargo.lock"), lock::PACKAGES_MAX).unwrap());
}

#[test]
fn files_are_short() {
    none(&sources::too_long(&files()));
}

#[test]
fn files_have_names_that_say_something() {
    none(&sources::badly_named(&files()));
}

#[test]
fn every_crate_has_one_integration_test_binary() {
    none(&sources::extra_test_binaries(&files()));
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for directory in graph().directories().values() {
        let path = format!("{directory}/Cargo.toml");
        none(&lints::own_lints(&path, &read(&path)).unwrap());
    }
}

#[test]
fn the_strict_lints_of_pure_crates_repeat_the_roots() {
    let graph = graph();
    let root = read("clippy.toml");
    let mut checked = 0;
    for name in PURE_CRATES {
        let Some(directory) = graph.directories().get(*name) else {
            continue;
        };
        let path = format!("{directory}/clippy.toml");
        none(&lints::missing_from(&path, &read(&path), &root).unwrap());
        checked += 1;
    }
    assert!(checked >= 2, "only {checked} pure crates were found");
}

#[test]
fn links_lead_somewhere() {
    none(&links::broken(&files(), &paths()));
}

#[test]
fn no_word_stands_that_must_not() {
    none(&words::misplaced(&files()));
}

#[test]
fn comments_speak_plain_words() {
    none(&words::in_comments(&files()));
}

#[test]
fn comments_wrap_at_100_columns() {
    none(&words::wide_comments(&files()));
}

#[test]
fn the_page_of_limits_says_what_the_code_does() {
    let (page, constants) = (read("docs/limits.md"), read("proto/types/src/limits.rs"));
    none(&limits::violations(&page, &constants, &files()));
}

#[test]
fn every_stored_thing_has_golden_bytes() {
    none(&stored::without_golden_bytes(&rows(), &files()));
}

#[test]
fn numbers_of_stored_things_stand_in_the_tables() {
    none(&stored::numbers_elsewhere(&files()));
}

#[test]
fn the_page_of_formats_has_every_record_of_a_state() {
    none(&stored::missing_from_page(
        &rows(),
        &read("docs/formats.md"),
    ));
}

#[test]
fn the_page_of_metrics_has_every_crate_that_has_metrics() {
    let paths = paths();
    let page = read("docs/metrics.md");
    for (name, directory) in graph().directories() {
        let described = paths.contains(&format!("{directory}/src/metrics.rs"));
        assert!(
            !described || page.contains(&format!("\n## {name}\n")),
            "{name} has metrics: add it to CRATES in node/api/tests/it/metrics_page.rs"
        );
    }
}

#[test]
fn the_map_of_the_code_stays_readable_in_one_sitting() {
    let lines = read("docs/ARCHITECTURE.md").lines().count();
    assert!(
        lines <= 300,
        "docs/ARCHITECTURE.md has {lines} lines, 300 are allowed"
    );
}

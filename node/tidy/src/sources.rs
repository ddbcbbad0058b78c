//! Source files: their lengths and names.

use crate::SourceFile;

/// The largest number of lines of a source file, without its `#[cfg(test)] mod tests` part.
const LINES_MAX: usize = 500;
/// The largest number of lines of a file that is only tests.
const TEST_LINES_MAX: usize = 1_000;

/// Files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[
    (
        "storage/src/disk/sim.rs",
        "a test double of one trait: what it keeps, how it loses it, and the trait belong together",
    ),
    (
        "storage/src/wal/recovery.rs",
        "one pass from the files to a running log, read from top to bottom",
    ),
    (
        "storage/src/wal/writer.rs",
        "one state machine: its order of steps is what makes the log durable",
    ),
];

/// Names that say nothing about the contents.
const BANNED_NAMES: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "misc", "manager",
];

/// The number of lines before `#[cfg(test)] mod tests`.
fn lines_without_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests_at = lines.windows(2).position(|pair| {
        pair.first()
            .is_some_and(|line| line.trim() == "#[cfg(test)]")
            && pair
                .get(1)
                .is_some_and(|line| line.starts_with("mod tests"))
    });
    tests_at.unwrap_or(lines.len())
}

/// Files that are too long, and exceptions that are no longer needed.
pub fn too_long(files: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let (lines, lines_max) = if file.is_test() {
            (file.text.lines().count(), TEST_LINES_MAX)
        } else {
            (lines_without_tests(&file.text), LINES_MAX)
        };
        let excused = LONG_FILES.iter().any(|(path, _)| *path == file.path);
        if lines > lines_max && !excused {
            found.push(format!(
                "{}: {lines} lines, {lines_max} are allowed: split it by subject, or list it in \
                 LONG_FILES with its reason",
                file.path
            ));
        }
        if lines <= lines_max && excused {
            found.push(format!(
                "{}: no longer long: take it off LONG_FILES",
                file.path
            ));
        }
    }
    found
}

/// Files and modules with a name that says nothing, and `mod.rs`.
pub fn badly_named(files: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        if file.name() == "mod.rs" {
            found.push(format!(
                "{}: call it after its folder, beside it",
                file.path
            ));
        }
        let parts = file.path.trim_end_matches(".rs").split('/');
        for part in parts.filter(|part| BANNED_NAMES.contains(part)) {
            found.push(format!(
                "{}: {part:?} says nothing about what is inside",
                file.path
            ));
        }
        for line in file.text.lines().map(str::trim) {
            let module = line
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub ")
                .strip_prefix("mod ")
                .map(|rest| rest.trim_end_matches([';', ' ', '{']));
            if let Some(module) = module
                && BANNED_NAMES.contains(&module)
            {
                found.push(format!("{}: module {module:?} says nothing", file.path));
            }
        }
    }
    found
}

/// Integration tests outside of a crate's one binary `tests/it/main.rs`: each further binary links
/// everything again.
pub fn extra_test_binaries(files: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let parts: Vec<&str> = file.path.split('/').collect();
        let Some(at) = parts.iter().position(|part| *part == "tests") else {
            continue;
        };
        let below: Vec<&str> = parts.into_iter().skip(at + 1).collect();
        let own_binary = below.len() == 1 || (below.len() == 2 && below.last() == Some(&"main.rs"));
        let in_src = file.path.split('/').take(at).any(|part| part == "src");
        if own_binary && !in_src && below.first() != Some(&"it") {
            found.push(format!(
                "{}: a second test binary: make it a module of tests/it/main.rs",
                file.path
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_tests_do_not_count_and_others_do() {
        let code = "fn a() {}\n".repeat(LINES_MAX);
        let tested = format!("{code}#[cfg(test)]\nmod tests {{\n{code}}}\n");
        assert!(too_long(&[SourceFile::new("a/src/x.rs", &tested)]).is_empty());
        let longer = format!("fn b() {{}}\n{tested}");
        assert_eq!(too_long(&[SourceFile::new("a/src/x.rs", &longer)]).len(), 1);
        let text = "text\n".repeat(LINES_MAX * 2);
        assert!(too_long(&[SourceFile::new("a/src/x.txt", &text)]).is_empty());
        assert!(too_long(&[SourceFile::new("a/tests/it/x.rs", &text)]).is_empty());
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        let files = [
            SourceFile::new("a/src/util.rs", ""),
            SourceFile::new("a/src/helpers/x.rs", ""),
            SourceFile::new("a/src/x/mod.rs", ""),
            SourceFile::new(
                "a/src/lib.rs",
                "pub mod misc;\nmod common {\n}\nmod commonly;\n",
            ),
        ];
        assert_eq!(badly_named(&files).len(), 5);
    }

    #[test]
    fn a_second_test_binary_is_found() {
        let files = [
            SourceFile::new("a/tests/it/main.rs", ""),
            SourceFile::new("a/tests/it/x.rs", ""),
            SourceFile::new("a/tests/it/x/y.rs", ""),
            SourceFile::new("a/src/x/tests/y.rs", ""),
            SourceFile::new("a/tests/other.rs", ""),
            SourceFile::new("a/tests/more/main.rs", ""),
        ];
        let found = extra_test_binaries(&files);
        assert_eq!(found.len(), 2, "{found:?}");
    }
}

//! Strings that are banned from the tree: paths of one machine, names of notes outside of it,
//! leftovers. Words that are banned from comments, and the width of comments.

use crate::SourceFile;

/// Banned strings, in two halves so that this file does not contain them.
const BANNED: &[(&str, &str, &str)] = &[
    ("/wo", "rk/", "a path of one machine"),
    ("/tmp/tar", "gets", "a path of one machine"),
    ("../sha", "red", "not in this tree: say it here"),
    ("DESI", "GN.md", "not in this tree: say it here"),
    ("CONVEN", "TIONS.md", "not in this tree: say it here"),
    ("FIX", "ME", "do it or say in an issue what is missing"),
    ("<<<<", "<<<", "a merge that was not finished"),
];

/// Words that are banned from comments, in two halves so that this file does not contain them. Each
/// has a plain term: a noun of the domain, or the name of the operation.
const BANNED_WORDS: &[(&str, &str)] = &[
    ("who", "ever"),
    ("some", "body"),
    ("no", "body"),
    ("any", "body"),
    ("every", "body"),
    ("an", "ew"),
    ("of l", "ate"),
    ("in v", "ain"),
    ("is t", "old"),
    ("are t", "old"),
    ("was t", "old"),
    ("has h", "ope"),
];

/// The largest number of columns of a comment line.
const COMMENT_COLUMNS_MAX: usize = 100;

/// Files whose doc comments are the output of `--help`: they are texts of the program.
fn is_help(path: &str) -> bool {
    const HELP: &[&str] = &[
        "node/src/args.rs",
        "jepsen/src/args.rs",
        "jepsen/src/plan.rs",
        "benches/src/args.rs",
    ];
    HELP.contains(&path) || path.starts_with("node/cli/src/")
}

/// The lines of a Rust file that are comments, each with its number.
fn comments(file: &SourceFile) -> impl Iterator<Item = (usize, &str)> {
    let lines = file.text.lines().enumerate();
    lines
        .filter(|(_, line)| line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// Whether `text` has `word` with no letter, digit or underscore on either side.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |sign: char| sign.is_alphanumeric() || sign == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, rest) = text.split_at(at);
        let after = rest.get(word.len()..).unwrap_or_default();
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// Each comment with a banned word, help texts left out. The two parts of a word may be on two
/// lines of one comment.
pub fn in_comments(files: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        if !file.is_rust() || is_help(&file.path) {
            continue;
        }
        let mut above = (0, String::new());
        for (number, line) in comments(file) {
            let text = line.trim_start().trim_start_matches(['/', '!']);
            let text = text.trim().to_lowercase();
            let joined = match &above {
                (last, end) if last + 1 == number => format!("{end} {text}"),
                _ => text.clone(),
            };
            for (head, tail) in BANNED_WORDS {
                let word = format!("{head}{tail}");
                let within = if word.contains(' ') { &joined } else { &text };
                if has_word(within, &word) {
                    found.push(format!(
                        "{}:{number}: {word:?}: name the subject with a noun",
                        file.path
                    ));
                }
            }
            let end = text.split_whitespace().next_back().unwrap_or_default();
            above = (number, end.to_owned());
        }
    }
    found
}

/// Each comment line that is too wide.
pub fn wide_comments(files: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for (number, line) in comments(file) {
            let columns = line.chars().count();
            if columns > COMMENT_COLUMNS_MAX {
                found.push(format!(
                    "{}:{number}: a comment of {columns} columns: wrap it at {COMMENT_COLUMNS_MAX}",
                    file.path
                ));
            }
        }
    }
    found
}

/// Each line with a banned string.
pub fn misplaced(files: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    for (head, tail, why) in BANNED {
        let word = format!("{head}{tail}");
        for file in files.iter().filter(|file| file.text.contains(&word)) {
            for (index, line) in file.text.lines().enumerate() {
                if line.contains(&word) {
                    found.push(format!("{}:{}: {word:?}: {why}", file.path, index + 1));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_banned_word_is_found_with_its_line() {
        for (head, tail, _) in BANNED {
            let file = SourceFile::new("a.md", &format!("fine\nx {head}{tail}y\n"));
            let found = misplaced(&[file]);
            assert_eq!(found.len(), 1);
            assert!(found[0].starts_with("a.md:2:"), "{found:?}");
        }
    }

    #[test]
    fn every_banned_word_of_a_comment_is_found() {
        for (head, tail) in BANNED_WORDS {
            let head_upper = head.to_uppercase();
            let text = format!("let {head}{tail} = 1;\n    /// X: {head_upper}{tail}.\n");
            let found = in_comments(&[SourceFile::new("a.rs", &text)]);
            assert_eq!(found.len(), 1, "{head}{tail}: {found:?}");
            assert!(found[0].starts_with("a.rs:2:"), "{found:?}");
            for path in ["a.md", "node/cli/src/a.rs", "node/src/args.rs"] {
                assert_eq!(in_comments(&[SourceFile::new(path, &text)]), [""; 0]);
            }
        }
    }

    #[test]
    fn banned_words_are_whole_words() {
        let fine = "// this told\n// is tolder\n// is told_x\n";
        assert_eq!(in_comments(&[SourceFile::new("a.rs", fine)]), [""; 0]);
        let over_two_lines = "/// it is\n/// told x\n";
        let found = in_comments(&[SourceFile::new("a.rs", over_two_lines)]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("a.rs:2:"), "{found:?}");
        let of_two_comments = "// it is\nx();\n// told x\n";
        assert_eq!(
            in_comments(&[SourceFile::new("a.rs", of_two_comments)]),
            [""; 0]
        );
    }

    #[test]
    fn wide_comments_are_found_and_code_is_not() {
        let fits = format!("    // {}", "ü".repeat(COMMENT_COLUMNS_MAX - 7));
        let text = format!("{fits}\n{fits}x\n{}\n", "x".repeat(120));
        let found = wide_comments(&[SourceFile::new("a.rs", &text)]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("a.rs:2:"), "{found:?}");
    }
}

//! Strings that are banned from the tree: paths of one machine, names of notes outside of it,
//! leftovers.

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
}

//! Stored things: each row of the tables has golden bytes, and no number is outside of the tables.

use henge_types::stored::{Location, Row, SHARED_NUMBERS};

use crate::SourceFile;

/// The files of the tables.
const TABLES: &[&str] = &[
    "proto/types/src/command/table.rs",
    "proto/types/src/stored/records.rs",
];

/// Functions of the envelope whose first argument is a number.
const ENVELOPE_CALLS: &[&str] = &["stored::encode(", "decode_v1(", "open_record("];

/// The envelope at the begin of a line of a golden file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct GoldenLine<'a> {
    name: &'a str,
    number: u16,
    version: u16,
}

impl<'a> GoldenLine<'a> {
    /// Parses `name hex`, with or without more behind it. Other lines have no envelope, or a number
    /// that no row has.
    fn parse(line: &'a str) -> Option<Self> {
        let (name, bytes) = line.split_once(' ')?;
        Some(Self {
            name,
            number: u16::from_str_radix(bytes.get(..4)?, 16).ok()?,
            version: u16::from_str_radix(bytes.get(4..8)?, 16).ok()?,
        })
    }

    /// Whether the line has the bytes of this version of the row. Names distinguish the lines of a
    /// shared number.
    fn is_of(&self, row: &Row, version: u16) -> bool {
        let shared = SHARED_NUMBERS
            .iter()
            .any(|(number, _)| *number == row.number);
        self.number == row.number && self.version == version && (!shared || self.name == row.name)
    }
}

/// Versions of rows without a line in a golden file. A reserved number has no bytes.
pub fn without_golden_bytes(rows: &[&Row], files: &[SourceFile]) -> Vec<String> {
    let golden = files
        .iter()
        .filter(|file| file.path.contains("/tests/golden/") && file.path.ends_with(".hex"));
    let lines = golden.flat_map(|file| file.text.lines());
    let lines: Vec<_> = lines.filter_map(GoldenLine::parse).collect();
    let mut found = Vec::new();
    for row in rows.iter().filter(|row| row.location != Location::Nowhere) {
        for version in 1..=row.known() {
            if !lines.iter().any(|line| line.is_of(row, version)) {
                found.push(format!(
                    "{} ({}) version {version}: no file in tests/golden has its bytes",
                    row.name, row.number
                ));
            }
        }
    }
    found
}

/// Numbers that a source file contains itself instead of taking them from the tables.
pub fn numbers_elsewhere(files: &[SourceFile]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.is_rust() && !file.is_test())
    {
        let code = file.text.split("#[cfg(test)]").next().unwrap_or_default();
        let encodes = code.contains("stored::");
        let has_own = encodes && code.lines().any(names_number);
        if has_own && !TABLES.contains(&file.path.as_str()) {
            found.push(format!(
                "{}: a number of a stored thing: give it a row in one of {TABLES:?}",
                file.path
            ));
        }
    }
    found
}

/// Whether a line gives a `u16` constant a value, or calls the envelope with a literal.
fn names_number(line: &str) -> bool {
    let is_literal = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
    let constant = line
        .split_once(": u16 = ")
        .is_some_and(|(head, value)| head.contains("const ") && is_literal(value));
    let call = ENVELOPE_CALLS
        .iter()
        .filter_map(|call| line.split_once(call))
        .any(|(_, argument)| is_literal(argument));
    constant || call
}

/// Records of groups' states that are missing on the page of formats.
pub fn missing_from_page(rows: &[&Row], page: &str) -> Vec<String> {
    rows.iter()
        .filter(|row| row.location == Location::State)
        .filter(|row| !page.contains(&format!("({}", row.number)))
        .map(|row| format!("{} ({}) is not in docs/formats.md", row.name, row.number))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn row(number: u16, name: &'static str, location: Location) -> Row {
        Row {
            number,
            name,
            levels: &[1, 3],
            location,
        }
    }

    #[test]
    fn each_version_of_a_row_needs_a_line() {
        let rows = [
            row(1013, "repo", Location::State),
            row(1001, "snapshot", Location::Nowhere),
        ];
        let rows: Vec<_> = rows.iter().collect();
        let golden = |text| [SourceFile::new("a/tests/golden/records.hex", text)];
        let missing = |text| without_golden_bytes(&rows, &golden(text)).len();
        assert_eq!(missing("repo 03f5000101\nhash 00\nempty -\n"), 1);
        assert_eq!(missing("repo 03f5000101\n1301 03f50002ff 00\n"), 0);
        let elsewhere = [SourceFile::new("a/tests/records.hex", "repo 03f5000101\n")];
        assert_eq!(without_golden_bytes(&rows, &elsewhere).len(), 2);
    }

    #[test]
    fn a_line_of_the_other_record_of_a_number_does_not_count() {
        let rows = [row(1041, "vote", Location::Raft)];
        let rows: Vec<_> = rows.iter().collect();
        let missing = |text| {
            without_golden_bytes(&rows, &[SourceFile::new("a/tests/golden/a.hex", text)]).len()
        };
        assert_eq!(missing("nonce_seed 0411000107\nnonce_seed 0411000207\n"), 2);
        assert_eq!(missing("vote 0411000107\nvote 0411000207\n"), 0);
    }

    #[test]
    fn a_number_outside_of_the_tables_is_found() {
        for (text, found) in [
            ("const A: u16 = 9;\nstored::encode(A, 1, x)", 1),
            ("stored::decode_v1(9, x)", 1),
            ("use stored::number::A;\nstored::encode(A, 1, x)", 0),
            ("const PORT: u16 = 9;", 0),
            (
                "stored::open(x)\n#[cfg(test)]\nmod tests { const A: u16 = 9; }",
                0,
            ),
        ] {
            let files = [SourceFile::new("a/src/a.rs", text)];
            assert_eq!(numbers_elsewhere(&files).len(), found, "{text}");
        }
    }

    #[test]
    fn a_record_of_a_state_without_a_word_on_the_page_is_found() {
        let rows = [
            row(1013, "repo", Location::State),
            row(1042, "log_id", Location::Raft),
        ];
        let rows: Vec<_> = rows.iter().collect();
        assert!(missing_from_page(&rows, "| catalogue record (1013), kept |").is_empty());
        assert_eq!(missing_from_page(&rows, "").len(), 1);
    }
}

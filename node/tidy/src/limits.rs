//! The page of limits: each row agrees with the code, and each bound on input from outside has a
//! row.

use std::collections::BTreeMap;

use crate::SourceFile;

/// Files that bound input from outside. Each constant of `limits` that they name has a row.
const DOORS: &[&str] = &[
    "cluster/src/transport/",
    "node/api/src/",
    "node/src/http_server",
    "storage/git/src/http",
];

/// Rows of the page: `| what | bound | constant | file | what is seen |`.
#[derive(Debug, Clone, Copy)]
struct Row<'a> {
    bound: &'a str,
    constant: &'a str,
    file: &'a str,
    seen: &'a str,
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let cells: Vec<_> = line.strip_prefix("| ")?.split(" | ").collect();
        let [_, bound, constant, file, seen] = cells.as_slice() else {
            return None;
        };
        Some(Self {
            bound,
            constant: constant.strip_prefix('`')?.strip_suffix('`')?,
            file: file.strip_prefix('`')?.strip_suffix('`')?,
            seen: seen.strip_suffix(" |")?,
        })
    }
}

/// Disagreements between `page` and the constants in `limits`.
pub fn violations(page: &str, limits: &str, files: &[SourceFile]) -> Vec<String> {
    let constants = Constants::parse(limits);
    let mut found = Vec::new();
    let mut told = BTreeMap::new();
    for row in page.lines().filter_map(Row::parse) {
        let name = row.constant;
        if told.insert(name, ()).is_some() {
            found.push(format!("{name} has two rows"));
        }
        match constants.told(name) {
            None => found.push(format!("there is no number {name}")),
            Some(bound) if bound == row.bound => {}
            Some(bound) => found.push(format!("{name} is {bound}, not {}", row.bound)),
        }
        let file = files.iter().find(|file| file.path == row.file);
        match file {
            None => found.push(format!("{name}: there is no file {}", row.file)),
            Some(file) if file.text.contains(name) => {}
            Some(_) => found.push(format!("{name} is not looked at in {}", row.file)),
        }
        for words in row.seen.split('`').skip(1).step_by(2) {
            let is_said = |file: &&SourceFile| file.is_rust() && file.text.contains(words);
            if !files.iter().filter(is_said).any(|file| !file.is_test()) {
                found.push(format!("{name}: nobody says {words:?}"));
            }
        }
    }
    for file in files {
        let is_door = DOORS.iter().any(|door| file.path.starts_with(door));
        if !is_door || !file.is_rust() || file.is_test() {
            continue;
        }
        for name in named(&file.text) {
            if told.insert(name, ()).is_none() {
                found.push(format!("{name}, in {}, has no row", file.path));
            }
        }
    }
    found
}

/// The constants of `limits` that a source names.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split("limits::").skip(1).filter_map(|rest| {
        let is_of_name =
            |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let end = rest.bytes().take_while(|byte| is_of_name(*byte)).count();
        let is_whole = !rest[end..].starts_with(|next: char| next.is_ascii_lowercase());
        rest.get(..end).filter(|name| !name.is_empty() && is_whole)
    })
}

/// Constants by their names, with their values as source text.
#[derive(Debug)]
struct Constants<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Constants<'a> {
    fn parse(text: &'a str) -> Self {
        let constants = text.split("pub const ").skip(1).filter_map(|rest| {
            let (head, value) = rest.split_once(';')?.0.split_once('=')?;
            Some((head.split(':').next()?.trim(), value.trim()))
        });
        Self(constants.collect())
    }

    /// The value of a constant: a sum of products of numbers and other constants.
    fn value(&self, name: &str) -> Option<u64> {
        let terms = self.0.get(name)?.split('+');
        terms
            .map(|term| {
                let factors = term.split('*').map(str::trim);
                let factors = factors.map(|factor| match factor.replace('_', "").parse() {
                    Ok(number) => Some(number),
                    Err(_) => self.value(factor),
                });
                factors.product::<Option<u64>>()
            })
            .sum()
    }

    /// The value for the page, in the unit that the name gives.
    fn told(&self, name: &str) -> Option<String> {
        const BYTES: &[(u64, &str)] = &[
            (1 << 30, "GiB"),
            (1 << 20, "MiB"),
            (1 << 10, "KiB"),
            (1, "bytes"),
        ];
        const TIMES: &[(u64, &str)] = &[
            (24 * 3_600_000, "d"),
            (3_600_000, "h"),
            (60_000, "min"),
            (1_000, "s"),
            (1, "ms"),
        ];
        let value = self.value(name)?;
        let units = match () {
            () if name.contains("_MS") => TIMES,
            () if name.contains("_BYTES") => BYTES,
            () => return Some(value.to_string()),
        };
        let (unit, word) = units
            .iter()
            .find(|(unit, _)| value >= *unit && value.is_multiple_of(*unit))?;
        Some(format!("{} {word}", value / unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: &str = "pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;\n\
        pub const WAIT_MS: u64 = 2_000 + PAUSE_MS;\npub const PAUSE_MS: u64 = 500;\npub const AT_ONCE: usize = 1_024;\n";

    fn page(row: &str) -> String {
        format!(
            "| what | bound | constant | file | seen |\n|---|---|---|---|---|\n| it | {row} |\n"
        )
    }

    #[test]
    fn rows_that_are_wrong_and_bounds_without_one_are_found() {
        let door = SourceFile::new(
            "node/api/src/a.rs",
            "limits::BODY_BYTES_MAX \"it is too large\"",
        );
        let files = [door];
        let all = |row: &str| violations(&page(row), LIMITS, &files);
        let none: Vec<String> = Vec::new();
        let right = "3 MiB | `BODY_BYTES_MAX` | `node/api/src/a.rs` | 400: `it is too large`";
        assert_eq!(all(right), none);
        for (right, wrong, says) in [
            ("3 MiB", "3 KiB", "is 3 MiB, not 3 KiB"),
            (
                "BODY_BYTES",
                "HEAD_BYTES",
                "there is no number HEAD_BYTES_MAX",
            ),
            ("a.rs", "b.rs", "there is no file"),
            ("it is too", "that is too", "nobody says"),
        ] {
            let found = all(&row_with(right, wrong));
            assert!(found.iter().any(|found| found.contains(says)), "{found:?}");
        }
        let unused = "1024 | `AT_ONCE` | `node/api/src/a.rs` | 429";
        let found = all(unused);
        assert_eq!(
            found.len(),
            2,
            "not looked at, and a bound without a row: {found:?}"
        );
    }

    fn row_with(right: &str, wrong: &str) -> String {
        "3 MiB | `BODY_BYTES_MAX` | `node/api/src/a.rs` | 400: `it is too large`"
            .replace(right, wrong)
    }

    #[test]
    fn values_are_sums_of_products_in_a_unit() {
        let constants = Constants::parse(LIMITS);
        assert_eq!(constants.told("WAIT_MS").as_deref(), Some("2500 ms"));
        assert_eq!(constants.told("AT_ONCE").as_deref(), Some("1024"));
        assert_eq!(constants.told("ABSENT"), None);
    }
}

//! docs/compatibility.md: written from the outcomes, and compared with them.

use std::collections::BTreeMap;
use std::path::Path;

use super::Columns;
use super::cell::{CELLS, Outcome};
use super::client::Found;
use super::server::Server;

pub(super) const SHA1_ONLY: &str = "the client, as it is built here, knows SHA-1 only";
pub(super) const DULWICH_SHA256: &str = "clones and fetches work; pushes do not say which format they are of, which git's own server refuses as well";
pub(super) const GIX_PUSH: &str = "gix has no pushes";
pub(super) const PARTIAL: &str = "the client has no partial clones that fetch the rest on demand";
pub(super) const JGIT_SHALLOW: &str = "the command line of this version has no shallow clones";
pub(super) const LIBGIT2_ATOMIC: &str = "libgit2 does not ask for atomic pushes";
pub(super) const ISOMORPHIC_ATOMIC: &str = "the client pushes one ref at a time";

/// The reasons, in the order of their letters.
const REASONS: &[&str] = &[
    PARTIAL,
    JGIT_SHALLOW,
    LIBGIT2_ATOMIC,
    ISOMORPHIC_ATOMIC,
    GIX_PUSH,
    SHA1_ONLY,
    DULWICH_SHA256,
];

const HEAD: &str = "\
# Which clients work

Real clients against both ways to be served: `henge serve-bare` over plain bare repositories, and a ring of three nodes,
each repository through another node, what came of it asked of yet another. A clone is checked with `git fsck --strict`;
what a push did is what `git ls-remote` shows.

This page is what the test found: `HENGE_BLESS=1 cargo test -p henge --test it compat` writes it again, and without the
variable the test fails where the page is out of date. The clients' versions are pinned in `node/tests/compat`; git and JGit
are Debian's, and a newer git beside it.
";

fn letter(reason: &str) -> char {
    let position = REASONS.iter().position(|known| *known == reason);
    let position = position.expect("every reason is listed");
    char::from(b'a' + u8::try_from(position).expect("few reasons"))
}

fn text(outcome: Outcome) -> String {
    match outcome {
        Outcome::Works => "yes".to_owned(),
        Outcome::NotApplicable(reason) => format!("n/a ({})", letter(reason)),
    }
}

fn page(found: &Found, servers: &[Server], columns: &Columns) -> String {
    let mut page = HEAD.to_owned();
    for server in servers {
        let labels: Vec<_> = found.clients.iter().map(|client| client.label()).collect();
        page.push_str(&format!("\n## {}\n\n| |", server.name()));
        for label in &labels {
            page.push_str(&format!(" {label} |"));
        }
        page.push_str(&format!("\n|{}\n", "---|".repeat(labels.len() + 1)));
        for (row, cell) in CELLS.iter().enumerate() {
            page.push_str(&format!("| {} |", cell.title));
            for label in &labels {
                let column = &columns[&(server.name(), label.clone())];
                page.push_str(&format!(" {} |", text(column[row])));
            }
            page.push('\n');
        }
    }
    page.push_str("\n## Not applicable\n\n");
    for reason in REASONS {
        page.push_str(&format!("- ({}) {reason}\n", letter(reason)));
    }
    page
}

/// The cells of each column, by section and column heading.
fn columns_of(page: &str) -> BTreeMap<(String, String), Vec<String>> {
    let mut columns = BTreeMap::new();
    for section in page.split("\n## ").skip(1) {
        let name = section.lines().next().unwrap_or_default();
        let rows: Vec<Vec<&str>> = section
            .lines()
            .filter(|line| line.starts_with("| "))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let Some((head, body)) = rows.split_first() else {
            continue;
        };
        for (index, label) in head.iter().enumerate().skip(1) {
            let cells = body.iter().map(|row| format!("{}: {}", row[0], row[index]));
            columns.insert((name.to_owned(), (*label).to_owned()), cells.collect());
        }
    }
    columns
}

/// Writes the page, or compares it: the whole page if every client is here, otherwise the columns
/// of those that are.
pub(super) fn check(found: &Found, servers: &[Server], columns: &Columns) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let page = page(found, servers, columns);
    if std::env::var_os("HENGE_BLESS").is_some() {
        assert!(
            found.is_complete,
            "a client is missing: the page would lose it"
        );
        std::fs::write(&path, page).expect("the page is written");
        return;
    }
    let written = std::fs::read_to_string(&path).expect("docs/compatibility.md");
    let again = "HENGE_BLESS=1 cargo test -p henge --test it compat writes it again";
    if found.is_complete {
        assert_eq!(
            written, page,
            "docs/compatibility.md is out of date: {again}"
        );
        return;
    }
    let written = columns_of(&written);
    for (column, cells) in columns_of(&page) {
        let there = written.get(&column);
        assert_eq!(
            there,
            Some(&cells),
            "docs/compatibility.md: {column:?}: {again}"
        );
    }
}

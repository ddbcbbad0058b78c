//! `docs/metrics.md` equals the descriptions of the crates.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use henge_api::metrics::catalogue;

/// Every crate with metrics, and its descriptions. The tidy test finds a crate with a
/// `src/metrics.rs` that is not on the page.
const CRATES: &[(&str, fn())] = &[
    ("henge-api", henge_api::metrics::describe),
    ("henge-cluster", henge_cluster::metrics::describe),
    ("henge-git", henge_git::metrics::describe),
    ("henge-repos", henge_repos::metrics::describe),
    ("henge-storage", henge_storage::metrics::describe),
];

#[test]
fn names_and_help_follow_the_rules_and_no_name_is_used_twice() {
    let mut seen = BTreeSet::new();
    for (name, describe) in CRATES {
        let found = catalogue::collect(*describe);
        assert!(!found.is_empty(), "{name} describes nothing");
        assert_eq!(catalogue::misnamed(&found), Vec::<String>::new(), "{name}");
        for metric in found.into_keys() {
            assert!(seen.insert(metric.clone()), "{metric} is described twice");
        }
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "asks whether to write the page again"
)]
fn the_page_of_metrics_says_what_the_crates_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let page = catalogue::page(CRATES);
    if std::env::var_os("HENGE_BLESS").is_some() {
        fs::write(&path, page).expect("the page is written");
        return;
    }
    let written = fs::read_to_string(&path).expect("docs/metrics.md");
    assert_eq!(
        written, page,
        "docs/metrics.md is out of date: HENGE_BLESS=1 cargo test -p henge-api writes it again"
    );
}

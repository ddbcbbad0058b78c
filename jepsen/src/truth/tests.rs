use super::*;

const REPO: &str = "admin/r1";

fn branch() -> BranchName {
    BranchName {
        repo: REPO.to_owned(),
        name: "refs/heads/b".to_owned(),
    }
}

fn value(text: &str) -> Value {
    Some(text.to_owned())
}

fn book(attempts: &[(&str, Outcome)]) -> Book {
    let mut book = Book::default();
    book.open(&branch());
    for (text, outcome) in attempts {
        let attempted = if text.is_empty() { None } else { value(text) };
        let number = book.begin(&branch(), attempted);
        book.end(&branch(), number, *outcome);
    }
    book
}

/// The judgement on a read that begins now and shows `seen`.
fn read(book: &Book, seen: &str) -> Option<Judgement> {
    let mut refs = BTreeMap::new();
    if !seen.is_empty() {
        refs.insert(branch().name, seen.to_owned());
    }
    let wrong = book.judge(&book.floors(), REPO, &refs);
    wrong.into_iter().map(|(_, _, judgement)| judgement).next()
}

use Outcome::{Acknowledged, Pending, Refused, Unknown};

#[test]
fn an_acknowledged_value_that_is_gone_is_lost() {
    let book = book(&[("a", Acknowledged), ("b", Acknowledged)]);
    assert_eq!(read(&book, "b"), None);
    let lost = Judgement::Lost {
        acknowledged: value("b"),
    };
    assert_eq!(read(&book, "a"), Some(lost.clone()));
    assert_eq!(read(&book, ""), Some(lost));
}

#[test]
fn an_unknown_outcome_may_show_or_not() {
    let book = book(&[("a", Acknowledged), ("b", Unknown)]);
    assert_eq!(read(&book, "a"), None);
    assert_eq!(read(&book, "b"), None);
}

#[test]
fn an_attempt_under_way_may_show_or_not() {
    let book = book(&[("a", Acknowledged), ("b", Pending)]);
    assert_eq!(read(&book, "a"), None);
    assert_eq!(read(&book, "b"), None);
}

#[test]
fn a_refused_value_must_not_show() {
    let book = book(&[("a", Acknowledged), ("b", Refused)]);
    assert_eq!(read(&book, "a"), None);
    assert_eq!(read(&book, "b"), Some(Judgement::RefusedButThere));
}

#[test]
fn a_value_that_nothing_attempted_is_found() {
    let book = book(&[("a", Acknowledged)]);
    assert_eq!(read(&book, "z"), Some(Judgement::NeverAttempted));
}

#[test]
fn a_value_before_an_acknowledged_deletion_is_lost() {
    let book = book(&[("a", Acknowledged), ("", Acknowledged)]);
    assert_eq!(read(&book, ""), None);
    let lost = Judgement::Lost { acknowledged: None };
    assert_eq!(read(&book, "a"), Some(lost));
}

/// A creation without an answer, a deletion, then the first creation takes effect: the branch was
/// missing both times.
#[test]
fn a_late_creation_after_a_deletion_is_right() {
    let late = book(&[("a", Unknown), ("b", Acknowledged), ("", Acknowledged)]);
    assert_eq!(read(&late, "a"), None);
    let book = book(&[("a", Unknown), ("b", Acknowledged), ("c", Acknowledged)]);
    assert!(matches!(read(&book, "a"), Some(Judgement::Lost { .. })));
}

#[test]
fn a_read_that_showed_an_unknown_value_settles_it() {
    let mut book = book(&[("a", Acknowledged), ("b", Unknown)]);
    assert_eq!(book.observe(&branch(), &value("b")), Judgement::Right(2));
    assert!(matches!(read(&book, "a"), Some(Judgement::Lost { .. })));
    assert_eq!(book.counts().acknowledged, 1, "it was never answered");
}

#[test]
fn a_read_is_judged_by_what_was_acknowledged_before_it() {
    let mut book = book(&[("a", Acknowledged)]);
    let floors = book.floors();
    let number = book.begin(&branch(), value("b"));
    book.end(&branch(), number, Acknowledged);
    let seen = BTreeMap::from([(branch().name, "a".to_owned())]);
    assert!(book.judge(&floors, REPO, &seen).is_empty());
    assert_eq!(book.judge(&book.floors(), REPO, &seen).len(), 1);
}

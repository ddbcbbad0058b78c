//! The copy-on-write state.

use bytes::Bytes;
use henge_state::{State, View, Write};

fn write(key: &'static str, value: Option<&'static str>) -> Write {
    Write {
        key: Bytes::from_static(key.as_bytes()),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
    }
}

fn keys(state: &State, from: &[u8], prefix: &[u8]) -> Vec<Bytes> {
    state
        .range(from, prefix)
        .map(|(key, _)| key.clone())
        .collect()
}

#[test]
fn a_clone_keeps_its_point_in_time() {
    let mut state = State::empty();
    state.commit(&[write("a", Some("1")), write("b", Some("2"))]);
    let then = state.clone();
    let hash = then.hash();
    state.commit(&[
        write("a", Some("9")),
        write("b", None),
        write("c", Some("3")),
    ]);
    assert_eq!(then.get(b"a"), Some(Bytes::from_static(b"1")));
    assert_eq!(then.get(b"b"), Some(Bytes::from_static(b"2")));
    assert_eq!(then.len(), 2);
    assert_eq!((then.hash(), then.recompute_hash()), (hash, hash));
    assert_eq!(state.get(b"b"), None);
    assert_ne!(state.hash(), hash);
    assert_eq!(state.hash(), state.recompute_hash());
}

#[test]
fn the_hash_of_nothing_is_zero_and_comes_back() {
    let mut state = State::empty();
    assert_eq!(state.hash(), [0; 32]);
    state.commit(&[write("a", Some("1"))]);
    assert_ne!(state.hash(), [0; 32]);
    state.commit(&[write("a", None), write("never", None)]);
    assert_eq!(state.hash(), [0; 32]);
    assert!(state.is_empty());
}

#[test]
fn a_range_has_the_prefix_and_starts_where_told() {
    let mut state = State::empty();
    let all = ["a", "ab", "aba", "abb", "ac", "b"];
    for key in all {
        state.commit(&[write(key, Some(""))]);
    }
    assert_eq!(keys(&state, b"", b""), all);
    assert_eq!(keys(&state, b"", b"ab"), ["ab", "aba", "abb"]);
    assert_eq!(keys(&state, b"aba", b"ab"), ["aba", "abb"]);
    assert_eq!(keys(&state, b"abaa", b"ab"), ["abb"]);
    assert_eq!(keys(&state, b"b", b"ab"), [""; 0]);
    assert_eq!(keys(&state, b"ac", b"ab"), [""; 0]);
    assert_eq!(keys(&state, b"zz", b""), [""; 0]);
}

#[test]
fn a_prefix_of_highest_bytes_has_no_upper_bound() {
    let mut state = State::empty();
    for key in [
        vec![0xfe],
        vec![0xff],
        vec![0xff, 0xff],
        vec![0xff, 0xff, 1],
    ] {
        let value = Some(Bytes::new());
        state.commit(&[Write {
            key: key.into(),
            value,
        }]);
    }
    assert_eq!(
        keys(&state, b"", &[0xff, 0xff]),
        [vec![0xff, 0xff], vec![0xff, 0xff, 1]]
    );
    assert_eq!(keys(&state, b"", &[0xfe]), [vec![0xfe]]);
    assert_eq!(keys(&state, b"", &[0xfe, 0xff]).len(), 0);
}

/// Snapshots are built and readers are served on other threads.
#[test]
fn a_state_may_cross_threads() {
    fn crosses<T: Send + Sync + 'static>() {}
    crosses::<State>();
}

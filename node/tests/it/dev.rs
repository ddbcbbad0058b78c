//! `henge dev` with failing nodes.

use std::fs;

use crate::process::{Running, base_port};

#[test]
fn a_node_that_does_not_start_is_shown_with_the_end_of_its_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let home = dir.path().join("dev");
    let base = base_port().to_string();
    // Made, and interrupted before any node is ready: that is no failure.
    let mut dev = Running::dev(&home, &["--base-port", &base]);
    dev.wait_for_line("node ");
    let (status, errors) = dev.interrupt();
    assert!(status.success(), "{errors}");

    fs::write(home.join("n2/node.toml"), "[nodes]\n").expect("written");
    let mut dev = Running::dev(&home, &[]);
    let (status, errors) = dev.wait();
    assert_eq!(status.code(), Some(1));
    assert!(
        errors.contains("node 2 ended with exit status 2 before it was ready; the end of"),
        "{errors}"
    );
    assert!(errors.contains("unknown field `nodes`"), "{errors}");
    for node in ["n1", "n3"] {
        let pid = home.join(node).join("henge.pid");
        assert!(
            !pid.try_exists().expect("looked"),
            "{node} was stopped in order"
        );
    }
}

//! A short run against the debug binary: the harness itself works, and the ring survives kills and
//! a graceful stop.

use std::path::PathBuf;
use std::time::Duration;

use henge_jepsen::process::Program;

/// Generous: a loaded machine is slow.
const DEADLINE: Duration = Duration::from_secs(300);

/// The `henge` binary of the same build, two folders above the test.
fn henge() -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a path");
    let folder = test.parent().and_then(|deps| deps.parent());
    let henge = folder.expect("a target folder").join("henge");
    henge.is_file().then_some(henge)
}

#[test]
fn kills_and_stops_lose_nothing() {
    let Some(henge) = henge() else {
        // Only when this crate is tested alone.
        eprintln!("NOT CHECKED: no henge binary beside this test: cargo build -p henge");
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    let ledger = dir.path().join("ledger.jsonl");
    // Below the ports of the other crates' tests, which count from 12000.
    let base_port = 10_000 + std::process::id() % 30 * 60;
    let ended = Program::new(env!("CARGO_BIN_EXE_henge-jepsen"))
        .args(["replay", "5", "--rootless", "--only", "kill,stop"])
        .args(["--faults", "3", "--minutes", "3", "--base-port"])
        .arg(base_port.to_string())
        .arg("--henge")
        .arg(henge)
        .arg("--dir")
        .arg(dir.path().join("run"))
        .arg("--ledger")
        .arg(&ledger)
        .deadline(DEADLINE)
        .run()
        .expect("the harness starts");
    let said = format!("{}{}", ended.stdout, ended.stderr);
    let line = std::fs::read_to_string(ledger).unwrap_or_default();
    let line: serde_json::Value = serde_json::from_str(line.trim())
        .unwrap_or_else(|error| panic!("no ledger line ({error}):\n{said}"));
    assert_eq!(line["seed"], 5, "{line}");
    assert!(line["acknowledged"].as_u64() > Some(0), "{line}");
    let faults = line["faults"].as_object().expect("faults by kind");
    let bit: u64 = faults.values().filter_map(|f| f["bit"].as_u64()).sum();
    assert_eq!(bit, 3, "{line}");
    // The status within a second and the log messages are for soaks on a quiet machine.
    let findings = line["findings"].as_array().expect("findings").iter();
    let bad: Vec<&serde_json::Value> = findings
        .filter(|finding| finding["sort"] != "status" && finding["sort"] != "noise")
        .collect();
    assert!(bad.is_empty(), "{bad:?}\n{said}");
}

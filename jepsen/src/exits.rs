//! Checks whether a process that ended by itself was allowed to, and logged a helpful reason.
//!
//! Pure: the log goes in, a note or a finding comes out.

use crate::faults::Ends;
use crate::ledger::Sort;

/// Lines from the end of a log, when it contains no error.
const TAIL_LINES: usize = 3;

/// The judgement on an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// It was allowed; with the logged reason.
    Right(String),
    /// It was not allowed.
    Wrong(Sort, String),
}

/// The logged reason.
pub fn reason(log: &str) -> String {
    // The Raft library logs errors about its own shutdown too.
    let ours = |line: &str| line.contains("ERROR") && !line.contains(" openraft::");
    let plain = |line: &&str| ours(line) || line.contains("panicked at");
    let errors: Vec<&str> = log.lines().filter(plain).collect();
    let lines: Vec<&str> = match errors.is_empty() {
        true => log.lines().filter(|line| !line.is_empty()).collect(),
        false => errors,
    };
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines.get(from..).unwrap_or_default().join(" | ")
}

/// Judges the end of a node's process. `ends` is `None` for a node without a fault.
pub fn judge(node: u64, how: &str, log: &str, ends: Option<Ends>) -> Exit {
    let said = reason(log);
    if log.contains("panicked at") {
        return Exit::Wrong(Sort::Panic, format!("node {node}: {how}: {said}"));
    }
    let unexpected = || {
        let text = format!("node {node} ended by itself ({how}): {said}");
        Exit::Wrong(Sort::Words, text)
    };
    match ends {
        None | Some(Ends::Never) => unexpected(),
        Some(Ends::MayRestart) => Exit::Right(format!("n{node} ended ({how}): {said}")),
        Some(Ends::MayRefuse(words) | Ends::Must(words)) => {
            let lower = said.to_lowercase();
            match words
                .iter()
                .any(|word| lower.contains(&word.to_lowercase()))
            {
                true => Exit::Right(format!("n{node} refused ({how}): {said}")),
                false => unexpected(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026 INFO starting\n2026 ERROR the node failed: wal/1.seg is damaged\n";

    #[test]
    fn a_refusal_needs_the_right_words() {
        let right = judge(1, "exit status: 1", LOG, Some(Ends::MayRefuse(&["WAL"])));
        assert!(matches!(right, Exit::Right(_)), "{right:?}");
        let wrong = judge(1, "exit status: 1", LOG, Some(Ends::MayRefuse(&["clock"])));
        assert!(matches!(wrong, Exit::Wrong(Sort::Words, _)), "{wrong:?}");
    }

    #[test]
    fn a_healthy_node_never_ends() {
        let ended = judge(1, "exit status: 1", LOG, None);
        assert!(matches!(ended, Exit::Wrong(Sort::Words, _)), "{ended:?}");
    }

    #[test]
    fn a_panic_is_never_right() {
        let log = format!("{LOG}thread 'x' panicked at y\n");
        let ended = judge(1, "signal: 6", &log, Some(Ends::MayRestart));
        assert!(matches!(ended, Exit::Wrong(Sort::Panic, _)), "{ended:?}");
    }
}

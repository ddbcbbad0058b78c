//! The C library's allocator, as a long-running node wants it.
//!
//! It keeps a heap for every few threads, up to eight for each processor, and what a thread freed in one serves no other and
//! does not go back to the system: after a large import a node held 490 MB and used 140. With four heaps it holds 310 and costs
//! no more; with two 200, and a fifth more for a push. The allocator reads its settings before `main` begins, so the program
//! puts itself in its own place once.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::environment;

/// mallopt(3): the number of heaps. Whoever sets it is not overruled.
const HEAPS: &str = "MALLOC_ARENA_MAX";
/// As few as threads do not wait for each other in.
const HEAPS_MAX: &str = "4";

/// Has the process run with few heaps; it keeps its id. Where that cannot be done it goes on as it is.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing is started beside: the process goes on as itself"
)]
pub(crate) fn settle() {
    if environment::text(HEAPS).is_some() {
        return;
    }
    // Not its name: another release may stand there by now.
    let mut itself = Command::new("/proc/self/exe");
    let mut args = std::env::args_os();
    itself.arg0(args.next().unwrap_or_else(|| "henge".into()));
    let error = itself.args(args).env(HEAPS, HEAPS_MAX).exec();
    // The log is not open yet, and nothing fails for it.
    let told = writeln!(
        io::stderr(),
        "henge: keeps more memory than it needs: {error}"
    );
    drop(told);
}

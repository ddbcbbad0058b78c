//! Calls into a library that panics on damaged data.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    /// Whether this thread is in such a call.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    /// The message of the panic in it.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `job` and returns the message of a panic in it as an error. Nothing is printed: a stack
/// trace in the log looks like a crash, but this damage is repaired.
///
/// The first call installs a hook in front of the process's panic hook, which receives every other
/// panic unchanged.
pub(super) fn guarded<T>(job: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if GUARDED.get() {
                SAID.set(Some(said(info)));
            } else {
                before(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(job));
    GUARDED.set(outer);
    done.map_err(|_| SAID.take().unwrap_or_default())
}

fn said(info: &PanicHookInfo<'_>) -> String {
    let text = info.payload_as_str().unwrap_or("no message");
    match info.location() {
        Some(at) => format!("{text} ({}:{})", at.file(), at.line()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words() {
        assert_eq!(guarded(|| 7), Ok(7));
        let said = guarded(|| -> u8 { panic!("page {} is damaged", 18) }).expect_err("panics");
        assert!(said.starts_with("page 18 is damaged ("), "{said}");
        assert!(said.contains("guard.rs:"), "{said}");
        assert!(!GUARDED.get(), "others panic as ever");
    }
}

//! The seeds of a test, and the way to run one again.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Builder;

/// Seeds of every test.
const SEEDS: u64 = 10;
/// Seeds of one test that run at once: a ring waits most of its time.
const AT_ONCE: usize = 2;

/// Runs a scenario for every seed, or for the one named in the environment.
pub(crate) fn for_seeds(test: &'static str, scenario: impl AsyncFn(u64) + Sync) {
    let seeds = seeds();
    let next = AtomicUsize::new(0);
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let repeat = Repeat { test, seed: *seed };
                    let runtime = Builder::new_multi_thread()
                        .worker_threads(1)
                        .enable_all()
                        .build()
                        .expect("a runtime");
                    runtime.block_on(Box::pin(scenario(*seed)));
                    drop(repeat);
                }
            });
        }
    });
}

#[expect(
    clippy::disallowed_methods,
    reason = "the environment names the seed that is run again"
)]
fn seeds() -> Vec<u64> {
    match std::env::var("HENGE_SEED") {
        Ok(seed) => vec![seed.parse().expect("HENGE_SEED is a number")],
        Err(_) => (1..=SEEDS).collect(),
    }
}

/// Prints how to run a seed again when its scenario panics.
struct Repeat {
    test: &'static str,
    seed: u64,
}

impl Drop for Repeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, seed } = self;
            let again = format!("cargo test -p henge-cluster --test it {test}");
            eprintln!("seed {seed} failed, again with: HENGE_SEED={seed} {again}");
        }
    }
}

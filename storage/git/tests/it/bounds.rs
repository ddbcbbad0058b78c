//! The cost of hostile input: bytes of memory, and work after the deadline.
//!
//! Both are counted, not timed: every allocation of the process goes through [`Counting`], and the
//! clock advances with every read. Each case runs in a process of its own, so that no other work is
//! counted.

mod cases;

use std::alloc::{GlobalAlloc, Layout, System};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use henge_git::{Deadline, Stop};
use henge_runtime::Clock;

/// Limit of the memory growth of a node by one input.
const GROWTH_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Clock reads after the deadline: every loop on the way out may need one.
const LOOKS_AFTER_MAX: u64 = 16;
/// Allocations after the deadline: the error message needs some.
const ALLOCATIONS_AFTER_MAX: u64 = 20_000;
/// A case without a result after this time counts as endless; a busy machine needs half a minute
/// for some.
const CASE_MAX: Duration = Duration::from_secs(300);
/// Name of the case that a process runs; the others return at once.
const CASE: &str = "HENGE_BOUNDS_CASE";

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, with counters.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn grown(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

#[allow(unsafe_code, reason = "there is no other way to count allocations")]
// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps the contract of the trait.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps the contract of the trait.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of the trait.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Counted as a move: both buffers exist for a moment.
        grown(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of the trait.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// A clock that advances by a second with every read.
#[derive(Debug)]
struct Ticking {
    begun: Instant,
    looks: AtomicU64,
    /// The deadline, as a number of reads.
    over_at: u64,
    is_over: AtomicBool,
    allocations_then: AtomicU64,
}

impl Clock for Ticking {
    fn instant(&self) -> Instant {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        if looks >= self.over_at && !self.is_over.swap(true, Ordering::Relaxed) {
            let now = ALLOCATIONS.load(Ordering::Relaxed);
            self.allocations_then.store(now, Ordering::Relaxed);
        }
        self.begun + Duration::from_secs(looks)
    }

    fn unix_ms(&self) -> u64 {
        0
    }
}

/// A prepared hostile input.
struct Hostile {
    /// Runs the input once; the result is ignored.
    run: Box<dyn FnMut(Stop)>,
    /// Numbers of clock reads after which it is stopped.
    stops: &'static [u64],
    /// Whether it is also run to its own end.
    ends: bool,
}

/// Runs an input with this many clock reads; returns the number of reads, and the peak memory
/// growth in bytes.
fn measured(hostile: &mut Hostile, over_at: u64) -> (u64, usize) {
    let clock = Arc::new(Ticking {
        begun: Instant::now(),
        looks: AtomicU64::new(0),
        over_at,
        is_over: AtomicBool::new(false),
        allocations_then: AtomicU64::new(0),
    });
    let within = Duration::from_secs(over_at);
    let stop = Stop::at(Deadline::after(
        Arc::<Ticking>::clone(&clock) as Arc<dyn Clock>,
        within,
    ));
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    (hostile.run)(stop);
    let growth = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let looks = clock.looks.load(Ordering::Relaxed);
    if clock.is_over.load(Ordering::Relaxed) {
        let late = looks - over_at;
        assert!(late <= LOOKS_AFTER_MAX, "{late} looks after the end");
        let then = clock.allocations_then.load(Ordering::Relaxed);
        let work = ALLOCATIONS.load(Ordering::Relaxed) - then;
        assert!(
            work <= ALLOCATIONS_AFTER_MAX,
            "{work} allocations after the end at look {over_at}"
        );
    }
    assert!(
        growth < GROWTH_BYTES_MAX,
        "{growth} bytes more memory ({looks} looks)"
    );
    (looks, growth)
}

/// The part of [`hostile_input_costs_no_more_than_it_may`] that runs in a process of its own.
#[test]
fn one_case() {
    let Some(case) = std::env::var_os(CASE) else {
        return;
    };
    let case = case.into_string().unwrap();
    // Work that never reads the clock would never end.
    let (done, wait) = std::sync::mpsc::sync_channel::<()>(1);
    std::thread::spawn(move || {
        if wait.recv_timeout(CASE_MAX) == Err(RecvTimeoutError::Timeout) {
            eprintln!("nobody looks at the clock");
            std::process::abort();
        }
    });
    let (_, make) = cases::ALL.iter().find(|(name, _)| *name == case).unwrap();
    let mut hostile = make();
    let (mut looks, mut growth) = (0, 0);
    for over_at in hostile.stops {
        let (looked, then) = measured(&mut hostile, *over_at);
        (looks, growth) = (looks.max(looked), growth.max(then));
    }
    // Last: an accepted input is in the store afterwards, so that a repetition is refused early.
    if hostile.ends {
        let (looked, then) = measured(&mut hostile, 1 << 40);
        (looks, growth) = (looked, growth.max(then));
    }
    drop(done);
    eprintln!("{case}: {} kB, {looks} looks", growth / 1024);
}

#[test]
fn hostile_input_costs_no_more_than_it_may() {
    let mut wrong = Vec::new();
    for (name, _) in cases::ALL {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "bounds::one_case", "--nocapture"])
            .env(CASE, name)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| line.starts_with(name));
        match line.filter(|_| output.status.success()) {
            Some(line) => eprintln!("{line}"),
            None => wrong.push(format!("{name}: {said}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

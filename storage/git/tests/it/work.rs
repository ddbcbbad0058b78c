//! The work limit of fetches without a token.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use henge_git::{
    Asker, BareRepository, Deadline, FetchError, FetchLimits, FetchSummary, Output, Protocol, Stop,
    upload_pack,
};
use henge_runtime::Clock;

use crate::raw::fetch;
use crate::{for_each_git, objects_of};

const HOUR: u64 = 60 * 60;

/// A clock that advances by `step` seconds with every read, and on request of a test.
#[derive(Debug)]
struct Steps {
    begun: Instant,
    seconds: AtomicU64,
    step: u64,
}

impl Steps {
    fn of(step: u64) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            seconds: AtomicU64::new(0),
            step,
        })
    }
}

impl Clock for Steps {
    fn instant(&self) -> Instant {
        let seconds = self.seconds.fetch_add(self.step, Ordering::Relaxed);
        self.begun + Duration::from_secs(seconds)
    }

    fn unix_ms(&self) -> u64 {
        0
    }
}

/// A client that takes an hour for every write.
struct Slow {
    clock: Arc<Steps>,
    taken: Vec<u8>,
}

impl Write for Slow {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.clock.seconds.fetch_add(HOUR, Ordering::Relaxed);
        self.taken.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Slow {}

fn answer(
    (bare, want): (&Path, &str),
    asker: Asker,
    clock: &Arc<Steps>,
    output: &mut dyn Output,
) -> Result<FetchSummary, FetchError> {
    let clock = Arc::<Steps>::clone(clock) as Arc<dyn Clock>;
    let within = Duration::from_secs(10_000 * HOUR);
    let limits = FetchLimits {
        asker,
        stop: Stop::at(Deadline::after(clock, within)),
        ..FetchLimits::default()
    };
    upload_pack(
        &BareRepository::open(bare).unwrap(),
        &objects_of(bare),
        Protocol::V2,
        &mut &fetch(want)[..],
        output,
        &limits,
    )
}

/// Each of thirty-two fetches without a token could occupy a processor for two hours.
#[test]
fn anonymous_fetches_have_a_minute_of_work() {
    for_each_git(|server, git| {
        let (bare, url) = server.repo(git, "work.git");
        let work = server.path("work");
        git.work_tree(&work, 3);
        git.ok(&["push", "-q", &url, "main"], &work);
        let want = git.ok(&["rev-parse", "main"], &work);
        let of = (bare.as_path(), want.as_str());

        let mut told = Vec::new();
        let refused = answer(of, Asker::Anybody, &Steps::of(20), &mut told);
        assert!(
            matches!(refused, Err(FetchError::TooMuchWork)),
            "{refused:?}"
        );
        let told = String::from_utf8_lossy(&told);
        let words = "this fetch takes more work than is done without a token: send one";
        assert!(told.contains(words), "{told}");
        let known = answer(of, Asker::Known, &Steps::of(20), &mut Vec::new());
        assert!(known.unwrap().objects_sent > 0);

        // The client's own time does not count as work.
        let clock = Steps::of(0);
        let mut slow = Slow {
            clock: Arc::clone(&clock),
            taken: Vec::new(),
        };
        let sent = answer(of, Asker::Anybody, &clock, &mut slow).unwrap();
        assert!(sent.objects_sent > 0 && slow.taken.ends_with(b"0000"));
        assert!(clock.seconds.load(Ordering::Relaxed) > HOUR);
    });
}

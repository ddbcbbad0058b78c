//! `henge upload-pack` and `henge receive-pack`: one conversation about a repository on standard
//! input and output.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use henge_git::{BareRepository, Conversation, FetchLimits, Objects, Part, Protocol, PushLimits};
use henge_runtime::{Clock as _, SystemClock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::args::{PartOf, ReceivePack, UploadPack};
use crate::config::LogFormat;
use crate::{environment, logging};

/// Bytes of one read or write.
const BUFFER_BYTES: usize = 64 * 1024;
/// The bytes that a writable pipe takes without waiting (PIPE_BUF).
const CERTAIN_BYTES: usize = 4096;

/// Answers one fetch.
pub(crate) fn upload_pack(args: &UploadPack) -> ExitCode {
    ended(try_upload_pack(args))
}

/// Answers one push.
pub(crate) fn receive_pack(args: &ReceivePack) -> ExitCode {
    ended(try_receive_pack(args))
}

fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::complain(&error, ExitCode::FAILURE),
    }
}

fn try_upload_pack(args: &UploadPack) -> anyhow::Result<()> {
    let repository = open(&args.dir, args.strict)?;
    let timeout = args
        .timeout
        .map(|seconds| Duration::from_secs(seconds.into()));
    let (mut input, mut output) = streams(timeout)?;
    let refs = repository.for_fetches();
    let conversation = Conversation {
        refs: &refs,
        objects: &Objects::at(&repository.objects(), repository.object_format()),
        protocol: protocol(),
        part: part(&args.part),
    };
    let limits = FetchLimits {
        policy: repository.config().fetch_policy(),
        bundles: repository.bundle_list(),
        ..FetchLimits::default()
    };
    conversation.upload_pack(&mut input, &mut output, &limits)?;
    Ok(())
}

fn try_receive_pack(args: &ReceivePack) -> anyhow::Result<()> {
    let repository = open(&args.dir, false)?;
    let (mut input, mut output) = streams(None)?;
    let refs = repository.for_pushes(SystemClock.unix_ms() / 1000);
    let conversation = Conversation {
        refs: &refs,
        objects: &Objects::at(&repository.objects(), repository.object_format()),
        protocol: protocol(),
        part: part(&args.part),
    };
    let quarantine = repository
        .quarantine()
        .with_context(|| format!("cannot write to {}", args.dir.display()))?;
    let limits = repository.push_limits(PushLimits::default());
    conversation.receive_pack(&quarantine.path(), &mut input, &mut output, &limits)?;
    Ok(())
}

fn open(dir: &Path, strict: bool) -> anyhow::Result<BareRepository> {
    // Standard error is the client's terminal: only errors are logged.
    let filter = environment::text("HENGE_LOG_FILTER");
    logging::install(filter.as_deref().unwrap_or("error"), LogFormat::Text)?;
    let opened = if strict {
        BareRepository::open(dir)
    } else {
        BareRepository::find(dir)
    };
    Ok(opened?)
}

fn protocol() -> Protocol {
    environment::text("GIT_PROTOCOL").map_or(Protocol::V0, |text| Protocol::parse(&text))
}

const fn part(args: &PartOf) -> Part {
    // As git does: an advertisement takes precedence, and the request is not read.
    if args.http_backend_info_refs {
        Part::Advertisement
    } else if args.stateless_rpc {
        Part::Request
    } else {
        Part::Whole
    }
}

/// Standard input and output with an idle time-out: `timeout` without a byte is an error.
fn streams(timeout: Option<Duration>) -> anyhow::Result<(BufReader<Timed>, BufWriter<Timed>)> {
    let timed = |fd: BorrowedFd<'_>| -> io::Result<Timed> {
        Ok(Timed {
            file: File::from(fd.try_clone_to_owned()?),
            timeout,
        })
    };
    // Not the library's own handles: `poll` does not see their buffers.
    let input = timed(io::stdin().as_fd()).context("cannot read standard input")?;
    let output = timed(io::stdout().as_fd()).context("cannot write to standard output")?;
    Ok((
        BufReader::with_capacity(BUFFER_BYTES, input),
        BufWriter::with_capacity(BUFFER_BYTES, output),
    ))
}

struct Timed {
    file: File,
    timeout: Option<Duration>,
}

impl Timed {
    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        let Some(timeout) = self.timeout else {
            return Ok(());
        };
        let within = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.file, flags)];
        loop {
            match poll(&mut fds, Some(&within)) {
                Ok(0) => {
                    let message = format!("the client rested for {} s", timeout.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, message));
                }
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::IN)?;
        self.file.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.timeout.is_none() {
            return self.file.write(data);
        }
        self.wait(PollFlags::OUT)?;
        self.file.write(&data[..data.len().min(CERTAIN_BYTES)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

//! Floods: many requests of one client, which reads nothing of most responses, and the bounds on
//! their cost to others.
//!
//! A flood is bounded: a fixed number of connections and streams, which end when it is dropped.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::process::until;

/// The address of all other clients of the tests; floods may use it too.
pub(crate) const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Another client's address: all of 127.0.0.0/8 is this machine.
pub(crate) const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The window of an HTTP/2 client that reads nothing of its responses.
pub(crate) const CLOSED: u32 = 0;
/// The window of an HTTP/2 client that reads its responses.
pub(crate) const OPEN: u32 = 65_535;

/// The largest growth of a process's memory in a flood.
const MEMORY_MORE_KIB_MAX: u64 = 256 * 1024;
/// The same, once the flood is over.
const MEMORY_BACK_KIB_MAX: u64 = 64 * 1024;
/// The time for that, from the end of a flood.
const MEMORY_BACK_WITHIN: Duration = Duration::from_secs(60);
/// Below this, twice the usual time of a clone says nothing.
const CLONE_TIME_MIN: Duration = Duration::from_secs(1);

/// One flood at a time: a second one would be a part of the first one's baseline.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The longest time of a clone during a flood. A second is always allowed: a clone of a small
/// repository takes some hundredths of one, and the two cores of the test machine are busy.
pub(crate) fn clone_time_max(usual: Duration) -> Duration {
    (usual * 2).max(CLONE_TIME_MIN)
}

/// Anonymous memory of a process, compared with its value before a flood.
pub(crate) struct Memory {
    pid: u32,
    rest_kib: Cell<u64>,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Self {
        let memory = Self {
            pid,
            rest_kib: Cell::new(u64::MAX),
        };
        memory.settle();
        memory
    }

    /// Lowers the baseline to the current value, if that is lower: a push leaves memory that is
    /// given back later.
    pub(crate) fn settle(&self) {
        self.rest_kib.set(self.rest_kib.get().min(self.kib()));
    }

    fn kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.expect("the process runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.expect("a number").parse().expect("a number")
    }

    fn more_kib(&self) -> u64 {
        self.kib().saturating_sub(self.rest_kib.get())
    }

    pub(crate) fn assert_bounded(&self) {
        let more = self.more_kib();
        assert!(more <= MEMORY_MORE_KIB_MAX, "{more} KiB more than at rest");
    }

    /// Waits until memory is back, after the end of a flood.
    pub(crate) fn assert_given_back(&self) {
        let over = Instant::now();
        until("the memory of a flood to be given back", || {
            (self.more_kib() < MEMORY_BACK_KIB_MAX).then_some(())
        });
        let took = over.elapsed();
        assert!(took <= MEMORY_BACK_WITHIN, "memory was back after {took:?}");
    }
}

/// The version of git's protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Version {
    Zero,
    Two,
}

fn line(text: &str) -> String {
    format!("{:04x}{text}\n", text.len() + 5)
}

/// A request of `git-upload-pack`.
pub(crate) fn upload_pack(repo: &str, version: Version, body: Body) -> Request<Body> {
    let mut request = Request::post(format!("http://x/{repo}.git/git-upload-pack"))
        .header("content-type", "application/x-git-upload-pack-request");
    if matches!(version, Version::Two) {
        request = request.header("git-protocol", "version=2");
    }
    request.body(body).expect("a request")
}

/// A request for all of a branch, by a client that has no commit or one.
pub(crate) fn clone_of(
    repo: &str,
    version: Version,
    tip: &str,
    have: Option<&str>,
) -> Request<Body> {
    let have = have.map_or_else(String::new, |have| line(&format!("have {have}")));
    let done = line("done");
    let body = match version {
        Version::Zero => {
            let want = line(&format!("want {tip} side-band-64k ofs-delta no-progress"));
            format!("{want}0000{have}{done}")
        }
        Version::Two => {
            let command = line("command=fetch");
            let (deltas, want) = (line("ofs-delta"), line(&format!("want {tip}")));
            format!("{command}0001{deltas}{want}{have}{done}0000")
        }
    };
    upload_pack(repo, version, Body::from(body))
}

/// A request for the listing of all refs, in protocol v0.
pub(crate) fn listing(repo: &str) -> Request<Body> {
    Request::get(format!(
        "http://x/{repo}.git/info/refs?service=git-upload-pack"
    ))
    .body(Body::empty())
    .expect("a request")
}

async fn connect(from: Ipv4Addr, to: SocketAddr, window: u32) -> SendRequest<Body> {
    let socket = TcpSocket::new_v4().expect("a socket");
    let from = SocketAddr::from((from, 0));
    socket.bind(from).expect("an address of this machine");
    let stream = socket.connect(to).await.expect("listens");
    let (client, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(stream))
        .await
        .expect("HTTP/2");
    tokio::spawn(async move { drop(connection.await) });
    client
}

type Answers = Mutex<Vec<Option<u16>>>;

fn note(answers: &Answers, status: Option<u16>) {
    let answers = answers.lock();
    answers.unwrap_or_else(PoisonError::into_inner).push(status);
}

/// Requests under way to one server. When it is dropped, its connections end.
pub(crate) struct Flood {
    address: SocketAddr,
    runtime: Runtime,
    streams: Vec<JoinHandle<()>>,
    /// The status of each response that has begun; `None` where the stream broke before.
    answers: Arc<Answers>,
}

impl Flood {
    pub(crate) fn of(address: SocketAddr) -> Self {
        Self {
            address,
            runtime: Runtime::new().expect("a runtime"),
            streams: Vec::new(),
            answers: Arc::default(),
        }
    }

    /// Sends these requests at once, on a connection of their own. The window of each stream bounds
    /// the bytes of its response.
    pub(crate) fn connection(
        &mut self,
        from: Ipv4Addr,
        window: u32,
        requests: impl IntoIterator<Item = Request<Body>>,
    ) {
        let client = self.runtime.block_on(connect(from, self.address, window));
        for request in requests {
            let mut client = client.clone();
            let answers = Arc::clone(&self.answers);
            self.streams.push(self.runtime.spawn(async move {
                let answer = client.send_request(request).await.ok();
                let status = answer.as_ref().map(|answer| answer.status().as_u16());
                note(&answers, status);
                if let Some(answer) = answer {
                    let mut body = answer.into_body();
                    while let Some(Ok(_)) = body.frame().await {}
                }
            }));
        }
    }

    /// Sends one more request on a connection of its own and reads its whole response.
    pub(crate) fn ask(&self, from: Ipv4Addr, request: Request<Body>) -> Response<Bytes> {
        self.runtime.block_on(async {
            let mut client = connect(from, self.address, OPEN).await;
            let answer = client.send_request(request).await.expect("an answer");
            let (head, body) = answer.into_parts();
            let body = body.collect().await.expect("a whole answer");
            Response::from_parts(head, body.to_bytes())
        })
    }

    /// The status of each response that has begun, in that order.
    pub(crate) fn answers(&self) -> Vec<Option<u16>> {
        let answers = self.answers.lock();
        answers.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Responses that have begun.
    pub(crate) fn begun(&self) -> usize {
        self.answers().len()
    }

    /// Responses with this status.
    pub(crate) fn count(&self, status: u16) -> usize {
        let answers = self.answers().into_iter();
        answers.filter(|answer| *answer == Some(status)).count()
    }

    /// Streams that have ended.
    pub(crate) fn ended(&self) -> usize {
        let ended = self.streams.iter().filter(|stream| stream.is_finished());
        ended.count()
    }
}

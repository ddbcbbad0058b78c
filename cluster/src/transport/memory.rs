//! A network in memory between the hosts of one process: for tests.
//!
//! The bytes of a connection arrive in order, each piece after a delay that is drawn from the seed.
//! A partition holds back the bytes in flight, as TCP does when it retransmits, and attempts to
//! connect wait for its end. A reset ends a connection for both sides. The draws of a connection
//! depend on the seed and on its number. The scheduler determines the order in which threads
//! connect and write.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use henge_runtime::{Clock, Random as _, SeededRandom};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, watch};
use tokio::time::Sleep;

use super::network::{Datagrams, Duplex, Listener, Network};

/// Bytes in flight in one direction of a connection; its writer waits above it.
const WAY_BYTES_MAX: usize = 256 * 1024;
/// Connections that wait for their listener.
const BACKLOG: usize = 128;

/// Random faults of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkFaults {
    /// The longest delay of a written piece, microseconds.
    pub delay_us_max: u64,
    /// One write of this many resets its connection; 0 means none.
    pub reset_one_in: u64,
}

/// A network in memory; clones share it.
#[derive(Debug, Clone)]
pub struct MemoryNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Changes with every end of a partition.
    healed: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    seed: u64,
    connections: u64,
    faults: LinkFaults,
    listeners: BTreeMap<SocketAddr, mpsc::Sender<(End, IpAddr)>>,
    parted: BTreeSet<(IpAddr, IpAddr)>,
    ways: Vec<Weak<Way>>,
}

/// The result of an attempt to connect.
enum Attempt {
    Connected(End),
    Refused,
    Parted,
}

impl MemoryNetwork {
    /// A network without hosts, faults and partitions.
    pub fn new(seed: u64, clock: Arc<dyn Clock>) -> Self {
        let state = State {
            seed,
            connections: 0,
            faults: LinkFaults::default(),
            listeners: BTreeMap::new(),
            parted: BTreeSet::new(),
            ways: Vec::new(),
        };
        Self {
            shared: Arc::new(Shared {
                clock,
                state: Mutex::new(state),
                healed: watch::Sender::new(0),
            }),
        }
    }

    /// The network for the host with this address.
    pub fn host(&self, address: IpAddr) -> Arc<dyn Network> {
        Arc::new(MemoryHost {
            network: self.clone(),
            address,
        })
    }

    /// Sets the faults of connections from now on.
    pub fn set_faults(&self, faults: LinkFaults) {
        let mut state = self.lock();
        state.faults = faults;
        for way in state.live_ways() {
            way.lock().faults = faults;
        }
    }

    /// From now on the network holds back everything from one host to the other. The other
    /// direction is unchanged.
    pub fn part(&self, from: IpAddr, to: IpAddr) {
        let mut state = self.lock();
        state.parted.insert((from, to));
        for way in state.live_ways() {
            if (way.from, way.to) == (from, to) {
                way.lock().is_parted = true;
            }
        }
    }

    /// Ends all partitions. The bytes held back arrive.
    pub fn heal(&self) {
        let mut state = self.lock();
        state.parted.clear();
        for way in state.live_ways() {
            let mut way = way.lock();
            way.is_parted = false;
            way.wake_reader();
        }
        drop(state);
        self.shared.healed.send_modify(|times| *times += 1);
    }

    /// Resets all connections between two hosts.
    pub fn reset(&self, one: IpAddr, other: IpAddr) {
        let mut state = self.lock();
        for way in state.live_ways() {
            let ends = (way.from, way.to);
            if ends == (one, other) || ends == (other, one) {
                way.lock().reset();
            }
        }
    }

    fn attempt(&self, from: IpAddr, to: SocketAddr) -> Attempt {
        let mut state = self.lock();
        let is_parted = |from, to| state.parted.contains(&(from, to));
        if is_parted(from, to.ip()) || is_parted(to.ip(), from) {
            return Attempt::Parted;
        }
        let Some(listener) = state.listeners.get(&to).cloned() else {
            return Attempt::Refused;
        };
        let (near, far) = state.connect(&self.shared.clock, from, to.ip());
        match listener.try_send((far, from)) {
            Ok(()) => Attempt::Connected(near),
            Err(_) => Attempt::Refused,
        }
    }

    fn bind(&self, address: SocketAddr) -> io::Result<MemoryListener> {
        let mut state = self.lock();
        let taken = state.listeners.get(&address);
        if taken.is_some_and(|listener| !listener.is_closed()) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (sender, connections) = mpsc::channel(BACKLOG);
        state.listeners.insert(address, sender);
        Ok(MemoryListener { connections })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Both directions of all open connections.
    fn live_ways(&mut self) -> Vec<Arc<Way>> {
        self.ways.retain(|way| way.strong_count() > 0);
        self.ways.iter().filter_map(Weak::upgrade).collect()
    }

    /// Both ends of a new connection: that of `from` first.
    fn connect(&mut self, clock: &Arc<dyn Clock>, from: IpAddr, to: IpAddr) -> (End, End) {
        let (there, back) = (self.way(from, to), self.way(to, from));
        let end = |reads: &Arc<Way>, writes: &Arc<Way>| End {
            reads: Arc::clone(reads),
            writes: Arc::clone(writes),
            clock: Arc::clone(clock),
            timer: None,
        };
        (end(&back, &there), end(&there, &back))
    }

    fn way(&mut self, from: IpAddr, to: IpAddr) -> Arc<Way> {
        self.ways.retain(|way| way.strong_count() > 0);
        self.connections += 1;
        // Mixed, so that neighbouring seeds and connections draw different numbers.
        let [seed, number] = [self.seed, self.connections].map(|it| SeededRandom::new(it).number());
        let random = SeededRandom::new(seed ^ number.rotate_left(1));
        let way = Arc::new(Way {
            from,
            to,
            state: Mutex::new(WayState {
                random,
                faults: self.faults,
                pieces: VecDeque::new(),
                bytes: 0,
                is_parted: false,
                is_ended: false,
                is_abandoned: false,
                is_reset: false,
                reader: None,
                writer: None,
            }),
        });
        self.ways.push(Arc::downgrade(&way));
        way
    }
}

/// The network for one host.
#[derive(Debug)]
struct MemoryHost {
    network: MemoryNetwork,
    address: IpAddr,
}

impl Network for MemoryHost {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> {
        let (network, from) = (self.network.clone(), self.address);
        Box::pin(async move {
            let to = address.parse::<SocketAddr>().map_err(io::Error::other)?;
            let mut healed = network.shared.healed.subscribe();
            loop {
                match network.attempt(from, to) {
                    Attempt::Connected(end) => return Ok(Box::new(end) as Box<dyn Duplex>),
                    Attempt::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
                    Attempt::Parted => {}
                }
                healed.changed().await.map_err(io::Error::other)?;
            }
        })
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let bound = if address.ip() == self.address {
            self.network.bind(address)
        } else {
            Err(io::ErrorKind::AddrNotAvailable.into())
        };
        let listener = bound.map(|listener| Box::new(listener) as Box<dyn Listener>);
        Box::pin(std::future::ready(listener))
    }

    fn datagrams(&self) -> Datagrams {
        Datagrams::None
    }
}

/// The connections to an address that are not accepted yet.
struct MemoryListener {
    connections: mpsc::Receiver<(End, IpAddr)>,
}

impl Listener for MemoryListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Duplex>, IpAddr)>> {
        Box::pin(async move {
            let accepted = self.connections.recv().await;
            let (end, from) = accepted.ok_or(io::ErrorKind::NotConnected)?;
            Ok((Box::new(end) as Box<dyn Duplex>, from))
        })
    }
}

/// One direction of a connection.
#[derive(Debug)]
struct Way {
    from: IpAddr,
    to: IpAddr,
    state: Mutex<WayState>,
}

#[derive(Debug)]
struct WayState {
    random: SeededRandom,
    faults: LinkFaults,
    /// The pieces in flight, with the times of their arrival.
    pieces: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    is_parted: bool,
    /// The writer has ended.
    is_ended: bool,
    /// The reader has ended.
    is_abandoned: bool,
    is_reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Way {
    fn lock(&self) -> MutexGuard<'_, WayState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let mut state = self.lock();
        state.is_ended = true;
        state.wake_reader();
    }

    fn abandon(&self) {
        let mut state = self.lock();
        state.is_abandoned = true;
        state.wake_writer();
    }
}

impl WayState {
    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    fn reset(&mut self) {
        self.is_reset = true;
        self.pieces.clear();
        self.wake_reader();
        self.wake_writer();
    }

    /// Whether the next write resets its connection.
    fn draws_reset(&self) -> bool {
        let one_in = self.faults.reset_one_in;
        one_in > 0 && !self.is_parted && self.random.within(0..one_in) == 0
    }

    fn send(&mut self, now: Instant, piece: &[u8]) {
        let longest = self.faults.delay_us_max.saturating_add(1);
        let arrives = now + Duration::from_micros(self.random.within(0..longest));
        let before = self.pieces.back().map(|(at, _)| *at);
        let arrives = before.map_or(arrives, |before| before.max(arrives));
        self.bytes += piece.len();
        self.pieces
            .push_back((arrives, Bytes::copy_from_slice(piece)));
        self.wake_reader();
    }

    /// Delivers the arrived bytes, as far as they fit.
    fn deliver(&mut self, now: Instant, buf: &mut ReadBuf<'_>) {
        while let Some((at, piece)) = self.pieces.front_mut() {
            if *at > now || buf.remaining() == 0 {
                break;
            }
            let taken = piece.split_to(piece.len().min(buf.remaining()));
            let is_whole = piece.is_empty();
            buf.put_slice(&taken);
            self.bytes -= taken.len();
            if is_whole {
                self.pieces.pop_front();
            }
        }
        self.wake_writer();
    }
}

/// One end of a connection.
#[derive(Debug)]
struct End {
    reads: Arc<Way>,
    writes: Arc<Way>,
    clock: Arc<dyn Clock>,
    /// Wakes the reader when the next piece arrives. The first read creates it: its runtime drives
    /// it.
    timer: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let end = self.get_mut();
        loop {
            let now = end.clock.instant();
            let arrives = {
                let mut way = end.reads.lock();
                if way.is_reset {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                way.reader = Some(cx.waker().clone());
                let arrives = way.pieces.front().map(|(at, _)| *at);
                match arrives {
                    _ if way.is_parted => return Poll::Pending,
                    None if way.is_ended => return Poll::Ready(Ok(())),
                    None => return Poll::Pending,
                    Some(at) if at > now => at,
                    Some(_) => {
                        way.deliver(now, buf);
                        return Poll::Ready(Ok(()));
                    }
                }
            };
            let arrives = tokio::time::Instant::from_std(arrives);
            let timer = end
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(arrives)));
            if timer.deadline() != arrives {
                timer.as_mut().reset(arrives);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let now = self.clock.instant();
        let mut way = self.writes.lock();
        if way.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if way.is_ended || way.is_abandoned {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WAY_BYTES_MAX.saturating_sub(way.bytes);
        if room == 0 {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if way.draws_reset() {
            way.reset();
            drop(way);
            self.reads.lock().reset();
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let piece = buf.get(..room).unwrap_or(buf);
        way.send(now, piece);
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writes.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.writes.end();
        self.reads.abandon();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use henge_runtime::SystemClock;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn network() -> MemoryNetwork {
        let network = MemoryNetwork::new(1, SystemClock::shared());
        network.set_faults(LinkFaults {
            delay_us_max: 2_000,
            reset_one_in: 0,
        });
        network
    }

    /// A connection from `ONE` to `OTHER`.
    async fn connected(network: &MemoryNetwork) -> (Box<dyn Duplex>, Box<dyn Duplex>) {
        let address = SocketAddr::new(OTHER, 7441);
        let listening = network.host(OTHER).listen(address).await;
        let mut listener = listening.expect("the address is free");
        let near = network.host(ONE).connect(address.to_string()).await;
        let (far, from) = listener.accept().await.expect("accepts");
        assert_eq!(from, ONE);
        (near.expect("connects"), far)
    }

    #[tokio::test]
    async fn bytes_arrive_in_order_and_then_the_end() {
        let (mut near, mut far) = connected(&network()).await;
        let sent: Vec<u8> = (0..=255).cycle().take(3 * WAY_BYTES_MAX).collect();
        let writing = async {
            for piece in sent.chunks(1000) {
                near.write_all(piece).await.expect("is written");
            }
            near.shutdown().await.expect("ends");
        };
        let mut received = Vec::new();
        let (read, ()) = tokio::join!(far.read_to_end(&mut received), writing);
        read.expect("reads to the end");
        assert!(received == sent, "the same bytes");
        far.write_all(b"back").await.expect("the other way is open");
        assert_eq!(near.read_u32().await.expect("reads"), 0x6261_636b);
    }

    #[tokio::test]
    async fn a_partition_holds_back_one_direction() {
        let network = network();
        let (mut near, mut far) = connected(&network).await;
        network.part(ONE, OTHER);
        near.write_all(&[1]).await.expect("is taken");
        far.write_all(&[2]).await.expect("is taken");
        assert_eq!(near.read_u8().await.expect("the other direction"), 2);
        let mut reading = Box::pin(far.read_u8());
        assert!((&mut reading).now_or_never().is_none(), "held back");
        let address = SocketAddr::new(OTHER, 7441).to_string();
        let mut connecting = network.host(ONE).connect(address);
        assert!((&mut connecting).now_or_never().is_none(), "waits");
        network.heal();
        assert_eq!(reading.await.expect("arrives"), 1);
        // The listener is gone.
        let refused = connecting.await.map(drop).expect_err("is refused");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_reset_ends_both_sides() {
        let network = network();
        let (mut near, mut far) = connected(&network).await;
        near.write_all(&[1]).await.expect("is taken");
        network.reset(ONE, OTHER);
        let written = near.write_all(&[1]).await.expect_err("is reset");
        let read = far.read_u8().await.expect_err("is reset");
        for error in [written, read] {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }
}

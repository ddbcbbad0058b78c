//! A TCP proxy that stalls in the middle of a response.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

struct Shared {
    /// Bytes that may still come back from the server, over all connections.
    left: AtomicU64,
    stopped: AtomicBool,
    is_full: Mutex<bool>,
    changed: Condvar,
    streams: Mutex<Vec<TcpStream>>,
}

/// Passes everything to the server and this many bytes back; then it stalls until it is dropped.
pub(super) struct Narrow {
    address: String,
    shared: Arc<Shared>,
}

impl Narrow {
    pub(super) fn to(server: &str, bytes: u64) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            left: AtomicU64::new(bytes),
            stopped: AtomicBool::new(false),
            is_full: Mutex::new(false),
            changed: Condvar::new(),
            streams: Mutex::default(),
        });
        let (server, accepting) = (server.to_owned(), Arc::clone(&shared));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(upstream) = TcpStream::connect(&server) {
                    drop(accepting.join(&client, &upstream));
                }
            }
        });
        Ok(Self { address, shared })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Waits until the client stalls in the middle of a response; `false` after the deadline.
    pub(super) fn wait_until_full(&self) -> bool {
        let is_full = self.shared.is_full.lock().expect("nobody panics");
        let waited =
            self.shared
                .changed
                .wait_timeout_while(is_full, crate::process::DEADLINE, |full| !*full);
        *waited.expect("nobody panics").0
    }
}

impl Shared {
    fn join(self: &Arc<Self>, client: &TcpStream, server: &TcpStream) -> io::Result<()> {
        let mut streams = self.streams.lock().expect("nobody panics");
        streams.extend([client.try_clone()?, server.try_clone()?]);
        drop(streams);
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        std::thread::spawn(move || {
            drop(io::copy(&mut from, &mut to));
            drop(to.shutdown(Shutdown::Write));
        });
        let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                let taken = u64::try_from(read).expect("small");
                let left = shared
                    .left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                        left.checked_sub(taken)
                    });
                if left.is_err() {
                    *shared.is_full.lock().expect("nobody panics") = true;
                    shared.changed.notify_all();
                    return;
                }
                if to.write_all(&buffer[..read]).is_err() {
                    return;
                }
            }
            drop(to.shutdown(Shutdown::Write));
        });
        Ok(())
    }
}

impl Drop for Narrow {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for stream in self.shared.streams.lock().expect("nobody panics").iter() {
            drop(stream.shutdown(Shutdown::Both));
        }
        // Wakes the accepting thread.
        drop(TcpStream::connect(&self.address));
    }
}

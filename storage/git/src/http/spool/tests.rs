use super::*;
use futures::{StreamExt, stream};
use rustix::fs::{MemfdFlags, SealFlags};
use std::io::Read;
use std::os::fd::AsRawFd;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn content(spool: &Spool) -> Vec<u8> {
    let mut data = Vec::new();
    spool.reader().unwrap().read_to_end(&mut data).unwrap();
    data
}

const LONG: Duration = Duration::from_millis(limits::FETCH_REQUEST_MS_MAX);

/// Receives a body in memory, or in a directory with space for everything.
async fn receive(
    body: Body,
    encoding: Encoding,
    bytes_max: u64,
    directory: Option<&Path>,
) -> Result<Spool, SpoolError> {
    let Some(path) = directory else {
        let held = crate::http::ClientMemory::default().share(true);
        let received = Spool::receive(body, encoding, bytes_max, LONG, held);
        return received.await.map(Spool::from_bytes);
    };
    let room = || Ok(u64::MAX);
    let directory = SpoolDir { path, room: &room };
    let received = Spool::receive_push(body, encoding, bytes_max, directory).await;
    received.map_err(|refused| refused.error)
}

/// The disk once became full in the middle of a push, and the connection was closed: git printed
/// "Broken pipe" and "Everything up-to-date".
#[tokio::test]
async fn a_push_without_room_is_read_to_its_end_and_refused() {
    let directory = tempfile::tempdir().unwrap();
    let chunk = Bytes::from(vec![b'x'; 1 << 20]);
    for (bytes_max, chunks, room) in [
        // No space from the start, space that vanishes meanwhile, and a push over the limit.
        (1_u64 << 30, 4_u64, vec![0_u64]),
        (1 << 30, 40, vec![1 << 30, 1 << 30, 1 << 20]),
        (2 << 20, 8, vec![1 << 30]),
    ] {
        let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = std::sync::Arc::clone(&sent);
        let one = chunk.clone();
        let body = stream::iter(0..chunks).map(move |_| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            io::Result::Ok(one.clone())
        });
        let asked = std::sync::Mutex::new(room.into_iter());
        let last = std::sync::Mutex::new(0);
        let room = || {
            let mut last = last.lock().unwrap();
            *last = asked.lock().unwrap().next().unwrap_or(*last);
            Ok(*last)
        };
        let place = SpoolDir {
            path: directory.path(),
            room: &room,
        };
        let body = Body::from_stream(body);
        let taken = Spool::receive_push(body, Encoding::Plain, bytes_max, place).await;
        let refused = taken.expect_err("refused");
        assert!(
            matches!(
                refused.error,
                SpoolError::NoRoom { .. } | SpoolError::TooLarge { .. }
            ),
            "{}",
            refused.error
        );
        let begun = content(&refused.begun.expect("its beginning"));
        assert!(begun.starts_with(b"xxxx"));
        assert_eq!(sent.load(std::sync::atomic::Ordering::Relaxed), chunks);
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// The error of a write to a file is returned by the next one. The commands of a push whose first
/// write failed were once dropped by then. Those of a push whose last write failed were ignored. In
/// both cases git printed "Everything up-to-date".
#[tokio::test]
async fn a_push_that_cannot_be_written_keeps_its_commands() {
    let directory = tempfile::tempdir().unwrap();
    let room = || Ok(u64::MAX);
    // No write succeeds; the first 512 KiB succeed.
    let full = |at: &Path| {
        let file = std::fs::File::options().write(true).open("/dev/full")?;
        let path = at.join("push-none");
        Ok((file, tempfile::TempPath::try_from_path(path)?))
    };
    let kept = std::sync::Mutex::new(None);
    let short = |_: &Path| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = std::fs::File::from(rustix::fs::memfd_create("push", flags)?);
        file.set_len(512 * 1024)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::GROW)?;
        let held = file.try_clone()?;
        let path = format!("/proc/self/fd/{}", held.as_raw_fd());
        // Open for as long as it is read.
        *kept.lock().unwrap() = Some(held);
        Ok((file, tempfile::TempPath::try_from_path(path)?))
    };
    for (create, chunks) in [
        (&full as &Create<'_>, 1_usize),
        (&full, 9),
        (&short, 2),
        (&short, 9),
    ] {
        let mut data = vec![b'x'; 300 * 1024];
        data[..8].copy_from_slice(b"commands");
        let chunk = Bytes::from(data);
        let body = stream::iter(vec![chunk; chunks]).map(io::Result::Ok);
        let place = SpoolDir {
            path: directory.path(),
            room: &room,
        };
        let mut sink = Sink::new(Some(place), 1 << 30);
        sink.create = create;
        let taken = Spool::receive_into(sink, Body::from_stream(body), Encoding::Plain).await;
        let refused = taken.expect_err("refused");
        assert!(
            matches!(refused.error, SpoolError::NoRoom { .. } | SpoolError::Io(_)),
            "{}",
            refused.error
        );
        let begun = content(&refused.begun.expect("its beginning"));
        assert!(begun.starts_with(b"commandsxx"), "{chunks} chunks");
    }
}

#[tokio::test]
async fn small_bodies_stay_in_memory_and_large_ones_go_to_a_file() {
    let directory = tempfile::tempdir().unwrap();
    for (size, files) in [(10, 0), (MEMORY_BYTES_MAX + 1, 1)] {
        let data: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for encoding in [Encoding::Plain, Encoding::Gzip] {
            let body = if encoding == Encoding::Gzip {
                gzip(&data)
            } else {
                data.clone()
            };
            let spool = receive(Body::from(body), encoding, 1 << 30, Some(directory.path()))
                .await
                .unwrap();
            assert_eq!(content(&spool), data);
            assert_eq!(spool.bytes(), size as u64);
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), files);
        }
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_bomb_is_refused_before_it_is_inflated() {
    let body = gzip(&vec![0; 64 * 1024 * 1024]);
    assert!(body.len() < 1024 * 1024);
    let outcome = receive(Body::from(body), Encoding::Gzip, 1024 * 1024, None).await;
    assert!(matches!(
        outcome,
        Err(SpoolError::TooLarge { max: 1_048_576 })
    ));
}

#[tokio::test]
async fn a_body_that_inflates_to_nothing_ends() {
    let body = gzip(b"").repeat(10_000);
    assert!(body.len() > 100_000);
    let outcome = receive(Body::from(body), Encoding::Gzip, 100_000, None).await;
    assert!(matches!(outcome, Err(SpoolError::TooLarge { .. })));
    let several = [gzip(b"one "), gzip(b""), gzip(b"two")].concat();
    let spool = receive(Body::from(several), Encoding::Gzip, 100, None)
        .await
        .unwrap();
    assert_eq!(content(&spool), b"one two");
    // The name of a file in the header, without an end.
    let mut head = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff".to_vec();
    head.resize(10_000_000, b'n');
    let outcome = receive(Body::from(head), Encoding::Gzip, 1 << 30, None).await;
    assert!(matches!(outcome, Err(SpoolError::Gzip(_))));
}

#[tokio::test]
async fn incompressible_bodies_of_the_largest_size_are_taken() {
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(100_000)
    .collect();
    let body = gzip(&noise);
    assert!(body.len() > noise.len());
    let spool = receive(Body::from(body), Encoding::Gzip, 100_000, None).await;
    assert_eq!(content(&spool.unwrap()), noise);
}

/// Such bodies once held their connections, and the permits of clients without a token, without a
/// time limit.
#[tokio::test(start_paused = true)]
async fn a_body_that_stands_still_or_drips_is_given_up() {
    let day = Duration::from_secs(24 * 60 * 60);
    let directory = tempfile::tempdir().unwrap();
    let pause = Duration::from_millis(limits::CLIENT_REST_MS_MAX / 2);
    for directory in [None, Some(directory.path())] {
        let still = Body::from_stream(stream::pending::<io::Result<Bytes>>());
        let taken = receive(still, Encoding::Plain, 1000, directory);
        let taken = tokio::time::timeout(day, taken).await.expect("given up");
        assert!(matches!(taken, Err(SpoolError::Late)), "{taken:?}");

        let drips = stream::unfold((), move |()| async move {
            tokio::time::sleep(pause).await;
            Some((io::Result::Ok(Bytes::from_static(b"x")), ()))
        });
        let taken = receive(Body::from_stream(drips), Encoding::Plain, 1000, directory);
        let taken = tokio::time::timeout(day, taken).await.expect("given up");
        assert!(matches!(taken, Err(SpoolError::Late)), "{taken:?}");

        let slow = stream::unfold(0, move |sent| async move {
            tokio::time::sleep(pause / 4).await;
            (sent < 3).then(|| (io::Result::Ok(Bytes::from_static(b"x")), sent + 1))
        });
        let taken = receive(Body::from_stream(slow), Encoding::Plain, 1000, directory);
        assert_eq!(content(&taken.await.unwrap()), b"xxx");
    }
}

#[tokio::test]
async fn what_is_not_gzip_is_refused() {
    let outcome = receive(Body::from("hello"), Encoding::Gzip, 1000, None).await;
    assert!(matches!(outcome, Err(SpoolError::Gzip(_))));
    let mut cut = gzip(b"hello");
    cut.truncate(cut.len() - 3);
    let outcome = receive(Body::from(cut), Encoding::Gzip, 1000, None).await;
    assert!(matches!(outcome, Err(SpoolError::Gzip(_))));
}

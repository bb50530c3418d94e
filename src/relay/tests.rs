use std::collections::HashMap;
use std::io::ErrorKind;
use std::thread;

use super::*;
use crate::metrics::Counters;

const GUEST: ([u8; 4], u16) = ([100, 96, 0, 2], 40_000);
const SERVICE: ([u8; 4], u16) = ([169, 254, 169, 254], 80);

/// The poll loop's end, its bell, and the stream that a service would have.
fn relay() -> (RelayEnd, WakePipe, RelayStream) {
    let poll_loop = WakePipe::try_new().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let service = Service::new(move |stream| tell.send(stream).unwrap());
    let mut threads = threads(1, &poll_loop);
    let permit = threads.permit().unwrap();
    assert!(threads.permit().is_none(), "the limit holds");
    let mut end =
        RelayEnd::new(service, (GUEST.into(), SERVICE.into()), permit, &poll_loop).unwrap();
    end.start(&mut threads).unwrap();
    (end, poll_loop, told.recv().unwrap())
}

fn threads(limit: usize, poll_loop: &WakePipe) -> RelayThreads {
    let stragglers = Stragglers::new();
    RelayThreads::new(
        HashMap::new(),
        limit,
        stragglers,
        Arc::<Counters>::default(),
        poll_loop.clone(),
    )
}

fn would_block(result: io::Result<usize>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn is_reset<T: fmt::Debug>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn bytes_and_ends_pass_both_ways() {
    let (mut end, poll_loop, mut stream) = relay();
    assert_eq!((stream.peer_addr(), stream.local_addr()), (GUEST.into(), SERVICE.into()));
    let mut buffer = [0; 16];
    assert!(would_block(end.receive(&mut buffer)) && !end.is_readable());
    assert_eq!(end.send(b"to the service").unwrap(), 14);
    end.finish();
    assert_eq!(stream.read(&mut buffer[..6]).unwrap(), 6);
    assert_eq!(stream.read(&mut buffer[6..]).unwrap(), 8);
    assert_eq!(&buffer[..14], b"to the service");
    assert_eq!(stream.read(&mut buffer).unwrap(), 0);

    stream.write_all(b"one").unwrap();
    stream.write_all(b"two").unwrap();
    assert!(poll_loop.take().relay() && end.is_readable());
    assert_eq!(end.receive(&mut buffer[..4]).unwrap(), 4);
    assert_eq!(end.receive(&mut buffer[4..]).unwrap(), 2);
    assert_eq!(&buffer[..6], b"onetwo");
    stream.shutdown_write();
    assert!(poll_loop.take().relay() && end.is_readable());
    assert_eq!(end.receive(&mut buffer).unwrap(), 0);
    assert!(!end.is_readable() && !end.is_abandoned());
    assert_eq!(stream.write(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    drop(stream);
    assert!(end.is_abandoned());
}

#[test]
fn each_direction_is_bounded() {
    let (mut end, poll_loop, mut stream) = relay();
    let block = vec![7; 1 << 20];
    let mut sent = 0;
    while let Ok(n) = end.send(&block) {
        sent += n;
    }
    assert!((PIPE - CHUNK..=PIPE).contains(&sent), "{sent}");
    assert!(!end.is_writable());
    poll_loop.take();
    let mut got = vec![0; sent];
    stream.read_exact(&mut got).unwrap();
    assert!(poll_loop.take().relay() && end.is_writable(), "room rings");

    // Of writes of one byte no more than the chunks.
    let reader = thread::spawn(move || {
        for _ in 0..1000 {
            stream.write_all(b"x").unwrap();
        }
        stream
    });
    let mut got = 0;
    while got < 1000 {
        poll_loop.take();
        let mut buffer = [0; 100];
        match end.receive(&mut buffer) {
            Ok(n) => got += n,
            Err(_) => {
                if poll_loop.arm() {
                    poll_loop.wait();
                }
            }
        }
    }
    reader.join().unwrap();
}

#[test]
fn the_smallest_room_is_tried_so_that_the_next_rings() {
    let (mut end, poll_loop, mut stream) = relay();
    end.send(b"x").unwrap();
    let block = vec![7; 1 << 20];
    while end.send(&block).is_ok() {}
    poll_loop.take();
    stream.read_exact(&mut [0; 1]).unwrap();
    assert!(poll_loop.take().relay() && end.is_writable());
    // One byte has room and nothing of use: whoever tries is told of the next.
    let before = end.send(&block);
    if would_block(before) {
        stream.read_exact(&mut [0; 1]).unwrap();
        assert!(poll_loop.take().relay() && end.is_writable());
    }
}

#[test]
fn a_reset_frees_a_reader_and_a_writer_that_wait() {
    let (end, _poll_loop, stream) = relay();
    thread::scope(|scope| {
        let reader = scope.spawn(|| (&stream).read(&mut [0; 10]));
        let writer = scope.spawn(|| {
            loop {
                if let Err(error) = (&stream).write(&[0; CHUNK]) {
                    return io::Result::<usize>::Err(error);
                }
            }
        });
        end.reset();
        assert!(is_reset(reader.join().unwrap()));
        assert!(is_reset(writer.join().unwrap()));
    });
    assert!(is_reset((&stream).write(b"")));
}

#[test]
fn a_flow_that_is_gone_lets_the_service_read_what_had_ended() {
    let (mut end, _, mut stream) = relay();
    end.send(b"all").unwrap();
    end.finish();
    drop(end);
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"all");
    assert!(is_reset(stream.write(b"nobody")));

    let (mut end, _, mut stream) = relay();
    end.send(b"cut").unwrap();
    drop(end);
    assert!(is_reset(stream.read_to_end(&mut all)));
}

#[test]
fn a_stream_that_is_dropped_ends_or_resets() {
    let (mut end, _, mut stream) = relay();
    stream.write_all(b"last").unwrap();
    drop(stream);
    let mut buffer = [0; 16];
    assert_eq!(end.receive(&mut buffer).unwrap(), 4);
    assert_eq!(end.receive(&mut buffer).unwrap(), 0);
    assert!(is_reset(end.send(b"nobody reads")));

    let (mut end, _, mut stream) = relay();
    stream.write_all(b"half").unwrap();
    let _ = thread::spawn(move || {
        let _stream = stream;
        std::panic::resume_unwind(Box::new("no message"));
    })
    .join();
    assert!(is_reset(end.receive(&mut buffer)));

    let (mut end, _, stream) = relay();
    stream.reset();
    assert!(is_reset(end.receive(&mut buffer)));
}

#[test]
fn a_permit_is_held_by_the_thread_and_by_the_stream() {
    let poll_loop = WakePipe::try_new().unwrap();
    let mut threads = threads(1, &poll_loop);
    let (tell, told) = std::sync::mpsc::channel();
    let permit = threads.permit().unwrap();
    let service = Service::new(move |stream| tell.send(stream).unwrap());
    let mut end =
        RelayEnd::new(service, (GUEST.into(), SERVICE.into()), permit, &poll_loop).unwrap();
    end.start(&mut threads).unwrap();
    let stream = told.recv().unwrap();
    let stragglers = threads.stragglers.clone();
    assert!(threads.permit().is_none());
    for thread in threads.threads.drain(..) {
        thread.join().unwrap();
    }
    assert!(threads.permit().is_none(), "the stream lives on");
    drop(stream);
    drop(threads.permit().unwrap());
    drop(threads);
    stragglers.join();
}

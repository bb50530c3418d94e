use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use super::super::testing::{Running, Tcp, eventually, lend_again, link, opaque, stream};
use super::*;
use crate::config::Offload;
use crate::error::FramingViolation;

struct Setup {
    ours: Arc<UnixStream>,
    theirs: UnixStream,
    queues: Arc<NetworkFrameQueues>,
    counters: Arc<Counters>,
    thread: Running,
}

fn reader(overflow: Overflow, capacity: usize) -> (Reader, Receiver, Arc<UnixStream>, UnixStream) {
    let (ours, theirs) = link();
    let queues = NetworkFrameQueues::shared(capacity);
    let counters: Arc<Counters> = Arc::default();
    let half = Receiver::new(Arc::clone(&ours), Offload::None, Arc::clone(&counters));
    let hand_over = HandOver::new(Arc::clone(&queues));
    (Reader { queues, counters, hand_over, overflow }, half, ours, theirs)
}

fn start(overflow: Overflow, capacity: usize) -> Setup {
    let (reader, half, ours, theirs) = reader(overflow, capacity);
    let (queues, counters) = (Arc::clone(&reader.queues), Arc::clone(&reader.counters));
    reader.hand_over.lend_receiver(half);
    lend_again(&reader.hand_over);
    Setup { ours, theirs, queues, counters, thread: Running::spawn(|| reader.run()) }
}

impl Setup {
    fn drain(&self) -> Vec<Vec<u8>> {
        let mut drain = self.queues.drain_from_guest();
        std::iter::from_fn(|| drain.pop()).collect()
    }

    /// Takes frames until there are `n`, as the poll loop does: drain, arm, sleep.
    fn take(&self, n: usize) -> Vec<Vec<u8>> {
        let bell = &self.queues.guest_wake;
        let mut frames = Vec::new();
        loop {
            bell.take();
            frames.extend(self.drain());
            if frames.len() >= n {
                return frames;
            }
            if bell.arm() {
                bell.wait();
            }
        }
    }
}

fn opaques(n: usize) -> Vec<Vec<u8>> {
    (0..n).map(|i| opaque(14 + i % 1500, i as u8)).collect()
}

#[test]
fn frames_arrive_in_order_through_a_small_queue() {
    for capacity in [1, 5, 1024] {
        let setup = start(Overflow::Backpressure, capacity);
        let frames = opaques(3000);
        let bytes = stream(&frames);
        let mut theirs = setup.theirs.try_clone().unwrap();
        let vmm = thread::spawn(move || {
            for chunk in bytes.chunks(7001) {
                theirs.write_all(chunk).unwrap();
            }
        });
        assert_eq!(setup.take(frames.len()), frames);
        vmm.join().unwrap();
        assert_eq!(setup.counters.frames_from_guest.get(), frames.len() as u64);
        let bytes: usize = frames.iter().map(Vec::len).sum();
        assert_eq!(setup.counters.bytes_from_guest.get(), bytes as u64);
        setup.queues.begin_shutdown();
        assert!(matches!(setup.thread.join(), StopReason::Requested));
    }
}

#[test]
fn frames_that_come_one_by_one_arrive_at_once() {
    let mut setup = start(Overflow::Backpressure, 16);
    for frame in opaques(200) {
        setup.theirs.write_all(&stream(std::slice::from_ref(&frame))).unwrap();
        assert_eq!(setup.take(1), [frame]);
    }
}

#[test]
fn a_burst_of_one_flow_arrives_merged() {
    let mut setup = start(Overflow::Backpressure, 64);
    let segments: Vec<_> = (0..40).map(|i| Tcp::data(i * 1000, 1000).frame()).collect();
    setup.theirs.write_all(&stream(&segments)).unwrap();
    setup.theirs.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(setup.thread.join(), StopReason::PeerClosed));
    let n = setup.queues.guest_to_host.len() as u64;
    assert_eq!(setup.counters.frames_merged.get(), 40 - n);
    assert!(n < 40);
}

#[test]
fn a_hang_up_at_any_byte_gives_the_whole_frames_before_it() {
    let frames = [opaque(20, 1), opaque(20, 2)];
    let bytes = stream(&frames);
    for end in 0..=bytes.len() {
        for close in [true, false] {
            let Setup { ours, mut theirs, queues, thread, .. } = start(Overflow::Backpressure, 4);
            theirs.write_all(&bytes[..end]).unwrap();
            if close {
                drop(theirs);
            } else {
                theirs.shutdown(Shutdown::Write).unwrap();
            }
            assert!(matches!(thread.join(), StopReason::PeerClosed));
            let mut drain = queues.drain_from_guest();
            let got: Vec<_> = std::iter::from_fn(|| drain.pop()).collect();
            assert_eq!(got, frames[..end / 24]);
            drop(ours);
        }
    }
}

#[test]
fn a_peer_that_leaves_our_frames_unread_has_closed_too() {
    let setup = start(Overflow::Backpressure, 4);
    (&*setup.ours).write_all(b"unread").unwrap();
    setup.thread.assert_alive();
    drop(setup.theirs);
    assert!(matches!(setup.thread.join(), StopReason::PeerClosed));
}

#[test]
fn a_hang_up_behind_a_full_queue_loses_nothing() {
    let mut setup = start(Overflow::Backpressure, 2);
    let frames = opaques(50);
    setup.theirs.write_all(&stream(&frames)).unwrap();
    eventually(|| setup.queues.guest_to_host.is_full());
    // Their end is gone when another takes its place.
    setup.theirs = link().1;
    setup.thread.assert_alive();
    assert_eq!(setup.take(50), frames);
    assert!(matches!(setup.thread.join(), StopReason::PeerClosed));
}

#[test]
fn shutdown_ends_a_reader_that_waits_for_bytes() {
    let setup = start(Overflow::Backpressure, 2);
    setup.thread.assert_alive();
    setup.queues.begin_shutdown();
    assert!(matches!(setup.thread.join(), StopReason::Requested));
}

#[test]
fn shutdown_ends_a_reader_that_waits_for_the_rest_of_a_frame() {
    let mut setup = start(Overflow::Backpressure, 2);
    setup.theirs.write_all(&stream(&[opaque(60, 1)])[..30]).unwrap();
    setup.thread.assert_alive();
    setup.queues.begin_shutdown();
    assert!(matches!(setup.thread.join(), StopReason::Requested));
}

#[test]
fn shutdown_ends_a_reader_that_waits_for_room() {
    let mut setup = start(Overflow::Backpressure, 2);
    setup.theirs.write_all(&stream(&opaques(50))).unwrap();
    eventually(|| setup.queues.guest_to_host.is_full());
    setup.thread.assert_alive();
    setup.queues.begin_shutdown();
    assert!(matches!(setup.thread.join(), StopReason::Requested));
}

#[test]
fn shutdown_ends_a_reader_under_a_flood() {
    for overflow in [Overflow::Drop, Overflow::Backpressure] {
        let setup = start(overflow, 2);
        let mut theirs = setup.theirs.try_clone().unwrap();
        let bytes = stream(&opaques(500));
        let flood = thread::spawn(move || while theirs.write_all(&bytes).is_ok() {});
        setup.thread.assert_alive();
        setup.queues.begin_shutdown();
        assert!(matches!(setup.thread.join(), StopReason::Requested));
        drop((setup.ours, setup.theirs));
        flood.join().unwrap();
    }
}

#[test]
fn a_turn_ends_with_the_shutdown_and_not_with_the_flood() {
    let (reader, mut half, _ours, mut theirs) = reader(Overflow::Drop, 2);
    theirs.write_all(&stream(&opaques(500))).unwrap();
    reader.queues.begin_shutdown();
    assert!(matches!(reader.turn(&mut half, &mut None), Err(StopReason::Requested)));
}

#[test]
fn drops_are_counted_and_the_link_goes_on() {
    let setup = start(Overflow::Drop, 2);
    let frames = opaques(500);
    let mut theirs = setup.theirs.try_clone().unwrap();
    // Nobody drains, and yet all of it is taken off the stream.
    theirs.write_all(&stream(&frames)).unwrap();
    let dropped = || setup.counters.snapshot().dropped(DropReason::QueueFull);
    eventually(|| dropped() == 498);
    assert_eq!(setup.drain(), frames[..2]);
    theirs.write_all(&stream(&frames[7..8])).unwrap();
    assert_eq!(setup.take(1), frames[7..8]);
    assert_eq!(setup.counters.frames_from_guest.get(), 501);
}

#[test]
fn a_violation_ends_the_link_after_the_frames_before_it() {
    let frames = opaques(9);
    for overflow in [Overflow::Backpressure, Overflow::Drop] {
        let mut setup = start(overflow, 64);
        let mut bytes = stream(&frames);
        bytes.extend_from_slice(&[0, 0, 0, 13, 1, 2, 3]);
        setup.theirs.write_all(&bytes).unwrap();
        let too_short = FramingViolation::TooShort { len: 13 };
        assert_eq!(setup.take(9), frames);
        let reason = setup.thread.join();
        assert!(matches!(reason, StopReason::FramingViolation(v) if v == too_short));
    }
}

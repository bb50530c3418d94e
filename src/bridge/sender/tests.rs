use std::io::Read;

use proptest::prelude::*;

use super::super::check::{cut_checked, decode};
use super::super::testing::{Tcp, link, opaque, stream};
use super::*;

const MTU_FRAME: usize = 1514;

fn sender(stream: &Arc<UnixStream>, queues: &Arc<NetworkFrameQueues>) -> (Sender, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    let sender =
        Sender::new(Arc::clone(stream), Arc::clone(queues), MTU_FRAME, Arc::clone(&counters));
    (sender, counters)
}

/// What the wire should show of these frames.
fn on_the_wire(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let pieces = |frame: &Vec<u8>| {
        if frame.len() <= MTU_FRAME {
            vec![frame.clone()]
        } else {
            cut_checked(frame, MTU_FRAME).unwrap()
        }
    };
    frames.iter().flat_map(pieces).collect()
}

fn receive(theirs: &mut UnixStream, most: usize, into: &mut Vec<u8>) -> usize {
    let mut buffer = vec![0; most];
    match theirs.read(&mut buffer) {
        Ok(n) => {
            into.extend_from_slice(&buffer[..n]);
            n
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
        Err(error) => panic!("{error}"),
    }
}

/// Sends the frames through a stream that holds `send_buffer` bytes, read `read` bytes at a time.
fn assert_sent(frames: &[Vec<u8>], send_buffer: usize, read: usize, capacity: usize) {
    let (ours, mut theirs) = link();
    theirs.set_nonblocking(true).unwrap();
    SockRef::from(&*ours).set_send_buffer_size(send_buffer).unwrap();
    let queues = NetworkFrameQueues::shared(capacity);
    let (mut sender, counters) = sender(&ours, &queues);
    let expected = on_the_wire(frames);
    let bytes = stream(&expected);

    let mut waiting = frames.iter();
    let mut refused = None;
    let mut received = Vec::new();
    while received.len() < bytes.len() {
        let mut batch = queues.push_to_guest();
        while let Some(frame) = refused.take().or_else(|| waiting.next().cloned()) {
            if let Err(frame) = batch.push(frame) {
                refused = Some(frame);
                break;
            }
        }
        drop(batch);
        let progress = sender.send().unwrap();
        if progress == Progress::Idle {
            assert!(queues.host_to_guest.is_empty());
        }
        let n = receive(&mut theirs, read, &mut received);
        assert!(n > 0 || progress == Progress::Idle, "blocked on an empty stream");
    }
    assert!(received == bytes);
    assert_eq!(decode(&received, &[]), (expected.clone(), None));
    assert_eq!(sender.send().unwrap(), Progress::Idle);
    assert_eq!(counters.frames_to_guest.get(), expected.len() as u64);
    let sum: usize = expected.iter().map(Vec::len).sum();
    assert_eq!(counters.bytes_to_guest.get(), sum as u64);
}

#[test]
fn a_slow_reader_gets_every_byte_in_order() {
    let frames: Vec<_> = (0..60)
        .map(|i| match i % 3 {
            0 => opaque(14 + i, i as u8),
            1 => Tcp::data(i * 1000, 60_000).frame(),
            _ => Tcp::data(i, 1460).frame(),
        })
        .collect();
    assert_sent(&frames, 1, 777, 16);
    assert_sent(&frames, 100_000, 50_000, 1024);
    assert_sent(&frames, 4 << 20, 1 << 20, 1024);
}

#[test]
fn more_frames_than_one_call_takes() {
    let frames: Vec<_> = (0..20).map(|i| Tcp::data(i, 64_000).frame()).collect();
    assert_sent(&frames, 4 << 20, 4 << 20, 1024);
}

#[test]
fn a_load_from_the_queue_is_bounded() {
    let (ours, _theirs) = link();
    SockRef::from(&*ours).set_send_buffer_size(1).unwrap();
    let queues = NetworkFrameQueues::shared(1024);
    let (mut sender, _) = sender(&ours, &queues);
    let mut batch = queues.push_to_guest();
    for i in 0..1000 {
        batch.push(opaque(1514, i as u8)).unwrap();
    }
    drop(batch);
    assert_eq!(sender.send().unwrap(), Progress::Blocked);
    // The stream holds less than one load: all but that waits in the queue.
    assert_eq!(queues.host_to_guest.len(), 1000 - LOAD_FRAMES);
}

#[test]
fn what_the_guest_cannot_hold_is_dropped_and_counted() {
    let (ours, mut theirs) = link();
    let queues = NetworkFrameQueues::shared(16);
    let (mut sender, counters) = sender(&ours, &queues);
    let good = [opaque(14, 1), opaque(1514, 2)];
    let bad = [opaque(1515, 3), opaque(70_000, 4), vec![5; 13], vec![]];
    let syn = Tcp { flags: crate::wire::flag::SYN, ..Tcp::data(0, 2000) }.frame();
    let mut batch = queues.push_to_guest();
    for frame in [&good[..1], &bad, &[syn], &good[1..]].concat() {
        batch.push(frame).unwrap();
    }
    drop(batch);
    assert_eq!(sender.send().unwrap(), Progress::Idle);
    let mut received = Vec::new();
    receive(&mut theirs, 100_000, &mut received);
    assert_eq!(decode(&received, &[]), (good.to_vec(), None));
    assert_eq!(counters.snapshot().dropped(DropReason::BadLength), 5);
    assert_eq!(counters.frames_to_guest.get(), 2);
}

#[test]
fn a_queue_of_nothing_but_bad_frames_is_drained() {
    let (ours, _theirs) = link();
    let queues = NetworkFrameQueues::shared(1024);
    let (mut sender, counters) = sender(&ours, &queues);
    for _ in 0..1000 {
        queues.push_to_guest().push(opaque(2000, 0)).unwrap();
    }
    assert_eq!(sender.send().unwrap(), Progress::Idle);
    assert!(queues.host_to_guest.is_empty());
    assert_eq!(counters.snapshot().dropped(DropReason::BadLength), 1000);
}

#[test]
fn a_peer_that_is_gone_takes_everything() {
    let (ours, theirs) = link();
    let queues = NetworkFrameQueues::shared(16);
    let (mut sender, counters) = sender(&ours, &queues);
    drop(theirs);
    for _ in 0..3 {
        for _ in 0..16 {
            queues.push_to_guest().push(opaque(100, 0)).unwrap();
        }
        assert_eq!(sender.send().unwrap(), Progress::Idle);
        assert!(queues.host_to_guest.is_empty());
    }
    assert_eq!(counters.frames_to_guest.get(), 0);
}

#[test]
fn the_memory_of_a_call_is_used_again() {
    let (ours, _theirs) = link();
    let queues = NetworkFrameQueues::shared(64);
    let (mut sender, _) = sender(&ours, &queues);
    let mut before = None;
    for _ in 0..3 {
        for _ in 0..20 {
            queues.push_to_guest().push(opaque(100, 0)).unwrap();
        }
        sender.send().unwrap();
        let now = (sender.slices.as_ptr(), sender.load.heads.as_ptr(), sender.load.wire.as_ptr());
        assert_eq!(*before.get_or_insert(now), now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_sizes_through_any_stream(
        sizes in prop::collection::vec(1usize..20_000, 1..40),
        send_buffer in 1usize..60_000,
        read in 1usize..20_000,
        capacity in 1usize..20,
    ) {
        let frames: Vec<_> = sizes.iter().map(|size| Tcp::data(*size, *size).frame()).collect();
        assert_sent(&frames, send_buffer, read.max(500), capacity);
    }
}

use std::io::{Read, Write};
use std::thread;

use super::super::check::decode;
use super::super::testing::{Running, Tcp, eventually, lend_again, link, opaque, stream};
use super::*;
use crate::metrics::Counters;
use crate::queues::NetworkFrameQueues;

struct Setup {
    theirs: UnixStream,
    queues: Arc<NetworkFrameQueues>,
    counters: Arc<Counters>,
    thread: Running,
}

fn start(send_buffer: usize, capacity: usize) -> Setup {
    let (ours, theirs) = link();
    SockRef::from(&*ours).set_send_buffer_size(send_buffer).unwrap();
    let queues = NetworkFrameQueues::shared(capacity);
    let counters = Arc::new(Counters::default());
    let sender = Sender::new(ours, Arc::clone(&queues), 1514, Arc::clone(&counters));
    let hand_over = HandOver::new(Arc::clone(&queues));
    hand_over.lend_sender(sender);
    lend_again(&hand_over);
    let writer = Writer::new(hand_over);
    Setup { theirs, queues, counters, thread: Running::spawn(|| writer.run()) }
}

impl Setup {
    fn push(&self, frame: Vec<u8>) {
        self.queues.push_to_guest().push(frame).unwrap();
    }

    /// The stream is full and the thread is waiting for room in it.
    fn block(&self) {
        for _ in 0..8 {
            self.push(opaque(1514, 1));
        }
        eventually(|| self.queues.host_to_guest.is_empty());
        self.thread.assert_alive();
        assert!(self.counters.frames_to_guest.get() < 8);
    }
}

/// Pushes as the poll loop does: a refused push arms its bell and sleeps.
fn produce(queues: &NetworkFrameQueues, frames: Vec<Vec<u8>>) {
    let bell = &queues.guest_wake;
    let mut frames = std::collections::VecDeque::from(frames);
    loop {
        bell.take();
        let mut batch = queues.push_to_guest();
        while let Some(frame) = frames.pop_front() {
            if let Err(frame) = batch.push(frame) {
                frames.push_front(frame);
                break;
            }
        }
        drop(batch);
        if frames.is_empty() {
            return;
        }
        if bell.arm() {
            bell.wait();
        }
    }
}

#[test]
fn a_slow_peer_gets_every_frame_and_no_wake_is_lost() {
    for capacity in [1, 7, 1024] {
        let mut setup = start(1, capacity);
        let frames: Vec<_> = (0..3000).map(|i| opaque(14 + i % 1500, i as u8)).collect();
        let mut bytes = vec![0; stream(&frames).len()];
        let (queues, copies) = (Arc::clone(&setup.queues), frames.clone());
        let producer = thread::spawn(move || produce(&queues, copies));
        // libkrun's way: it blocks until a frame is whole.
        for chunk in bytes.chunks_mut(1021) {
            setup.theirs.read_exact(chunk).unwrap();
        }
        producer.join().unwrap();
        assert_eq!(decode(&bytes, &[]), (frames, None));
        setup.queues.begin_shutdown();
        assert!(matches!(setup.thread.join(), StopReason::Requested));
    }
}

#[test]
fn frames_that_come_one_by_one_are_sent_at_once() {
    let mut setup = start(4 << 20, 16);
    for i in 0..200 {
        let frame = Tcp::data(i, 1 + i).frame();
        setup.push(frame.clone());
        let mut received = vec![0; 4 + frame.len()];
        setup.theirs.read_exact(&mut received).unwrap();
        assert_eq!(received[4..], frame);
    }
    setup.queues.begin_shutdown();
    assert!(matches!(setup.thread.join(), StopReason::Requested));
}

#[test]
fn shutdown_ends_an_idle_writer() {
    let setup = start(4 << 20, 16);
    setup.thread.assert_alive();
    setup.queues.begin_shutdown();
    assert!(matches!(setup.thread.join(), StopReason::Requested));
}

#[test]
fn shutdown_ends_a_blocked_writer() {
    let setup = start(1, 16);
    setup.block();
    setup.queues.begin_shutdown();
    assert!(matches!(setup.thread.join(), StopReason::Requested));
}

#[test]
fn shutdown_does_not_wait_for_a_full_queue_behind_a_full_stream() {
    let setup = start(1, 80);
    while setup.queues.push_to_guest().push(opaque(1514, 1)).is_ok() {}
    setup.thread.assert_alive();
    setup.queues.begin_shutdown();
    assert!(matches!(setup.thread.join(), StopReason::Requested));
}

#[test]
fn frames_queued_before_the_shutdown_are_sent() {
    let places: [fn(&HandOver, Sender); 2] = [HandOver::lend_sender, HandOver::give_back_sender];
    for leave in places {
        let (ours, mut theirs) = link();
        let queues = NetworkFrameQueues::shared(256);
        let sender = Sender::new(ours, Arc::clone(&queues), 1514, Arc::default());
        let hand_over = HandOver::new(Arc::clone(&queues));
        let frames: Vec<_> = (0..200).map(|i| opaque(600, i)).collect();
        for frame in &frames {
            queues.push_to_guest().push(frame.clone()).unwrap();
        }
        leave(&hand_over, sender);
        queues.begin_shutdown();
        assert!(matches!(Writer::new(hand_over).run(), StopReason::Requested));
        let mut received = vec![0; stream(&frames).len()];
        theirs.read_exact(&mut received).unwrap();
        assert_eq!(decode(&received, &[]), (frames, None));
    }
}

#[test]
fn a_writer_whose_peer_has_closed_takes_everything_until_shutdown() {
    let setup = start(1, 16);
    setup.block();
    drop(setup.theirs);
    for _ in 0..100 {
        eventually(|| setup.queues.push_to_guest().push(opaque(1514, 1)).is_ok());
    }
    eventually(|| setup.queues.host_to_guest.is_empty());
    setup.queues.begin_shutdown();
    assert!(matches!(setup.thread.join(), StopReason::Requested));
}

#[test]
fn an_idle_writer_notices_with_the_next_frame_that_its_peer_has_closed() {
    let mut setup = start(1, 16);
    setup.theirs.write_all(b"unread by us").unwrap();
    let queues = Arc::clone(&setup.queues);
    drop(setup.theirs);
    setup.thread.assert_alive();
    queues.push_to_guest().push(opaque(60, 1)).unwrap();
    eventually(|| queues.host_to_guest.is_empty());
    queues.begin_shutdown();
    assert!(matches!(setup.thread.join(), StopReason::Requested));
}

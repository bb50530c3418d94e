use std::thread;

use super::*;

mod state_machine;

fn frame(tag: u8) -> Vec<u8> {
    vec![tag; 64]
}

#[test]
fn frames_leave_in_order_and_the_consumer_is_rung_once_for_a_batch() {
    let queues = NetworkFrameQueues::shared(8);
    let mut batch = queues.push_from_guest();
    for tag in 0..5 {
        batch.push(frame(tag)).unwrap();
    }
    assert!(!queues.guest_wake.take().any(), "rung before the batch ended");
    drop(batch);
    assert!(queues.guest_wake.take().frame());
    let mut drain = queues.drain_from_guest();
    for tag in 0..5 {
        assert_eq!(drain.pop(), Some(frame(tag)));
    }
    assert_eq!(drain.pop(), None);
}

#[test]
fn a_batch_of_nothing_rings_nobody() {
    let queues = NetworkFrameQueues::shared(1);
    drop(queues.push_to_guest());
    assert!(!queues.host_wake.take().any());
    queues.push_to_guest().push(frame(0)).unwrap();
    queues.host_wake.take();
    queues.push_to_guest().push(frame(1)).unwrap_err();
    assert!(!queues.host_wake.take().any(), "a refused frame is no news");
}

#[test]
fn a_full_queue_gives_the_frame_back() {
    let queues = NetworkFrameQueues::shared(2);
    let mut batch = queues.push_to_guest();
    batch.push(frame(0)).unwrap();
    batch.push(frame(1)).unwrap();
    assert_eq!(batch.push(frame(2)), Err(frame(2)));
    assert!(!batch.has_room(64));
}

#[test]
fn bytes_are_bounded_by_capacity_and_one_frame_always_fits() {
    let queues = NetworkFrameQueues::with_bounds(8, 1000).unwrap();
    let mut batch = queues.push_from_guest();
    batch.push(Vec::with_capacity(5000)).unwrap();
    assert_eq!(batch.push(frame(1)), Err(frame(1)));
    let mut drain = queues.drain_from_guest();
    assert_eq!(drain.pop(), Some(vec![]));
    batch.push(vec![0; 600]).unwrap();
    assert!(batch.has_room(400) && !batch.has_room(401));
    batch.push(vec![0; 401]).unwrap_err();
    batch.push(vec![0; 400]).unwrap();
}

#[test]
fn room_is_news_for_a_producer_that_was_refused_and_for_no_other() {
    let queues = NetworkFrameQueues::shared(1);
    queues.push_from_guest().push(frame(0)).unwrap();
    queues.drain_from_guest().pop().unwrap();
    assert!(!queues.guest_space().take().any(), "nobody was refused");
    queues.push_from_guest().push(frame(1)).unwrap();
    queues.push_from_guest().push(frame(2)).unwrap_err();
    queues.drain_from_guest().pop().unwrap();
    assert!(queues.guest_space().take().space());
    assert!(!queues.push_to_guest().has_room(usize::MAX) || queues.host_to_guest.is_empty());
    queues.push_to_guest().push(frame(3)).unwrap();
    assert!(!queues.push_to_guest().has_room(64));
    queues.drain_to_guest().pop().unwrap();
    assert!(queues.guest_wake.take().space(), "who asked for room hears of it");
}

#[cfg(feature = "runtime")]
#[test]
fn who_asked_for_room_for_several_frames_hears_of_it() {
    let queues = NetworkFrameQueues::shared(2);
    queues.push_to_guest().push(frame(0)).unwrap();
    assert!(queues.push_to_guest().has_room_for(1, 64));
    queues.drain_to_guest().pop().unwrap();
    assert!(!queues.guest_wake.take().space(), "there was room");
    queues.push_to_guest().push(frame(1)).unwrap();
    assert!(!queues.push_to_guest().has_room_for(2, 64));
    queues.drain_to_guest().pop().unwrap();
    assert!(queues.guest_wake.take().space());
    assert!(queues.push_to_guest().has_room_for(2, 64));
}

#[test]
fn frames_of_the_raw_queue_do_not_upset_the_count() {
    let queues = NetworkFrameQueues::with_bounds(4, 100).unwrap();
    queues.guest_to_host.push(frame(0)).unwrap();
    queues.drain_from_guest().pop().unwrap();
    assert!(queues.push_from_guest().has_room(100));
}

#[test]
fn shutdown_is_sticky_and_wakes_every_waiter() {
    let queues = NetworkFrameQueues::shared(1);
    let waiters: Vec<_> = (0..3)
        .map(|index| {
            let queues = Arc::clone(&queues);
            thread::spawn(move || {
                let bell = [&queues.guest_wake, &queues.host_wake, queues.guest_space()][index];
                while !bell.take().is_down() {
                    if bell.arm() {
                        bell.wait();
                    }
                }
            })
        })
        .collect();
    assert!(!queues.is_shutting_down());
    queues.begin_shutdown();
    queues.begin_shutdown();
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    assert!(queues.is_shutting_down());
    assert!(!queues.host_wake.arm(), "armed after the shutdown");
}

#[test]
fn buffers_go_round() {
    let queues = NetworkFrameQueues::shared(4);
    let mut buffer = queues.buffer(1500);
    buffer.extend([1; 100]);
    let place = buffer.as_ptr();
    queues.recycle(buffer);
    let _elsewhere = Vec::<u8>::with_capacity(2048); // Where it would be if it had been freed.
    let again = queues.buffer(60);
    assert!(again.is_empty() && again.as_ptr() == place);
    assert!(queues.buffer(65_550).capacity() >= 65_550);
}

/// The models' claim with real threads, real eventfds and many frames: nobody sleeps with work to do, in
/// either role. A lost wake hangs this test.
#[test]
fn a_hundred_thousand_frames_through_a_narrow_queue() {
    const FRAMES: u32 = 100_000;
    for (capacity, max_bytes) in [(1, usize::MAX), (2, 64), (7, usize::MAX)] {
        let queues = NetworkFrameQueues::with_bounds(capacity, max_bytes).unwrap();
        let theirs = Arc::clone(&queues);
        let producer = thread::spawn(move || {
            let bell = theirs.guest_space();
            let mut next = 0u32;
            while next < FRAMES {
                bell.take();
                let mut batch = theirs.push_from_guest();
                while next < FRAMES && batch.push(next.to_be_bytes().to_vec()).is_ok() {
                    next += 1;
                }
                drop(batch);
                if next < FRAMES && bell.arm() {
                    bell.wait();
                }
            }
        });
        let bell = &queues.guest_wake;
        let mut expected = 0u32;
        while expected < FRAMES {
            bell.take();
            let mut drain = queues.drain_from_guest();
            while let Some(frame) = drain.pop() {
                assert_eq!(frame, expected.to_be_bytes());
                expected += 1;
            }
            drop(drain);
            if expected < FRAMES && bell.arm() {
                bell.wait();
            }
        }
        producer.join().unwrap();
    }
}

#[cfg(feature = "runtime")]
#[test]
fn a_buffer_has_the_bytes_or_the_length_that_was_asked_for() {
    let queues = NetworkFrameQueues::shared(1);
    assert_eq!(queues.copy_of(b"a frame"), b"a frame");
    assert_eq!(queues.sized_buffer(3000).len(), 3000);
}

#[test]
fn work_that_ends_begins_the_shutdown() {
    let queues = NetworkFrameQueues::shared(1);
    let mut why = None;
    queues.work_until_shutdown(|| 7, |left| why = left.ok());
    assert_eq!(why, Some(7));
    assert!(queues.is_shutting_down());
}

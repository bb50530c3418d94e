//! What the gateway does first with every frame, and the queues and wakes between the threads.

use std::hint::black_box;

use framegate::NetworkFrameQueues;
use framegate::bench::Classify;

use crate::frames::{GUEST, GUEST_V6, REMOTE, REMOTE_V6, Tcp, udp};
use crate::{Part, Round};

/// What a round does of each.
const TIMES: usize = 64;

pub(crate) fn parts() -> [Part; 6] {
    let n = TIMES as u32;
    [
        Part::new("classify, tcp over ipv4", n, "frame", classify_tcp),
        Part::new("classify, tcp over ipv6", n, "frame", classify_tcp_v6),
        Part::new("classify, udp", n, "frame", classify_udp),
        Part::new("queue: buffer, push, pop, recycle", n, "frame", queue),
        Part::new("bell, awake: wake, take", n, "wake", bell_awake),
        Part::new("bell, asleep: arm, wake, wait, take", n, "wake", bell_asleep),
    ]
}

fn classify(frame: Vec<u8>) -> Round {
    let classify = Classify::default();
    Box::new(move |meter| {
        let mut accepted = 0;
        meter(&mut || {
            accepted = (0..TIMES).filter(|_| classify.accepts(black_box(&frame))).count();
        });
        assert_eq!(accepted, TIMES);
    })
}

fn classify_tcp() -> Round {
    classify(Tcp { payload: &[7; 1460], ..Tcp::default() }.frame())
}

fn classify_tcp_v6() -> Round {
    let ends = (GUEST_V6, REMOTE_V6);
    classify(Tcp { ends, payload: &[7; 1440], ..Tcp::default() }.frame())
}

fn classify_udp() -> Round {
    classify(udp((GUEST, REMOTE), (50_000, 443), &[7; 1400]))
}

fn queue() -> Round {
    let queues = NetworkFrameQueues::try_shared(2 * TIMES).unwrap();
    Box::new(move |meter| {
        let mut bytes = 0;
        meter(&mut || {
            let mut batch = queues.push_from_guest();
            for _ in 0..TIMES {
                let mut frame = queues.buffer(1514);
                frame.push(7);
                batch.push(frame).expect("there is room");
            }
            drop(batch);
            let mut drain = queues.drain_from_guest();
            while let Some(frame) = drain.pop() {
                bytes += frame.len();
                queues.recycle(frame);
            }
        });
        assert_eq!(bytes, TIMES);
    })
}

fn bell_awake() -> Round {
    let queues = NetworkFrameQueues::try_shared(1).unwrap();
    Box::new(move |meter| {
        meter(&mut || {
            for _ in 0..TIMES {
                queues.guest_wake.wake();
                assert!(queues.guest_wake.take().frame());
            }
        });
    })
}

fn bell_asleep() -> Round {
    let queues = NetworkFrameQueues::try_shared(1).unwrap();
    Box::new(move |meter| {
        meter(&mut || {
            for _ in 0..TIMES {
                assert!(queues.guest_wake.arm());
                queues.guest_wake.wake();
                queues.guest_wake.wait();
                assert!(queues.guest_wake.take().frame());
            }
        });
    })
}

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::os::fd::AsRawFd;

use super::*;

fn runtime() -> Runtime {
    Runtime::new(NetworkFrameQueues::try_shared(4).unwrap(), None).unwrap()
}

fn wait_for(runtime: &Runtime) {
    let mut poll = Poll::new().unwrap();
    let stopped = runtime.stopped().as_raw_fd();
    poll.registry().register(&mut SourceFd(&stopped), Token(0), Interest::READABLE).unwrap();
    poll.poll(&mut Events::with_capacity(1), None).unwrap();
}

#[test]
fn a_panic_is_seen_from_outside() {
    let mut runtime = runtime();
    runtime.spawn("framegate-poll", || panic!("by design")).unwrap();
    wait_for(&runtime);
    let Some(StopReason::WorkerPanicked(thread, message)) = runtime.stop_reason() else {
        panic!("{:?}", runtime.stop_reason());
    };
    assert_eq!((thread, message.as_str()), ("framegate-poll", "by design"));
    runtime.wait();
    assert!(runtime.queues.is_shutting_down());
}

#[test]
fn the_first_reason_is_there_when_the_descriptor_is_readable() {
    for _ in 0..100 {
        let mut runtime = runtime();
        runtime.spawn("framegate-poll", || StopReason::PeerClosed).unwrap();
        let queues = Arc::clone(&runtime.queues);
        let second = move || {
            queues.guest_wake.wait();
            StopReason::Requested
        };
        runtime.spawn("framegate-rx", second).unwrap();
        wait_for(&runtime);
        assert!(matches!(runtime.stop_reason(), Some(StopReason::PeerClosed)));
        assert!(matches!(runtime.wait(), StopReason::PeerClosed));
    }
}

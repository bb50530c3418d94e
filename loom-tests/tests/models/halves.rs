//! The ends of the VMM's stream, which the poll loop runs and lends to the reader and the writer: nobody
//! strands a frame, never two run an end, and no frame overtakes another or lies within it on the stream.
//! The threads' loops are the shipped ones; their halves, and the poll loop's turn, are the model's.

use framegate_loom_tests::bodies::{Nic, PollLoop};
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[
    &Model {
        name: "halves/from-guest",
        claim: "the receive half, lent and given back: one holder, every frame, in order",
        shows: "I1 I2 I4 I10",
        not_covered: "the real turn, which the model's mirrors; more frames: Spin has 12",
        bounds: Bounds { quick: Some(2), full: Some(3) },
        cases: &["lent", "lent_twice", "queue_was_full"],
        run: from_the_guest,
    },
    &Model {
        name: "halves/behind",
        claim: "a turn whose budget ends within the queue comes back for the rest, before it looks at the stream",
        shows: "I1 I2 I4",
        not_covered: "the real turn, which the model's mirrors",
        bounds: Bounds { quick: Some(1), full: Some(2) },
        cases: &["reader_had_all", "over_budget"],
        run: behind,
    },
    &Model {
        name: "halves/to-guest",
        claim: "the send half, lent and given back: one holder, whole frames, in order",
        shows: "I1 I2 I4 I10",
        not_covered: "the real turn, which the model's mirrors; more frames: Spin has 12",
        bounds: Bounds { quick: Some(2), full: Some(4) },
        cases: &["lent", "lent_twice", "never_lent", "writer_blocked"],
        run: to_the_guest,
    },
    &Model {
        name: "halves/both",
        claim: "both halves at once: one holder of each, every frame arrives, all leave",
        shows: "I1 I2 I3 I10",
        not_covered: "more than a frame each way, and a bound above 2: Spin has them",
        bounds: Bounds { quick: Some(1), full: Some(2) },
        cases: &["lent_both", "sender_stayed"],
        run: both_directions,
    },
    &Model {
        name: "halves/stopped-from-guest",
        claim: "a shutdown at any moment while the receive half changes hands: all leave",
        shows: "I3 I10",
        not_covered: "a bound above 2: four threads; Spin has them",
        bounds: Bounds { quick: Some(1), full: Some(2) },
        cases: &["lent", "all_arrived", "cut_short"],
        run: stopped_from_the_guest,
    },
    &Model {
        name: "halves/stopped-to-guest",
        claim: "a shutdown at any moment while the send half changes hands: all leave",
        shows: "I3 I10",
        not_covered: "a bound above 2: four threads; Spin has them",
        bounds: Bounds { quick: Some(1), full: Some(2) },
        cases: &["lent", "all_arrived", "cut_short"],
        run: stopped_to_the_guest,
    },
    &Model {
        name: "halves/stopped-unread",
        claim: "a shutdown ends the wait of a writer for a VMM that never reads",
        shows: "I3",
        not_covered: "a stream that breaks: the send says so, and the writer leaves",
        bounds: Bounds { quick: Some(2), full: Some(4) },
        cases: &["writer_waited", "in_time"],
        run: stopped_while_nobody_reads,
    },
    &Model {
        name: "halves/sent-before-shutdown",
        claim: "a frame pushed before the shutdown is sent, wherever the send half is then",
        shows: "I1 I3",
        not_covered: "a stream without room: what is in flight then is lost, as by any shutdown",
        bounds: Bounds { quick: Some(3), full: Some(5) },
        cases: &["sent_by_writer", "sent_by_poll_loop"],
        run: sent_before_the_shutdown,
    },
    &Model {
        name: "halves/room-then-shutdown",
        claim: "a frame that the full stream held back is sent if the VMM makes room before the shutdown",
        shows: "I1 I3",
        not_covered: "room that comes during the shutdown: it may be too late",
        bounds: Bounds { quick: Some(2), full: Some(3) },
        cases: &["sent_by_writer", "sent_by_poll_loop", "lent"],
        run: room_then_shutdown,
    },
];

fn from_the_guest(seen: &Seen) {
    let nic = Nic::new(3, 0);
    let threads = [nic.spawn_reader(), nic.spawn_vmm()];
    let got = PollLoop::new(&nic).run(|_, _| {});
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(got, 3, "a frame of the guest was stranded");
    let (lent, _) = nic.lent();
    assert!(lent <= 3, "the receive half goes to and fro, and no frame comes");
    seen.when("lent", lent == 1);
    seen.when("lent_twice", lent == 2);
    seen.when("queue_was_full", nic.reader_waited_for_room() > 0);
}

fn behind(seen: &Seen) {
    let nic = Nic::with_room(3, 0, 2, 1);
    nic.vmm_sends();
    nic.vmm_sends();
    let mut poll_loop = PollLoop::new(&nic);
    poll_loop.lend_receiver();
    let theirs = nic.clone();
    let threads = [nic.spawn_reader(), spawn(move || theirs.vmm_sends())];
    let mut over_budget = false;
    let got = poll_loop.run(|nic, _| over_budget |= !nic.queues.guest_to_host.is_empty());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(got, 3, "a frame of the guest was stranded");
    seen.when("reader_had_all", nic.lent().0 == 1);
    seen.when("over_budget", over_budget);
}

fn to_the_guest(seen: &Seen) {
    let nic = Nic::new(0, 2);
    let threads = [nic.spawn_writer(), nic.spawn_vmm()];
    PollLoop::new(&nic).run(|_, _| {});
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let (_, lent) = nic.lent();
    // Once at the start, and once for each time that the VMM has made room.
    assert!(lent <= 1 + 2, "the send half goes to and fro, and nothing is sent");
    seen.when("lent", lent == 1);
    seen.when("lent_twice", lent == 2);
    seen.when("never_lent", lent == 0);
    seen.when("writer_blocked", nic.writer_blocked() > 0);
    assert_eq!(on_the_wire(nic), 2, "a frame to the guest was stranded");
}

fn both_directions(seen: &Seen) {
    let nic = Nic::new(1, 1);
    let threads = [nic.spawn_reader(), nic.spawn_writer(), nic.spawn_vmm()];
    let got = PollLoop::new(&nic).run(|_, _| {});
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(got, 1, "a frame of the guest was stranded");
    seen.when("lent_both", nic.lent() == (1, 1));
    seen.when("sender_stayed", nic.lent().1 == 0);
    assert_eq!(on_the_wire(nic), 1, "a frame to the guest was stranded");
}

fn stopped_from_the_guest(seen: &Seen) {
    let nic = Nic::new(2, 1); // The frame to the guest never has room.
    let queues = Arc::clone(&nic.queues);
    let stopper = spawn(move || queues.begin_shutdown());
    let threads = [nic.spawn_reader(), nic.spawn_vmm(), stopper];
    let got = PollLoop::new(&nic).run(|_, _| {});
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    seen.when("lent", nic.lent().0 > 0);
    seen.when("all_arrived", got == 2);
    seen.when("cut_short", got < 2);
}

fn stopped_to_the_guest(seen: &Seen) {
    let nic = Nic::new(1, 2); // Nobody reads the frame of the guest.
    let queues = Arc::clone(&nic.queues);
    let stopper = spawn(move || queues.begin_shutdown());
    let threads = [nic.spawn_writer(), nic.spawn_vmm(), stopper];
    PollLoop::new(&nic).run(|_, _| {});
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let (_, lent) = nic.lent();
    let sent = on_the_wire(nic);
    seen.when("lent", lent > 0);
    seen.when("all_arrived", sent == 2);
    seen.when("cut_short", sent < 2);
}

fn stopped_while_nobody_reads(seen: &Seen) {
    let nic = Nic::new(0, 2);
    let queues = Arc::clone(&nic.queues);
    let threads = [nic.spawn_writer(), spawn(move || queues.begin_shutdown())];
    PollLoop::new(&nic).run(|_, _| {});
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    seen.when("writer_waited", nic.writer_blocked() > 0);
    seen.when("in_time", nic.writer_blocked() == 0);
    assert!(on_the_wire(nic) < 2, "there is no room for two");
}

fn sent_before_the_shutdown(seen: &Seen) {
    let nic = Nic::with_room(1, 1, 1, 2);
    let writer = nic.spawn_writer();
    let mut poll_loop = PollLoop::new(&nic);
    poll_loop.lend_sender();
    poll_loop.run(|nic, pushed| {
        if pushed == 1 {
            nic.queues.begin_shutdown();
        }
    });
    writer.join().unwrap();
    seen.when("sent_by_writer", nic.sent_by_writer() == 1);
    seen.when("sent_by_poll_loop", nic.sent_by_writer() == 0);
    assert_eq!(on_the_wire(nic), 1, "a frame was pushed before the shutdown, and not sent");
}

fn room_then_shutdown(seen: &Seen) {
    let nic = Nic::new(1, 1); // Nothing comes from the guest.
    let (stream, queues) = (Arc::clone(&nic.stream), Arc::clone(&nic.queues));
    let writer = nic.spawn_writer();
    let vmm = spawn(move || {
        stream.make_room(2);
        queues.begin_shutdown();
    });
    PollLoop::new(&nic).run(|_, _| {});
    writer.join().unwrap();
    vmm.join().unwrap();
    seen.when("lent", nic.lent().1 > 0);
    seen.when("sent_by_writer", nic.sent_by_writer() == 1);
    seen.when("sent_by_poll_loop", nic.sent_by_writer() == 0);
    assert_eq!(on_the_wire(nic), 1, "there was room before the shutdown, and the frame was not sent");
}

/// What was sent, once the half is gone, wherever it lay.
fn on_the_wire(nic: Nic) -> usize {
    let stream = Arc::clone(&nic.stream);
    drop(nic);
    stream.on_the_wire()
}

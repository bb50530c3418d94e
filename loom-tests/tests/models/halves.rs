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
        bounds: Bounds { quick: Some(2), full: Some(3) },
        cases: &["lent", "lent_twice", "queue_was_full"],
        run: from_the_guest,
    },
    &Model {
        name: "halves/to-guest",
        claim: "the send half, lent and given back: one holder, whole frames, in order",
        bounds: Bounds { quick: Some(2), full: Some(4) },
        cases: &["lent", "lent_twice", "never_lent", "writer_blocked"],
        run: to_the_guest,
    },
    &Model {
        name: "halves/both",
        claim: "both halves at once: one holder of each, every frame arrives, all leave",
        bounds: Bounds { quick: Some(1), full: Some(2) },
        cases: &["lent_both", "sender_stayed"],
        run: both_directions,
    },
    &Model {
        name: "halves/stopped-from-guest",
        claim: "a shutdown at any moment while the receive half changes hands: all leave",
        bounds: Bounds { quick: Some(1), full: Some(2) },
        cases: &["lent", "all_arrived", "cut_short"],
        run: stopped_from_the_guest,
    },
    &Model {
        name: "halves/stopped-to-guest",
        claim: "a shutdown at any moment while the send half changes hands: all leave",
        bounds: Bounds { quick: Some(1), full: Some(2) },
        cases: &["lent", "all_arrived", "cut_short"],
        run: stopped_to_the_guest,
    },
    &Model {
        name: "halves/sent-before-shutdown",
        claim: "a frame pushed before the shutdown is sent, wherever the send half is then",
        bounds: Bounds { quick: Some(3), full: Some(6) },
        cases: &["sent_by_writer", "sent_by_poll_loop"],
        run: sent_before_the_shutdown,
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

fn sent_before_the_shutdown(seen: &Seen) {
    let nic = Nic::with_room(1, 1, 2);
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

/// What was sent, once the half is gone, wherever it lay.
fn on_the_wire(nic: Nic) -> usize {
    let stream = Arc::clone(&nic.stream);
    drop(nic);
    stream.on_the_wire()
}

//! The runtime: started and stopped a thousand times without a trace, and stopped by whatever the VMM
//! does to its end of the stream.

#![cfg(all(feature = "runtime", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support_guest;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use framegate::{
    Arc, Builder, ConfigError, FramingViolation, Limits, NetworkFrameQueues, Offload, Runtime,
    StartError, StopReason,
};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use support_guest::guest::Guest;
use support_guest::host::{Server, Unanswering, descriptors, resident, threads, threads_joined};
use support_guest::raw::{ACK, Raw, SYN, Segment, arp_request};
use support_guest::wire::{Wire, start, start_with_queues};
use support_guest::{alone, alone_after, gateway, pattern, say};

/// Start, traffic and shutdown, this often; fewer where everything is slow.
const CYCLES: usize = if cfg!(debug_assertions) { 200 } else { 1000 };

/// Cycles before the first measurement.
const WARM_UP: usize = 50;

/// What nothing here takes unless it hangs, on the busiest machine. The figures that count are printed.
const BOUND: Duration = Duration::from_secs(20);

fn loopback() -> Builder {
    Runtime::builder().host_loopback(true)
}

// --- A thousand cycles -------------------------------------------------------------------------

fn timed_shutdown(runtime: Runtime, slowest: &mut Duration) {
    let started = Instant::now();
    let reason = runtime.shutdown();
    *slowest = started.elapsed().max(*slowest);
    assert!(matches!(reason, StopReason::Requested | StopReason::PeerClosed), "{reason}");
    assert!(*slowest < BOUND, "a shutdown took {slowest:?}");
}

/// Runs `cycle` again and again; nothing may grow. It tells how long its shutdown took at the most.
fn cycles(what: &str, times: usize, mut cycle: impl FnMut(&mut Duration)) {
    let mut slowest = Duration::ZERO;
    for _ in 0..WARM_UP {
        cycle(&mut slowest);
    }
    slowest = Duration::ZERO;
    let before = (threads(), descriptors(), resident());
    for _ in 0..times {
        cycle(&mut slowest);
    }
    let after = (threads_joined(before.0), descriptors(), resident());
    say(format!(
        "{what}: {times} cycles, slowest shutdown {slowest:?}; threads {} -> {}, descriptors {} -> \
         {}, resident {} -> {} KiB",
        before.0, after.0, before.1, after.1, before.2, after.2
    ));
    assert_eq!(after.0, before.0, "threads");
    assert_eq!(after.1, before.1, "descriptors");
    // The allocator's noise; a leak of one frame queue for each cycle would be a hundred times that.
    assert!(after.2 <= before.2 + 4096, "memory grew from {} to {} KiB", before.2, after.2);
}

#[test]
fn cycles_with_traffic_leave_nothing_behind() {
    if !alone("cycles_with_traffic_leave_nothing_behind") {
        return;
    }
    let server = Server::new();
    cycles("start, traffic, shutdown", CYCLES, |slowest| {
        let (runtime, wire) = start(loopback());
        let mut guest = Guest::new(wire);
        guest.buffer = 8192;
        let handle = guest.connect(server.address);
        let mut stream = server.accept();
        guest.send(handle, b"hello");
        let mut got = [0; 5];
        stream.read_exact(&mut got).unwrap();
        stream.write_all(b"world").unwrap();
        assert_eq!(guest.read_exact(handle, 5), b"world");
        timed_shutdown(runtime, slowest);
    });
}

#[test]
fn cycles_with_a_flooding_guest_leave_nothing_behind() {
    if !alone("cycles_with_a_flooding_guest_leave_nothing_behind") {
        return;
    }
    // Resets of no flow: every frame is answered.
    let frame = Segment::new(5000, gateway(80), ACK).frame();
    let mut flood = Vec::new();
    for _ in 0..512 {
        flood.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        flood.extend_from_slice(&frame);
    }
    cycles("a flooding guest", CYCLES / 4, |slowest| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let runtime = loopback().start(theirs).unwrap();
        let mut read = ours.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let mut block = vec![0; 256 * 1024];
            while read.read(&mut block).is_ok_and(|n| n > 0) {}
        });
        let keep = ours.try_clone().unwrap();
        let bytes = flood.clone();
        let (tell, told) = mpsc::channel();
        let flooder = thread::spawn(move || {
            ours.write_all(&bytes).unwrap();
            tell.send(()).unwrap();
            while ours.write_all(&bytes).is_ok() {}
        });
        told.recv().unwrap();
        timed_shutdown(runtime, slowest);
        keep.shutdown(Shutdown::Both).unwrap();
        flooder.join().unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn cycles_with_a_guest_that_reads_nothing_leave_nothing_behind() {
    if !alone("cycles_with_a_guest_that_reads_nothing_leave_nothing_behind") {
        return;
    }
    let server = Server::new();
    let payload = pattern(1 << 20);
    let mut full = 0;
    cycles("a guest that stopped reading", CYCLES / 4, |slowest| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let runtime = loopback().start(theirs).unwrap();
        let mut raw = Raw::new(Wire::stream(ours));
        raw.open_with(5000, server.address, &[2, 4, 0x05, 0xb4, 1, 3, 3, 10]);
        let stream = server.accept();
        stream.set_nonblocking(true).unwrap();
        let _ = (&stream).write(&payload);
        // The stream to the guest is full when frames wait behind it.
        let started = Instant::now();
        while runtime.queues().host_to_guest.is_empty() && started.elapsed() < BOUND {
            let _ = (&stream).write(&payload);
            thread::yield_now();
        }
        full += usize::from(!runtime.queues().host_to_guest.is_empty());
        timed_shutdown(runtime, slowest);
    });
    say(format!("the link to the guest was full in {full} of {} cycles", CYCLES / 4 + WARM_UP));
}

#[test]
fn cycles_with_a_connect_under_way_leave_nothing_behind() {
    if !alone("cycles_with_a_connect_under_way_leave_nothing_behind") {
        return;
    }
    let host = Unanswering::new();
    cycles("a connect in flight", CYCLES / 4, |slowest| {
        let (runtime, wire) = start(loopback());
        let mut raw = Raw::new(wire);
        raw.send(Segment::new(5000, host.address, SYN));
        raw.barrier();
        assert_eq!(runtime.stats().tcp_half_open, 1);
        timed_shutdown(runtime, slowest);
    });
}

#[test]
fn cycles_over_the_queues_alone_leave_nothing_behind() {
    if !alone("cycles_over_the_queues_alone_leave_nothing_behind") {
        return;
    }
    cycles("an embedder's queues", CYCLES, |slowest| {
        let (runtime, wire) = start_with_queues(loopback());
        wire.send(&arp_request());
        assert!(wire.receive(BOUND).is_some());
        timed_shutdown(runtime, slowest);
    });
}

#[test]
fn an_embedder_that_floods_the_queues_cannot_stop_the_shutdown() {
    // The device thread goes on pushing whatever the guest sends, and looks at no flag.
    let queues = NetworkFrameQueues::try_shared(1024).unwrap();
    let runtime = loopback().start_with_queues(Arc::clone(&queues)).unwrap();
    let frame = Segment::new(5000, gateway(80), ACK).frame();
    let (stop, stopped) = mpsc::channel::<()>();
    let (flooding, draining) = (Arc::clone(&queues), Arc::clone(&queues));
    let (stop_draining, drained) = mpsc::channel::<()>();
    let device = thread::spawn(move || {
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            let mut batch = flooding.push_from_guest();
            while batch.push(frame.clone()).is_ok() {}
        }
    });
    let receiver = thread::spawn(move || {
        while drained.try_recv() == Err(mpsc::TryRecvError::Empty) {
            let mut drain = draining.drain_to_guest();
            while drain.pop().is_some() {}
        }
    });
    let started = Instant::now();
    while runtime.stats().turns < 100 {
        assert!(started.elapsed() < BOUND);
        thread::yield_now();
    }
    let (tell, told) = mpsc::channel();
    let stopper = thread::spawn(move || {
        let started = Instant::now();
        runtime.shutdown();
        tell.send(started.elapsed()).unwrap();
    });
    let took = told.recv_timeout(BOUND);
    stop.send(()).unwrap();
    stop_draining.send(()).unwrap();
    device.join().unwrap();
    receiver.join().unwrap();
    stopper.join().unwrap();
    let took = took.expect("the shutdown waits for the guest to stop sending");
    say(format!("shutdown in {took:?} beside a device thread that floods"));
}

// --- How it stops ------------------------------------------------------------------------------

/// The reason, which must come in time. Keeps the guest's end open.
#[track_caller]
fn reason_in_time(mut runtime: Runtime) -> StopReason {
    let (tell, told) = mpsc::channel();
    let waiter = thread::spawn(move || tell.send((runtime.wait(), runtime)).unwrap());
    let (reason, _) = told.recv_timeout(BOUND).expect("the runtime did not stop in time");
    waiter.join().unwrap();
    reason
}

#[test]
fn a_peer_that_closes_at_any_byte_ends_the_link() {
    let arp = arp_request();
    let mut bytes = (arp.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&arp);
    // And a second frame, so that every boundary is there.
    bytes.extend_from_within(..);
    for cut in 0..bytes.len() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let runtime = loopback().start(theirs).unwrap();
        ours.write_all(&bytes[..cut]).unwrap();
        drop(ours);
        let reason = reason_in_time(runtime);
        assert!(matches!(reason, StopReason::PeerClosed), "after {cut} bytes: {reason}");
    }
}

#[test]
fn a_peer_that_closes_while_frames_wait_for_it_ends_the_link() {
    let server = Server::new();
    for _ in 0..20 {
        let (runtime, wire) = start(loopback());
        let mut raw = Raw::new(wire);
        raw.open_with(5000, server.address, &[2, 4, 0x05, 0xb4, 1, 3, 3, 10]);
        let stream = server.accept();
        stream.set_nonblocking(true).unwrap();
        let _ = (&stream).write(&pattern(1 << 20));
        drop(raw);
        let reason = reason_in_time(runtime);
        assert!(matches!(reason, StopReason::PeerClosed), "{reason}");
    }
}

#[test]
fn a_peer_that_ends_its_own_direction_ends_the_link() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let runtime = loopback().start(theirs).unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    let reason = reason_in_time(runtime);
    assert!(matches!(reason, StopReason::PeerClosed), "{reason}");
}

#[test]
fn broken_framing_ends_the_link_with_its_reason_and_hangs_nobody_up() {
    let short = |len| FramingViolation::TooShort { len };
    let long = |len| FramingViolation::TooLong { len };
    for (len, wanted) in [
        (0, short(0)),
        (1, short(1)),
        (13, short(13)),
        (65_551, long(65_551)),
        (0x0000_ffff_u32.swap_bytes(), long(0xffff_0000)),
        (u32::MAX, long(u32::MAX)),
    ] {
        for frames_before in [0, 1, 3] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let mut runtime = loopback().start(theirs).unwrap();
            let arp = arp_request();
            for _ in 0..frames_before {
                ours.write_all(&(arp.len() as u32).to_be_bytes()).unwrap();
                ours.write_all(&arp).unwrap();
            }
            ours.write_all(&len.to_be_bytes()).unwrap();
            // More bytes after it are nobody's: there is no resynchronisation.
            ours.write_all(&[0; 64]).unwrap();
            let reason = runtime.wait();
            let StopReason::FramingViolation(got) = reason else { panic!("{reason}") };
            assert_eq!(got, wanted);
            assert_eq!(runtime.stats().frames_from_guest, frames_before);
            // Not hung up: a read finds the replies and then nothing, instead of an end.
            ours.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let mut rest = Vec::new();
            let error = ours.read_to_end(&mut rest).expect_err("the stream was hung up");
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            drop(runtime);
            ours.set_read_timeout(None).unwrap();
            match ours.read_to_end(&mut rest) {
                // Unread bytes of ours make it a reset.
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
            }
        }
    }
}

#[test]
fn the_longest_frame_and_the_shortest_are_accepted() {
    for len in [14usize, 65_550] {
        let (runtime, wire) = start(loopback().offload(Offload::Upload));
        wire.send(&vec![0; len]);
        let mut raw = Raw::new(wire);
        raw.barrier();
        assert!(runtime.stop_reason().is_none());
        assert_eq!(runtime.stats().frames_from_guest, 4);
    }
}

#[test]
fn wait_gives_the_first_reason_however_often_it_is_asked() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut runtime = loopback().start(theirs).unwrap();
    drop(ours);
    assert!(matches!(runtime.wait(), StopReason::PeerClosed));
    runtime.queues().begin_shutdown();
    assert!(matches!(runtime.wait(), StopReason::PeerClosed));
    assert!(matches!(runtime.stop_reason(), Some(StopReason::PeerClosed)));
    assert!(matches!(runtime.shutdown(), StopReason::PeerClosed));
}

/// Whether the network stops within this time, as a poll set that begins now sees it.
fn stops(runtime: &Runtime, within: Duration) -> bool {
    let mut poll = Poll::new().unwrap();
    let stopped = runtime.stopped().as_raw_fd();
    poll.registry().register(&mut SourceFd(&stopped), Token(0), Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(1);
    poll.poll(&mut events, Some(within)).unwrap();
    !events.is_empty()
}

#[test]
fn the_end_is_a_descriptor_that_stays_readable() {
    type EndIt = fn(&Runtime, &mut UnixStream);
    let ends: [EndIt; 3] = [
        |_, ours| ours.shutdown(Shutdown::Both).unwrap(),
        |_, ours| ours.write_all(&[0; 4]).unwrap(),
        |runtime, _| runtime.queues().begin_shutdown(),
    ];
    for end in ends {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut runtime = loopback().start(theirs).unwrap();
        assert!(!stops(&runtime, Duration::ZERO));
        end(&runtime, &mut ours);
        assert!(stops(&runtime, BOUND));
        let reason = runtime.stop_reason().expect("a reason").to_string();
        assert_eq!(runtime.wait().to_string(), reason);
        assert!(stops(&runtime, Duration::ZERO), "after its threads have left");
    }
    let queues = NetworkFrameQueues::try_shared(16).unwrap();
    let runtime = loopback().start_with_queues(Arc::clone(&queues)).unwrap();
    assert!(!stops(&runtime, Duration::ZERO));
    queues.begin_shutdown();
    assert!(stops(&runtime, BOUND));
}

#[test]
fn shutdown_can_begin_in_any_thread_and_twice() {
    for _ in 0..50 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut runtime = loopback().start(theirs).unwrap();
        assert!(runtime.stop_reason().is_none());
        let others: Vec<_> = (0..3)
            .map(|_| {
                let queues = Arc::clone(runtime.queues());
                thread::spawn(move || {
                    queues.begin_shutdown();
                    queues.begin_shutdown();
                })
            })
            .collect();
        assert!(matches!(runtime.wait(), StopReason::Requested));
        for other in others {
            other.join().unwrap();
        }
        assert!(runtime.queues().is_shutting_down());
        assert!(matches!(runtime.shutdown(), StopReason::Requested));
        drop(ours);
    }
}

#[test]
fn a_shutdown_right_after_the_start_ends() {
    for _ in 0..100 {
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let runtime = loopback().start(theirs).unwrap();
        assert!(matches!(runtime.shutdown(), StopReason::Requested));
    }
}

#[test]
fn dropping_the_runtime_joins_its_threads() {
    if !alone("dropping_the_runtime_joins_its_threads") {
        return;
    }
    let before = (threads(), descriptors());
    for _ in 0..20 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let runtime = loopback().start(theirs).unwrap();
        assert!(threads() >= before.0 + 3);
        drop(runtime);
        assert_eq!(threads_joined(before.0), before.0);
        drop(ours);
        assert_eq!(descriptors(), before.1);
    }
}

#[test]
fn queues_that_were_shut_down_before_the_start_stop_the_runtime() {
    let queues = NetworkFrameQueues::try_shared(16).unwrap();
    queues.begin_shutdown();
    let mut runtime = loopback().start_with_queues(queues).unwrap();
    assert!(matches!(runtime.wait(), StopReason::Requested));
}

#[test]
fn frames_pushed_before_the_shutdown_are_answered() {
    for _ in 0..50 {
        let queues = NetworkFrameQueues::try_shared(64).unwrap();
        let runtime = loopback().start_with_queues(Arc::clone(&queues)).unwrap();
        let mut batch = queues.push_from_guest();
        for _ in 0..20 {
            batch.push(arp_request()).unwrap();
        }
        drop(batch);
        runtime.shutdown();
        let mut replies = 0;
        let mut drain = queues.drain_to_guest();
        while drain.pop().is_some() {
            replies += 1;
        }
        assert_eq!(replies, 20);
    }
}

#[test]
fn an_idle_runtime_does_not_turn() {
    let (runtime, wire) = start(loopback());
    let mut raw = Raw::new(wire);
    raw.barrier();
    let before = runtime.stats().turns;
    assert!(raw.receive(Duration::from_millis(300)).is_none());
    let turns = runtime.stats().turns - before;
    assert!(turns <= 2, "{turns} turns for nothing");
}

#[test]
fn the_debug_and_display_forms_say_what_matters() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut runtime = loopback().start(theirs).unwrap();
    assert!(format!("{runtime:?}").contains("stop_reason: None"));
    assert!(runtime.stats().to_string().contains("tcp_flows=0"));
    drop(ours);
    assert_eq!(runtime.wait().to_string(), "the VMM closed the link");
}

// --- How it does not start ---------------------------------------------------------------------

#[track_caller]
fn refused(builder: Builder) -> ConfigError {
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let Err(StartError::Config(error)) = builder.clone().start(theirs) else {
        panic!("{builder:?} starts");
    };
    let queues = NetworkFrameQueues::try_shared(16).unwrap();
    assert!(matches!(builder.start_with_queues(queues), Err(StartError::Config(_))));
    error
}

#[test]
fn an_mtu_that_cannot_work_is_refused() {
    let builder = Runtime::builder;
    for mtu in [0, 68, 1279, 1501, 9000, 65_520] {
        assert_eq!(refused(builder().mtu(mtu)), ConfigError::Mtu(mtu));
    }
    assert_eq!(refused(builder().mtu(65_521).offload(Offload::Jumbo)), ConfigError::Mtu(65_521));
    assert_eq!(refused(builder().mtu(1501).offload(Offload::Upload)), ConfigError::Mtu(1501));
}

#[test]
fn mac_addresses_that_cannot_work_are_refused() {
    let builder = Runtime::builder;
    for mac in [[0; 6], [0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
        assert_eq!(refused(builder().guest_mac(mac)), ConfigError::Mac);
        assert_eq!(refused(builder().gateway_mac(mac)), ConfigError::Mac);
    }
    let same = [2, 0, 0, 0, 0, 9];
    assert_eq!(refused(builder().guest_mac(same).gateway_mac(same)), ConfigError::Mac);
}

#[test]
fn ipv4_addresses_that_cannot_work_are_refused() {
    let with = |guest: [u8; 4], prefix: u8, gateway: [u8; 4]| {
        Runtime::builder()
            .guest_ipv4(Ipv4Addr::from(guest), prefix)
            .gateway_ipv4(Ipv4Addr::from(gateway))
    };
    for (guest, prefix, gateway) in [
        ([10, 0, 0, 2], 24, [10, 0, 1, 1]),   // another subnet
        ([10, 0, 0, 2], 24, [10, 0, 0, 2]),   // the same address
        ([10, 0, 0, 0], 24, [10, 0, 0, 1]),   // the network's address
        ([10, 0, 0, 255], 24, [10, 0, 0, 1]), // the broadcast address
        ([10, 0, 0, 2], 24, [10, 0, 0, 255]),
        ([10, 0, 0, 2], 0, [10, 0, 0, 1]),
        ([10, 0, 0, 2], 31, [10, 0, 0, 3]),
        ([10, 0, 0, 2], 32, [10, 0, 0, 2]),
        ([10, 0, 0, 2], 33, [10, 0, 0, 1]),
        ([10, 0, 0, 2], 255, [10, 0, 0, 1]),
        ([127, 0, 0, 2], 24, [127, 0, 0, 1]),
        ([224, 0, 0, 2], 24, [224, 0, 0, 1]),
    ] {
        assert_eq!(refused(with(guest, prefix, gateway)), ConfigError::Ipv4, "{guest:?}/{prefix}");
    }
}

#[test]
fn ipv6_addresses_that_cannot_work_are_refused() {
    let with = |guest: &str, prefix: u8, gateway: &str| {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        Runtime::builder().guest_ipv6(address(guest), prefix).gateway_ipv6(address(gateway))
    };
    for (guest, prefix, gateway) in [
        ("fd00::2", 64, "fd00:1::1"),
        ("fd00::2", 64, "fd00::2"),
        ("fd00::2", 0, "fd00::1"),
        ("fd00::2", 127, "fd00::3"),
        ("fd00::2", 129, "fd00::1"),
        ("fd00::2", 255, "fd00::1"),
        ("fe80::2", 64, "fe80::1"),
        ("ff02::2", 64, "ff02::1"),
        ("::2", 64, "::1"),
        ("::ffff:10.0.0.2", 96, "::ffff:10.0.0.1"),
    ] {
        assert_eq!(refused(with(guest, prefix, gateway)), ConfigError::Ipv6, "{guest}/{prefix}");
    }
}

#[test]
fn limits_that_cannot_work_are_refused_by_name() {
    let with = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        refused(Runtime::builder().limits(limits))
    };
    assert_eq!(with(|limits| limits.tcp_flows = 0), ConfigError::Limit("tcp_flows"));
    assert_eq!(with(|limits| limits.tcp_flows = usize::MAX), ConfigError::Limit("tcp_flows"));
    assert_eq!(with(|limits| limits.tcp_half_open = 0), ConfigError::Limit("tcp_half_open"));
    assert_eq!(with(|limits| limits.tcp_flows = 8), ConfigError::Limit("tcp_half_open"));
    assert_eq!(with(|limits| limits.tcp_window = 65_535), ConfigError::Limit("tcp_window"));
    assert_eq!(with(|limits| limits.tcp_window = 5 << 20), ConfigError::Limit("tcp_window"));
    assert_eq!(
        with(|limits| limits.tcp_connect = Duration::ZERO),
        ConfigError::Limit("tcp_connect")
    );
    assert_eq!(with(|limits| limits.queue_frames = 0), ConfigError::Limit("queue_frames"));
    assert_eq!(with(|limits| limits.queue_frames = 1 << 17), ConfigError::Limit("queue_frames"));
    assert_eq!(with(|limits| limits.queue_bytes = 1000), ConfigError::Limit("queue_bytes"));
    assert_eq!(with(|limits| limits.queue_bytes = usize::MAX), ConfigError::Limit("queue_bytes"));
}

#[test]
fn without_descriptors_it_does_not_start_and_leaks_none() {
    const NAME: &str = "without_descriptors_it_does_not_start_and_leaks_none";
    if !alone_after(NAME, "ulimit -n 24") {
        return;
    }
    let (mut hosts, mut starts) = (0, 0);
    let used = descriptors();
    // Each round leaves the start one descriptor less.
    for spare in (0..24 - used).rev() {
        let before = threads();
        let pair = UnixStream::pair();
        let mut eaten: Vec<std::fs::File> = Vec::new();
        let Ok((_ours, theirs)) = pair else { continue };
        while let Ok(file) = std::fs::File::open("/dev/null") {
            eaten.push(file);
        }
        for _ in 0..spare {
            eaten.pop();
        }
        match loopback().start(theirs) {
            Err(StartError::Host(what, error)) => {
                assert_eq!(error.raw_os_error(), Some(24), "{what}: {error}"); // EMFILE
                hosts += 1;
            }
            Err(other) => panic!("{other}"),
            Ok(runtime) => {
                drop(runtime);
                starts += 1;
            }
        }
        drop(eaten);
        drop(_ours);
        assert_eq!(threads_joined(before), before, "a thread is left");
        assert_eq!(descriptors(), used, "a descriptor is left");
    }
    say(format!("{starts} starts, {hosts} refused for want of descriptors"));
    assert!(hosts >= 3 && starts >= 1);
}

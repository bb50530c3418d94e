//! Services that run in-process for the guest. No root, no VM.

#![cfg(all(feature = "runtime", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support_guest;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use framegate::{Builder, ConfigError, DropReason, Limits, RelayStream, Runtime};
use smoltcp::socket::tcp::State;

use support_guest::guest::Guest;
use support_guest::host::{descriptors, threads, threads_joined};
use support_guest::raw::{ACK, RST, Raw, SYN, Segment};
use support_guest::wire::{start, start_with_queues};
use support_guest::{GATEWAY_V4, GATEWAY_V6, PATIENCE, alone, assert_same, pattern, say};

/// Bytes of a bulk transfer: less where smoltcp itself is slow.
const BULK: usize = if cfg!(debug_assertions) { 8 << 20 } else { 32 << 20 };

fn metadata() -> SocketAddr {
    ([169, 254, 169, 254], 80).into()
}

/// A gateway whose service hands its streams to the test.
fn handing_over(builder: Builder) -> (Builder, Receiver<RelayStream>) {
    let (tell, told) = mpsc::channel();
    (builder.service(metadata(), move |stream| tell.send(stream).unwrap()), told)
}

/// A connection: the gateway, the guest and its socket, and the service's stream.
fn pair() -> (Runtime, Guest, smoltcp::iface::SocketHandle, RelayStream) {
    let (builder, streams) = handing_over(Runtime::builder());
    let (runtime, wire) = start(builder);
    let mut guest = Guest::new(wire);
    let handle = guest.connect(metadata());
    let stream = streams.recv_timeout(PATIENCE).unwrap();
    (runtime, guest, handle, stream)
}

fn echo(mut stream: RelayStream) {
    let mut block = vec![0; 32 * 1024];
    loop {
        match stream.read(&mut block) {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                if stream.write_all(&block[..n]).is_err() {
                    return;
                }
            }
        }
    }
}

// --- Bytes -------------------------------------------------------------------------------------

#[test]
fn an_echo_at_every_kind_of_address_is_exact() {
    let addresses: [IpAddr; 4] = [
        [169, 254, 169, 254].into(),
        GATEWAY_V4.into(),
        GATEWAY_V6.into(),
        "fd00:ec2::254".parse().unwrap(),
    ];
    let builder = addresses.iter().fold(Runtime::builder(), |builder, address| {
        builder.service(SocketAddr::new(*address, 7), echo)
    });
    let (runtime, wire) = start(builder);
    let mut guest = Guest::new(wire);
    let payload = pattern(BULK / 4);
    for address in addresses {
        let handle = guest.connect(SocketAddr::new(address, 7));
        let (got, clean) = guest.exchange(handle, &payload);
        assert!(clean);
        assert_same(&got, &payload);
        // The port next to it is as closed as ever.
        let closed = guest.dial(SocketAddr::new(address, 8));
        if address == IpAddr::from(GATEWAY_V4) || address == IpAddr::from(GATEWAY_V6) {
            guest.until("a refusal", |guest| guest.state(closed) == State::Closed);
        }
        guest.forget(closed);
    }
    assert_eq!(runtime.stats().dropped(DropReason::FlowLimit), 0);
}

#[test]
fn an_echo_over_the_queues_alone_is_exact() {
    let (_runtime, wire) = start_with_queues(Runtime::builder().service(metadata(), echo));
    let mut guest = Guest::new(wire);
    let handle = guest.connect(metadata());
    let payload = pattern(BULK / 4);
    let (got, clean) = guest.exchange(handle, &payload);
    assert!(clean);
    assert_same(&got, &payload);
}

#[test]
fn bulk_both_ways_at_once_by_two_threads_is_exact() {
    let (_runtime, mut guest, handle, stream) = pair();
    let (up, down) = (pattern(BULK), pattern(BULK / 2));
    let expected = (up.clone(), down.clone());
    let service = thread::spawn(move || {
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (&stream).write_all(&down).unwrap();
                stream.shutdown_write();
            });
            let mut got = Vec::new();
            (&stream).read_to_end(&mut got).unwrap();
            writer.join().unwrap();
            got
        })
    });
    let (got, clean) = guest.exchange(handle, &up);
    assert!(clean);
    assert_same(&got, &expected.1);
    assert_same(&service.join().unwrap(), &expected.0);
}

#[test]
fn a_slow_service_stops_the_guest_and_loses_nothing() {
    let (runtime, mut guest, handle, mut stream) = pair();
    let payload = pattern(16 << 20);
    let sent = guest.fill(handle, &payload);
    let stats = runtime.stats();
    // The pipe, and the window behind it.
    assert!(stats.tcp_bytes_to_host <= 256 * 1024, "{stats}");
    let reader = thread::spawn(move || {
        let mut got = vec![0; sent];
        // In small and odd pieces.
        for piece in got.chunks_mut(7777) {
            stream.read_exact(piece).unwrap();
        }
        got
    });
    guest.until("the reader", |_| reader.is_finished());
    assert_same(&reader.join().unwrap(), &payload[..sent]);
}

#[test]
fn a_guest_that_stops_reading_stops_the_service_and_loses_nothing() {
    let (runtime, mut guest, handle, mut stream) = pair();
    let payload = pattern(16 << 20);
    let expected = payload.clone();
    let writer = thread::spawn(move || {
        // In small and odd pieces.
        for piece in payload.chunks(3333) {
            stream.write_all(piece).unwrap();
        }
    });
    let mut last = 0;
    guest.until("a full flow", |guest| {
        guest.live(Duration::from_millis(150));
        std::mem::replace(&mut last, runtime.stats().tcp_bytes_to_guest)
            == runtime.stats().tcp_bytes_to_guest
    });
    assert!(!writer.is_finished());
    let (got, clean) = guest.read_to_end(handle);
    assert!(clean);
    assert_same(&got, &expected);
    writer.join().unwrap();
}

// --- Ending ------------------------------------------------------------------------------------

#[test]
fn the_guest_closes_first_and_data_follow_from_the_service() {
    let (_runtime, mut guest, handle, mut stream) = pair();
    guest.send(handle, b"question");
    guest.finish(handle);
    let service = thread::spawn(move || {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        stream.write_all(&pattern(1 << 20)).unwrap();
        got
    });
    let (got, clean) = guest.read_to_end(handle);
    assert!(clean);
    assert_same(&got, &pattern(1 << 20));
    assert_eq!(service.join().unwrap(), b"question");
}

#[test]
fn the_service_closes_first_and_data_follow_from_the_guest() {
    let (runtime, mut guest, handle, mut stream) = pair();
    stream.write_all(b"greeting").unwrap();
    stream.shutdown_write();
    assert_eq!(guest.read_to_end(handle), (b"greeting".to_vec(), true));
    let service = thread::spawn(move || {
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    guest.send(handle, &pattern(1 << 20));
    guest.finish(handle);
    guest.until("the service", |_| service.is_finished());
    assert_same(&service.join().unwrap(), &pattern(1 << 20));
    guest.until("an end", |_| runtime.stats().tcp_reset == 0);
}

#[test]
fn a_guest_reset_reaches_the_service() {
    let (runtime, mut guest, handle, stream) = pair();
    let service = thread::spawn(move || (&stream).read(&mut [0; 10]).unwrap_err().kind());
    guest.socket(handle).abort();
    guest.poll();
    assert_eq!(service.join().unwrap(), ErrorKind::ConnectionReset);
    guest.until("an empty table", |_| runtime.stats().tcp_flows == 0);
}

#[test]
fn a_service_s_reset_reaches_the_guest() {
    let (runtime, mut guest, handle, stream) = pair();
    stream.reset();
    assert_eq!(guest.read_to_end(handle), (vec![], false));
    guest.until("an empty table", |_| runtime.stats().tcp_flows == 0);
}

#[test]
fn a_stream_that_is_dropped_ends_after_the_last_byte_and_then_resets_what_comes() {
    let (runtime, mut guest, handle, mut stream) = pair();
    guest.send(handle, b"never read");
    guest.until("the bytes", |_| runtime.stats().tcp_bytes_to_host == 10);
    stream.write_all(b"goodbye").unwrap();
    drop(stream);
    assert_eq!(guest.read_exact(handle, 7), b"goodbye");
    guest.until("the end", |guest| guest.state(handle) == State::CloseWait);
    guest.send(handle, b"is anybody there?");
    guest.until("a reset", |guest| guest.state(handle) == State::Closed);
    guest.until("an empty table", |_| runtime.stats().tcp_flows == 0);
}

#[test]
fn an_abandoned_flow_ends_with_the_transitory_time_out() {
    let mut limits = Limits::default();
    limits.tcp_transitory = Duration::from_millis(200);
    let builder = Runtime::builder().limits(limits).service(metadata(), drop);
    let (runtime, wire) = start(builder);
    let mut guest = Guest::new(wire);
    let handle = guest.connect(metadata());
    assert_eq!(guest.read_to_end(handle), (vec![], true));
    // The guest never closes its end.
    guest.until("a reset", |guest| guest.state(handle) == State::Closed);
    guest.until("an empty table", |_| runtime.stats().tcp_flows == 0);
}

// --- Handlers ----------------------------------------------------------------------------------

#[test]
fn a_panic_resets_its_connection_and_no_other() {
    let builder = Runtime::builder()
        .service(metadata(), |mut stream| {
            stream.write_all(b"half an ans").unwrap();
            std::panic::resume_unwind(Box::new("the handler's own defect"));
        })
        .service((GATEWAY_V4, 7).into(), echo);
    let (runtime, wire) = start(builder);
    let mut guest = Guest::new(wire);
    let kept = guest.connect((GATEWAY_V4, 7).into());
    for times in 1..=3 {
        let handle = guest.connect(metadata());
        let (_, clean) = guest.read_to_end(handle);
        assert!(!clean, "half an answer must not look whole");
        guest.until("the count", |_| runtime.stats().relay_panics == times);
    }
    guest.send(kept, b"still here");
    assert_eq!(guest.read_exact(kept, 10), b"still here");
    assert!(runtime.stop_reason().is_none());
}

#[test]
fn above_the_limit_the_guest_is_refused() {
    let mut limits = Limits::default();
    limits.relay_threads = 2;
    let (builder, streams) = handing_over(Runtime::builder().limits(limits));
    let (runtime, wire) = start(builder);
    let mut guest = Guest::new(wire);
    let handles = [guest.connect(metadata()), guest.connect(metadata())];
    let mut kept: Vec<_> =
        handles.iter().map(|_| streams.recv_timeout(PATIENCE).unwrap()).collect();
    let refused = guest.dial(metadata());
    guest.until("a refusal", |guest| guest.state(refused) == State::Closed);
    assert_eq!(runtime.stats().dropped(DropReason::RelayLimit), 1);
    // The old are kept, and the end of one makes room.
    let mut stream = kept.pop().unwrap();
    // The threads of the two hand their streams over in either order.
    let port = stream.peer_addr().port();
    let from = |guest: &mut Guest, handle| guest.socket(handle).local_endpoint().unwrap().port;
    let its = handles.into_iter().find(|handle| from(&mut guest, *handle) == port).unwrap();
    guest.send(its, b"x");
    stream.read_exact(&mut [0; 1]).unwrap();
    drop(stream);
    let mut next = guest.dial(metadata());
    guest.until("room", |guest| match guest.state(next) {
        State::Established => true,
        State::Closed => {
            // The thread has handed its stream over and may not have ended yet.
            guest.forget(next);
            next = guest.dial(metadata());
            false
        }
        _ => false,
    });
}

#[test]
fn a_flood_of_syns_starts_no_thread() {
    if !alone("a_flood_of_syns_starts_no_thread") {
        return;
    }
    let (runtime, wire) = start(Runtime::builder().service(metadata(), echo));
    let mut raw = Raw::new(wire);
    raw.barrier();
    let before = threads();
    for port in 2000..3000 {
        raw.send(Segment::new(port, metadata(), SYN));
    }
    raw.until("refusals", &runtime, |stats| stats.dropped(DropReason::RelayLimit) == 1000 - 64);
    assert_eq!(threads(), before);
    // The resets of all of them make room.
    for port in 2000..3000 {
        raw.send(Segment::new(port, metadata(), RST | ACK).at(1001, 0));
        raw.send(Segment::new(port, metadata(), RST).at(1001, 0));
    }
    raw.until("an empty table", &runtime, |stats| stats.tcp_flows == 0);
    raw.open(4000, metadata());
    raw.until("a thread", &runtime, |_| threads() == before + 1);
}

#[test]
fn shutdown_frees_handlers_that_read_and_handlers_that_write() {
    const NAME: &str = "shutdown_frees_handlers_that_read_and_handlers_that_write";
    if !alone(NAME) {
        return;
    }
    let cycle = || {
        let (tell, told) = mpsc::channel();
        let reader = tell.clone();
        let builder = Runtime::builder()
            .service(metadata(), move |mut stream| {
                let read = stream.read(&mut [0; 10]);
                reader.send(read.unwrap_err().kind()).unwrap();
            })
            .service((GATEWAY_V4, 7).into(), move |mut stream| {
                let written = io::copy(&mut io::repeat(7), &mut stream);
                tell.send(written.unwrap_err().kind()).unwrap();
            });
        let (runtime, wire) = start(builder);
        let mut guest = Guest::new(wire);
        guest.buffer = 16 * 1024;
        guest.connect(metadata());
        guest.connect((GATEWAY_V4, 7).into());
        guest.until("two handlers", |_| runtime.stats().tcp_half_open == 0);
        runtime.shutdown();
        // Both have ended: the threads are joined.
        let kinds: Vec<_> = told.try_iter().collect();
        assert_eq!(kinds, [ErrorKind::ConnectionReset; 2]);
    };
    for _ in 0..5 {
        cycle();
    }
    let before = (threads(), descriptors());
    for _ in 0..100 {
        cycle();
    }
    let after = (threads_joined(before.0), descriptors());
    say(format!("100 cycles: threads and descriptors {before:?} -> {after:?}"));
    assert_eq!(after, before);
}

#[test]
fn a_vmm_that_hangs_up_frees_handlers_too() {
    let (tell, told) = mpsc::channel();
    let builder = Runtime::builder().service(metadata(), move |mut stream| {
        tell.send(stream.read(&mut [0; 10]).unwrap_err().kind()).unwrap();
    });
    let (mut runtime, wire) = start(builder);
    let mut guest = Guest::new(wire);
    guest.connect(metadata());
    guest.until("a handler", |_| runtime.stats().tcp_half_open == 0);
    drop(guest);
    runtime.wait();
    assert_eq!(told.try_recv(), Ok(ErrorKind::ConnectionReset));
}

#[test]
fn two_thousand_connections_leave_nothing_behind() {
    const NAME: &str = "two_thousand_connections_leave_nothing_behind";
    if !alone(NAME) {
        return;
    }
    let times = if cfg!(debug_assertions) { 500 } else { 2000 };
    let (runtime, wire) = start(Runtime::builder().service(metadata(), echo));
    let mut guest = Guest::new(wire);
    guest.buffer = 4096;
    let cycle = |guest: &mut Guest| {
        let handle = guest.connect(metadata());
        let (got, clean) = guest.exchange(handle, b"hello");
        assert_eq!((&got[..], clean), (&b"hello"[..], true));
        guest.forget(handle);
    };
    // The guest is done before the gateway is: what is left goes by itself, or never.
    let before = (threads(), descriptors());
    for _ in 0..times {
        cycle(&mut guest);
    }
    guest.until("the threads and descriptors to go", |_| {
        threads() <= before.0 && descriptors() <= before.1
    });
    say(format!("{times} connections: {} descriptors before and after", before.1));
    assert_eq!(runtime.stats().dropped(DropReason::RelayLimit), 0);
}

#[test]
fn a_service_that_the_guest_cannot_reach_does_not_start() {
    for address in ["127.0.0.1:80", "224.0.0.1:80", "100.96.0.2:80", "[ff02::1]:80", "1.2.3.4:0"] {
        let address: SocketAddr = address.parse().unwrap();
        let error = Runtime::builder().service(address, echo).check().unwrap_err();
        assert_eq!(error, ConfigError::Service(address));
    }
    let twice = Runtime::builder().service(metadata(), echo).service(metadata(), echo);
    assert_eq!(twice.check(), Err(ConfigError::Service(metadata())));
}

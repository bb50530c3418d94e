//! Rate limits of the guest's link: what is held back is neither lost nor forgotten, and nobody spins or
//! hangs for it. A limiter guarantees a least time, and that is the only time asserted here.

#![cfg(all(feature = "runtime", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support_guest;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use framegate::{
    Builder, ControlError, DropReason, Overflow, Publish, RateLimit, Runtime, StopReason,
};

use support_guest::guest::Guest;
use support_guest::host::{Server, read_all};
use support_guest::raw::{Raw, Seen, arp_request};
use support_guest::udp::Datagram;
use support_guest::wire::{Wire, start, start_with_queues};
use support_guest::{GATEWAY_V4, PATIENCE, assert_same, gateway, pattern};

fn loopback() -> Builder {
    Runtime::builder().host_loopback(true)
}

fn bytes(per_second: u64, burst: u64) -> RateLimit {
    let mut limit = RateLimit::bytes(per_second);
    limit.burst_bytes = burst;
    limit
}

fn packets(per_second: u64, burst: u64) -> RateLimit {
    let mut limit = RateLimit::packets(per_second);
    limit.burst_packets = burst;
    limit
}

const UNLIMITED: fn() -> RateLimit = RateLimit::default;

/// The time that `len` bytes take at the least; one frame may be owed at the end.
fn least(len: usize, rate: u64, burst: u64) -> Duration {
    Duration::from_micros((len as u64 - burst - 65_550) * 1_000_000 / rate)
}

/// How many ARP requests are answered before nothing comes any more.
fn answers(wire: &Wire, wanted: usize) -> usize {
    let mut count = 0;
    while count < wanted && wire.receive(PATIENCE).is_some() {
        count += 1;
    }
    count + usize::from(wire.receive(Duration::from_millis(50)).is_some())
}

#[test]
fn a_guest_that_sends_is_held_to_its_rate_and_loses_nothing() {
    const LEN: usize = 2 << 20;
    const RATE: u64 = 4_000_000;
    const BURST: u64 = 100_000;
    let server = Server::new();
    let (runtime, wire) = start(loopback().rate_from_guest(bytes(RATE, BURST)));
    let mut guest = Guest::new(wire);
    let handle = guest.connect(server.address);
    let mut stream = server.accept();
    stream.shutdown(Shutdown::Write).unwrap();
    let started = Instant::now();
    let reader = thread::spawn(move || read_all(&mut stream));
    guest.exchange(handle, &pattern(LEN));
    assert_same(&reader.join().unwrap(), &pattern(LEN));
    let took = started.elapsed();
    assert!(took >= least(LEN, RATE, BURST), "{LEN} bytes passed in {took:?}");
    assert_eq!(runtime.stats().dropped(DropReason::RateLimit), 0);
}

#[test]
fn a_guest_that_receives_is_held_to_its_rate_and_loses_nothing() {
    const LEN: usize = 2 << 20;
    const RATE: u64 = 4_000_000;
    const BURST: u64 = 100_000;
    let server = Server::new();
    let (runtime, wire) = start(loopback().rate_to_guest(bytes(RATE, BURST)));
    let mut guest = Guest::new(wire);
    let handle = guest.connect(server.address);
    let mut stream = server.accept();
    let started = Instant::now();
    let writer = thread::spawn(move || stream.write_all(&pattern(LEN)).unwrap());
    let (got, clean) = guest.read_to_end(handle);
    let took = started.elapsed();
    assert!(clean);
    assert_same(&got, &pattern(LEN));
    writer.join().unwrap();
    assert!(took >= least(LEN, RATE, BURST), "{LEN} bytes passed in {took:?}");
    assert_eq!(runtime.stats().dropped(DropReason::RateLimit), 0);
}

#[test]
fn many_flows_share_a_rate_and_none_is_forgotten() {
    const FLOWS: usize = 100;
    const LEN: usize = 20_000;
    let server = Server::new();
    let (_runtime, wire) = start(loopback().rate_to_guest(bytes(8_000_000, 20_000)));
    let mut guest = Guest::new(wire);
    guest.buffer = 32 * 1024;
    let mut flows = Vec::new();
    for _ in 0..FLOWS {
        flows.push((guest.connect(server.address), server.accept()));
    }
    let started = Instant::now();
    for (_, stream) in &mut flows {
        stream.write_all(&pattern(LEN)).unwrap();
    }
    for (handle, _) in &flows {
        assert_same(&guest.read_exact(*handle, LEN), &pattern(LEN));
    }
    let took = started.elapsed();
    assert!(took >= least(FLOWS * LEN, 8_000_000, 20_000), "{took:?}");
}

#[test]
fn frames_of_the_guest_wait_until_there_is_a_rate_again() {
    for begin in [start, start_with_queues] {
        let (runtime, wire) = begin(loopback().rate_from_guest(packets(0, 5)));
        let arp = arp_request();
        wire.send_all(&[&arp[..]; 20]);
        assert_eq!(answers(&wire, 5), 5, "the burst and no more");
        runtime.handle().set_rate_limits(UNLIMITED(), UNLIMITED()).unwrap();
        assert_eq!(answers(&wire, 15), 15, "what waited");
        assert_eq!(runtime.stats().drops().count(), 0);
    }
}

#[test]
fn a_flow_to_the_guest_waits_until_there_is_a_rate_again() {
    for begin in [start, start_with_queues] {
        let server = Server::new();
        let (runtime, wire) = begin(loopback());
        let mut guest = Guest::new(wire);
        let handle = guest.connect(server.address);
        let mut stream = server.accept();
        runtime.handle().set_rate_limits(UNLIMITED(), packets(0, 0)).unwrap();
        // The bucket that is set anew is full; a burst of nothing is none.
        stream.write_all(&pattern(100_000)).unwrap();
        guest.live(Duration::from_millis(50));
        assert_eq!(guest.socket(handle).recv_queue(), 0);
        runtime.handle().set_rate_limits(UNLIMITED(), UNLIMITED()).unwrap();
        assert_same(&guest.read_exact(handle, 100_000), &pattern(100_000));
    }
}

/// A server of datagrams on the host, which the guest's port 4000 has sent to; and where to answer.
fn mapped(wire: &Wire) -> (UdpSocket, SocketAddr) {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = gateway(server.local_addr().unwrap().port());
    wire.send(&Datagram::new(4000, address, b"hello").frame());
    let (_, guest) = server.recv_from(&mut [0; 8]).unwrap();
    (server, guest)
}

/// The first byte of the payload of a datagram without fragments.
fn first_byte(frame: &[u8]) -> Option<u8> {
    (frame[12..14] == [8, 0] && frame[23] == 17).then(|| frame[42])
}

#[test]
fn datagrams_to_the_guest_wait_for_tokens_in_the_host_s_socket() {
    for begin in [start, start_with_queues] {
        let (runtime, wire) = begin(loopback());
        let (server, guest) = mapped(&wire);
        let published = runtime.handle().publish(&Publish::udp_port(0, 7)).unwrap().addresses[0];
        runtime.handle().set_rate_limits(UNLIMITED(), packets(0, 0)).unwrap();
        for n in 0..50 {
            server.send_to(&[n], guest).unwrap();
            server.send_to(&[100 + n], published).unwrap();
        }
        assert_eq!(wire.receive(Duration::from_millis(50)), None);
        runtime.handle().set_rate_limits(UNLIMITED(), packets(500, 1)).unwrap();
        let mut got: Vec<u8> = (0..100)
            .map(|_| first_byte(&wire.receive(PATIENCE).expect("a datagram")).unwrap())
            .collect();
        // Each of the two in order.
        got.sort_by_key(|n| *n >= 100);
        assert_eq!(got, (0..50).chain(100..150).collect::<Vec<_>>());
        assert_eq!(runtime.stats().drops().count(), 0);
        wire.until_asleep(&runtime);
    }
}

#[test]
fn answers_of_dns_pass_on_credit() {
    let gateway_v4 = GATEWAY_V4.into();
    let builder = loopback().dns_record("here.example", gateway_v4).rate_to_guest(packets(0, 5));
    let (runtime, wire) = start(builder);
    let arp = arp_request();
    wire.send_all(&[&arp[..]; 5]);
    for _ in 0..5 {
        wire.receive(PATIENCE).expect("an answer");
    }
    let mut query = vec![77, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(b"\x04here\x07example\0\0\x01\0\x01");
    wire.send(&Datagram::new(4000, gateway(53), &query).frame());
    assert_eq!(first_byte(&wire.receive(PATIENCE).expect("an answer")), Some(77));
    assert_eq!(runtime.stats().dropped(DropReason::RateLimit), 0);
}

#[test]
fn neither_flows_nor_datagrams_take_all_of_a_rate() {
    let server = Server::new();
    let (runtime, wire) = start(loopback());
    let (datagrams, to) = mapped(&wire);
    let mut guest = Guest::new(wire);
    let handle = guest.connect(server.address);
    let mut stream = server.accept();
    runtime.handle().set_rate_limits(UNLIMITED(), bytes(1_000_000, 1000)).unwrap();
    let (stop, stopped) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let writer = scope.spawn(move || {
            stream.set_nonblocking(true).unwrap();
            let block = pattern(1 << 16);
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                let _ = stream.write(&block);
                let _ = datagrams.send_to(&block[..1200], to);
                thread::yield_now();
            }
        });
        let before = runtime.stats();
        let mut read = 0;
        guest.until("both to move", |guest| {
            read += guest.socket(handle).recv(|bytes| (bytes.len(), bytes.len())).unwrap();
            let sent = runtime.stats().udp_datagrams_to_guest - before.udp_datagrams_to_guest;
            read > 100_000 && sent > 50
        });
        drop(stop);
        writer.join().unwrap();
    });
}

#[test]
fn answers_pass_on_credit_of_one_burst_and_are_counted_beyond() {
    let (runtime, wire) = start(loopback().rate_to_guest(packets(0, 5)));
    let arp = arp_request();
    wire.send_all(&[&arp[..]; 20]);
    assert_eq!(answers(&wire, 10), 10);
    assert_eq!(runtime.stats().dropped(DropReason::RateLimit), 10);
}

#[test]
fn with_drops_what_is_above_the_rate_is_dropped_and_counted() {
    let builder = loopback().overflow(Overflow::Drop).rate_from_guest(packets(0, 5));
    let (runtime, wire) = start(builder);
    let arp = arp_request();
    wire.send_all(&[&arp[..]; 20]);
    let mut raw = Raw::new(wire);
    raw.until("the drops", &runtime, |stats| stats.dropped(DropReason::RateLimit) == 15);
    assert_eq!(runtime.stats().neighbor_replies, 5);
}

#[test]
fn a_rate_of_packets_lets_every_frame_pass_in_its_time() {
    const FRAMES: usize = 300;
    let (runtime, wire) = start(loopback().rate_from_guest(packets(1000, 20)));
    let arp = arp_request();
    let started = Instant::now();
    wire.send_all(&[&arp[..]; FRAMES]);
    assert_eq!(answers(&wire, FRAMES), FRAMES);
    assert!(started.elapsed() >= Duration::from_millis((FRAMES as u64 - 20 - 1) * 1000 / 1000));
    assert_eq!(runtime.stats().drops().count(), 0);
}

#[test]
fn a_gateway_that_holds_frames_back_sleeps() {
    for begin in [start, start_with_queues] {
        let (runtime, wire) = begin(loopback().rate_from_guest(packets(0, 1)));
        let arp = arp_request();
        wire.send_all(&[&arp[..]; 50]);
        assert_eq!(answers(&wire, 1), 1);
        wire.until_asleep(&runtime);
    }
}

#[test]
fn a_limited_gateway_sleeps_when_nothing_happens() {
    let limit = bytes(1_000_000, 1_000);
    let (runtime, wire) = start(loopback().rate_from_guest(limit).rate_to_guest(limit));
    let arp = arp_request();
    wire.send_all(&[&arp[..]; 100]);
    assert_eq!(answers(&wire, 100), 100);
    wire.until_asleep(&runtime);
}

#[test]
fn frames_that_are_held_back_do_not_hold_up_the_shutdown() {
    for begin in [start, start_with_queues] {
        let (runtime, wire) = begin(loopback().rate_from_guest(packets(0, 1)));
        let arp = arp_request();
        wire.send_all(&[&arp[..]; 100]);
        assert!(wire.receive(PATIENCE).is_some());
        let (tell, told) = mpsc::channel();
        thread::spawn(move || tell.send(runtime.shutdown()));
        let reason = told.recv_timeout(PATIENCE).expect("the shutdown waits for a rate");
        assert!(matches!(reason, StopReason::Requested), "{reason}");
    }
}

#[test]
fn a_vmm_that_hangs_up_is_noticed_behind_frames_that_are_held_back() {
    let (mut runtime, wire) = start(loopback().rate_from_guest(packets(0, 1)));
    let arp = arp_request();
    wire.send_all(&[&arp[..]; 2000]);
    assert!(wire.receive(PATIENCE).is_some());
    drop(wire);
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send((runtime.wait(), runtime.stats())).unwrap());
    let (reason, stats) = told.recv_timeout(PATIENCE).expect("the end of the link is not seen");
    assert!(matches!(reason, StopReason::PeerClosed), "{reason}");
    assert_eq!(stats.frames_from_guest, 2000, "what came before it is handled");
}

#[test]
fn a_limit_is_set_while_the_guest_floods() {
    // So many that the reader has been lent the stream when the limit comes.
    let (runtime, wire) = start(loopback());
    let arp = arp_request();
    let handle = runtime.handle();
    let mut raw = Raw::new(wire);
    for round in 0..10 {
        raw.wire.send_all(&[&arp[..]; 400]);
        handle.set_rate_limits(packets(100_000, 10), UNLIMITED()).unwrap();
        raw.wire.send_all(&[&arp[..]; 400]);
        handle.set_rate_limits(UNLIMITED(), UNLIMITED()).unwrap();
        for n in 0..800 {
            assert_eq!(raw.receive(PATIENCE), Some(Seen::Arp), "round {round}, answer {n}");
        }
    }
    assert_eq!(runtime.stats().frames_from_guest, 8000);
}

#[test]
fn one_direction_s_limit_is_not_the_other_s() {
    let server = Server::new();
    let (runtime, wire) = start(loopback());
    let mut guest = Guest::new(wire);
    let handle = guest.connect(server.address);
    let mut stream = server.accept();
    runtime.handle().set_rate_limits(UNLIMITED(), packets(0, 0)).unwrap();
    guest.send(handle, &pattern(40_000));
    let mut got = vec![0; 40_000];
    stream.read_exact(&mut got).unwrap();
    assert_same(&got, &pattern(40_000));
}

#[test]
fn a_network_that_has_stopped_takes_no_limit() {
    let (runtime, _wire) = start(loopback());
    let handle = runtime.handle();
    runtime.shutdown();
    let refused = handle.set_rate_limits(UNLIMITED(), UNLIMITED());
    assert!(matches!(refused, Err(ControlError::Stopped)));
}

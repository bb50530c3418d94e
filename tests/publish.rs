//! Published ports: clients of the host, and a guest that serves them. No root, no VM.

#![cfg(all(feature = "runtime", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support_guest;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use framegate::{
    Builder, ControlError, DropReason, IpFamily, Limits, Publish, PublishError, Runtime, StartError,
};
use smoltcp::socket::tcp::State;

use support_guest::guest::Guest;
use support_guest::host::{
    descriptors, descriptors_closed, read_all, reset, threads, threads_joined,
};
use support_guest::listening::{client, client_of, publish, read_to_reset};
use support_guest::raw::{ACK, FIN, Heard, PSH, RST, Raw, SYN, Seen, Segment};
use support_guest::udp::Peer;
use support_guest::wire::{start, start_with_queues};
use support_guest::{
    GATEWAY_V4, GATEWAY_V6, PATIENCE, alone, alone_after, assert_same, pattern, say,
};

/// Bytes of a bulk transfer: less where smoltcp itself is slow.
const BULK: usize = if cfg!(debug_assertions) { 8 << 20 } else { 32 << 20 };

fn guest() -> (Runtime, Guest) {
    let (runtime, wire) = start(Runtime::builder());
    (runtime, Guest::new(wire))
}

fn raw() -> (Runtime, Raw) {
    raw_with(|_| {})
}

fn raw_with(change: impl FnOnce(&mut Limits)) -> (Runtime, Raw) {
    let mut limits = Limits::default();
    change(&mut limits);
    let (runtime, wire) = start(Runtime::builder().limits(limits));
    (runtime, Raw::new(wire))
}

/// A connection: the gateway, the guest and its socket, and the client.
fn pair() -> (Runtime, Guest, smoltcp::iface::SocketHandle, TcpStream) {
    let (runtime, mut guest) = guest();
    let published = publish(&runtime, 80);
    let handle = guest.listen(80);
    let client = client(&published);
    guest.accept(handle);
    (runtime, guest, handle, client)
}

/// The gateway's SYN to port 80.
#[track_caller]
fn called(raw: &mut Raw) -> Heard {
    raw.expect("SYN", |heard| heard.is(SYN) && heard.to_port == 80)
}

/// Until nothing is left of any flow.
#[track_caller]
fn until_empty(guest: &mut Guest, runtime: &Runtime) {
    guest.until("an empty table", |_| runtime.stats().tcp_flows == 0);
    let stats = runtime.stats();
    assert_eq!((stats.tcp_half_open, stats.tcp_opened), (0, stats.tcp_closed), "{stats}");
}

// --- Bytes -------------------------------------------------------------------------------------

/// The client sends `up` and the guest `down`, at the same time.
fn exchange(builder: Builder, mtu: usize, host: SocketAddr, with_queues: bool) {
    let (runtime, wire) = if with_queues { start_with_queues(builder) } else { start(builder) };
    let mut guest = Guest::with_mtu(wire, mtu);
    let published = runtime.handle().publish(&Publish::tcp(host, 80)).unwrap();
    let handle = guest.listen(80);
    let client = client_of(published.addresses[0]);
    let (up, down) = (pattern(BULK), pattern(BULK / 2));
    let mut write = client.try_clone().unwrap();
    let sent = up.clone();
    let writer = thread::spawn(move || {
        write.write_all(&sent).unwrap();
        write.shutdown(Shutdown::Write).unwrap();
    });
    let mut read = client;
    let reader = thread::spawn(move || read_all(&mut read));
    guest.accept(handle);
    let remote = guest.socket(handle).remote_endpoint().unwrap();
    let gateway = if host.is_ipv4() { GATEWAY_V4.into() } else { GATEWAY_V6.into() };
    assert_eq!(remote.addr, IpAddr::into(gateway), "the guest sees the gateway");
    let (got, clean) = guest.exchange(handle, &down);
    assert!(clean);
    assert_same(&got, &up);
    writer.join().unwrap();
    assert_same(&reader.join().unwrap(), &down);
    let stats = runtime.stats();
    assert_eq!((stats.tcp_inbound, stats.tcp_established), (1, 1), "{stats}");
    assert_eq!(stats.tcp_bytes_to_guest, BULK as u64);
    assert_eq!(stats.drops().count(), 0, "{stats}");
    if mtu == 1500 && !with_queues {
        // The guest's SYN-ACK is told a larger MSS, so the payload goes out in super-segments.
        assert!(guest.device.largest <= 1514);
    }
}

#[test]
fn bulk_both_ways_at_once_is_exact() {
    exchange(Runtime::builder(), 1500, (Ipv4Addr::LOCALHOST, 0).into(), false);
}

#[test]
fn bulk_over_ipv6_is_exact() {
    exchange(Runtime::builder(), 1500, (Ipv6Addr::LOCALHOST, 0).into(), false);
}

#[test]
fn bulk_over_the_queues_alone_is_exact() {
    exchange(Runtime::builder(), 1500, (Ipv4Addr::LOCALHOST, 0).into(), true);
}

#[test]
fn bulk_with_the_smallest_mtu_is_exact() {
    exchange(Runtime::builder().mtu(1280), 1280, (Ipv4Addr::LOCALHOST, 0).into(), false);
}

#[test]
fn an_ipv6_port_leads_to_the_family_that_was_chosen() {
    let (runtime, mut guest) = guest();
    let ports = Publish::tcp((Ipv6Addr::LOCALHOST, 0).into(), 80).to_family(IpFamily::V4);
    let published = runtime.handle().publish(&ports).unwrap();
    let handle = guest.listen(80);
    let mut client = client_of(published.addresses[0]);
    guest.accept(handle);
    assert_eq!(guest.socket(handle).remote_endpoint().unwrap().addr, GATEWAY_V4.into());
    guest.send(handle, b"four");
    let mut got = [0; 4];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"four");
}

#[test]
fn the_guest_s_mss_is_respected() {
    for (options, most) in [
        (&[2, 4, 0x05, 0xb4, 1, 3, 3, 7][..], 1460),
        (&[2, 4, 0x02, 0x00][..], 512),
        (&[][..], 536),
        (&[2, 4, 0x05, 0xb4, 2, 4, 0x02, 0x00][..], 512),
    ] {
        let (runtime, mut raw) = raw();
        let mut client = client(&publish(&runtime, 80));
        let syn = called(&mut raw);
        assert_eq!(syn.mss, Some(1460));
        let answer = Segment::new(80, syn.from, SYN | ACK).at(1000, syn.end());
        raw.send(Segment { options, ..answer });
        client.write_all(&pattern(100_000)).unwrap();
        let mut next = syn.end();
        let mut largest = 0;
        while next.wrapping_sub(syn.end()) < 100_000 {
            let heard = raw.expect("data", |heard| heard.sequence == next);
            largest = largest.max(heard.payload.len());
            next = heard.end();
            raw.send(Segment::new(80, syn.from, ACK).at(1001, next));
        }
        assert!(largest <= most, "a segment of {largest} bytes where {most} are agreed");
        assert!(raw.largest <= 1514);
    }
}

// --- Opening -----------------------------------------------------------------------------------

#[test]
fn nothing_is_read_from_a_client_before_the_guest_has_answered() {
    let (runtime, mut raw) = raw();
    let mut client = client(&publish(&runtime, 80));
    client.write_all(b"early").unwrap();
    let syn = called(&mut raw);
    assert!(syn.payload.is_empty());
    raw.barrier();
    let stats = runtime.stats();
    assert_eq!((stats.tcp_half_open, stats.tcp_established, stats.tcp_inbound), (1, 0, 1));
    assert_eq!(stats.tcp_bytes_to_guest, 0);
    raw.send(Segment::new(80, syn.from, SYN | ACK).at(1000, syn.end()));
    let data = raw.expect("the client's bytes", |heard| !heard.payload.is_empty());
    assert_eq!((&data.payload[..], data.acknowledges), (&b"early"[..], 1001));
    let stats = runtime.stats();
    assert_eq!((stats.tcp_half_open, stats.tcp_established), (0, 1));
}

#[test]
fn a_guest_that_refuses_resets_the_client() {
    let (runtime, mut guest) = guest();
    let published = publish(&runtime, 80);
    let mut client = client(&published);
    guest.until("a refusal", |_| runtime.stats().dropped(DropReason::GuestRefused) == 1);
    assert_eq!(read_to_reset(&mut client), b"");
    until_empty(&mut guest, &runtime);
    assert_eq!(runtime.stats().tcp_established, 0);
    // And one that serves after all is served.
    let handle = guest.listen(80);
    let mut client = client_of(published.addresses[0]);
    guest.accept(handle);
    guest.send(handle, b"now");
    let mut got = [0; 3];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"now");
}

#[test]
fn a_guest_that_does_not_answer_resets_the_client() {
    let (runtime, mut raw) = raw_with(|limits| limits.tcp_connect = Duration::from_millis(300));
    let mut client = client(&publish(&runtime, 80));
    let syn = called(&mut raw);
    // Whatever else it says, it does not answer. Each makes the gateway call again.
    raw.send(Segment::new(80, syn.from, ACK).at(1000, syn.end().wrapping_add(7)));
    assert_eq!(read_to_reset(&mut client), b"");
    raw.until("an empty table", &runtime, |stats| stats.tcp_flows == 0);
    assert_eq!(runtime.stats().dropped(DropReason::GuestTimedOut), 1);
    assert_eq!(runtime.stats().tcp_half_open, 0);
}

#[test]
fn a_client_that_leaves_early_is_not_waited_for() {
    let (runtime, mut raw) = raw();
    let client = client(&publish(&runtime, 80));
    let syn = called(&mut raw);
    reset(client);
    raw.until("an empty table", &runtime, |stats| stats.tcp_flows == 0);
    // An answer that comes too late is reset.
    raw.send(Segment::new(80, syn.from, SYN | ACK).at(1000, syn.end()));
    raw.expect("RST", |heard| heard.to_port == 80 && heard.flags & RST != 0);
}

#[test]
fn a_client_that_has_only_finished_is_served() {
    let (_runtime, mut guest) = guest();
    let published = publish(&_runtime, 80);
    let mut client = client(&published);
    client.write_all(b"all there is").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let handle = guest.listen(80);
    guest.accept(handle);
    let (got, clean) = guest.exchange(handle, b"and the answer");
    assert_eq!((&got[..], clean), (&b"all there is"[..], true));
    assert_eq!(read_all(&mut client), b"and the answer");
}

#[test]
fn a_guest_with_an_old_connection_on_the_port_is_called_from_another() {
    let (runtime, mut raw) = raw();
    let mut client = client(&publish(&runtime, 80));
    let first = called(&mut raw);
    // As TIME-WAIT answers a SYN with an old number (RFC 9293 section 3.10.7.4).
    raw.send(Segment::new(80, first.from, ACK).at(5000, first.sequence.wrapping_sub(9)));
    let second = raw.expect("another SYN", |heard| heard.is(SYN) && heard.from != first.from);
    raw.send(Segment::new(80, second.from, SYN | ACK).at(1000, second.end()));
    raw.expect("ACK", |heard| heard.is(ACK) && heard.from == second.from);
    let hello = Segment::new(80, second.from, ACK | PSH).at(1001, second.end());
    raw.send(hello.with(b"hello"));
    let mut got = [0; 5];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    assert_eq!(runtime.stats().tcp_flows, 1);
}

#[test]
fn a_guest_that_calls_at_the_same_time_is_connected() {
    let (_runtime, mut raw) = raw();
    let mut client = client(&publish(&_runtime, 80));
    let syn = called(&mut raw);
    // RFC 9293 section 3.5, simultaneous open.
    raw.send(Segment::new(80, syn.from, SYN).at(1000, 0));
    raw.expect("SYN-ACK", |heard| heard.is(SYN | ACK) && heard.acknowledges == 1001);
    raw.send(Segment::new(80, syn.from, ACK | PSH).at(1001, syn.end()).with(b"both"));
    let mut got = [0; 4];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"both");
}

#[test]
fn calls_that_the_guest_does_not_answer_have_half_of_the_half_open_limit() {
    let (runtime, mut raw) = raw_with(|limits| limits.tcp_half_open = 4);
    let published = publish(&runtime, 80);
    let mut waiting = vec![client(&published), client(&published)];
    raw.until("two calls", &runtime, |stats| stats.tcp_half_open == 2);
    assert_eq!(read_to_reset(&mut client(&published)), b"");
    assert_eq!(runtime.stats().dropped(DropReason::HalfOpenLimit), 1);
    // The two are kept.
    let mut calls = Vec::new();
    while calls.len() < 2 {
        let syn = called(&mut raw);
        if !calls.contains(&syn.from) {
            calls.push(syn.from);
            raw.send(Segment::new(80, syn.from, SYN | ACK).at(1000, syn.end()));
        }
    }
    raw.until("two connections", &runtime, |stats| stats.tcp_established == 2);
    for client in &mut waiting {
        client.write_all(b"x").unwrap();
    }
    for _ in 0..2 {
        raw.expect("a byte", |heard| heard.payload == b"x");
    }
}

#[test]
fn a_guest_that_ignores_the_window_when_it_answers_gains_nothing() {
    for begin in [start, start_with_queues] {
        let (runtime, wire) = begin(Runtime::builder());
        let mut raw = Raw::new(wire);
        let mut client = client(&publish(&runtime, 80));
        let syn = called(&mut raw);
        // The answer, and more than the window before the gateway has said another word.
        let bytes = pattern(30 * 60_000);
        let answer = Segment::new(80, syn.from, SYN | ACK).at(1000, syn.end()).frame();
        let data = (0_u32..).zip(bytes.chunks(60_000)).map(|(n, chunk)| {
            let at = 1001 + n * 60_000;
            Segment::new(80, syn.from, ACK).at(at, syn.end()).with(chunk).frame()
        });
        let frames: Vec<Vec<u8>> = std::iter::once(answer).chain(data).collect();
        raw.wire.send_all(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let mut got = vec![0; 60_000];
        client.read_exact(&mut got).unwrap();
        assert_same(&got, &bytes[..60_000]);
        raw.barrier();
        assert!(runtime.stop_reason().is_none(), "{:?}", runtime.stop_reason());
    }
}

#[test]
fn a_guest_that_answers_with_anything_harms_nobody_else() {
    const CALLS: usize = if cfg!(debug_assertions) { 300 } else { 3000 };
    const LENGTHS: [usize; 6] = [0, 0, 1, 100, 1460, 60_000];
    const OPTIONS: [&[u8]; 6] = [
        &[],
        &[2, 4, 0x05, 0xb4, 1, 3, 3, 7],
        &[2, 4, 0, 0],
        &[2, 4, 0, 1, 1, 3, 3, 255],
        &[1, 3, 3, 14, 4, 2, 0, 0],
        &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
    ];
    let (runtime, mut raw) = raw_with(|limits| {
        // Every client is to make a call.
        limits.tcp_half_open = limits.tcp_flows;
        limits.tcp_connect = Duration::from_millis(500);
        limits.tcp_transitory = Duration::from_millis(500);
        limits.tcp_idle = Duration::from_millis(500);
    });
    let published = publish(&runtime, 80);
    let payload = pattern(60_000);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % bound
    };
    for _ in 0..CALLS {
        let client = client(&published);
        let syn = raw.expect("a call", |heard| heard.is(SYN));
        if random(2) == 0 {
            // It may have timed out already.
            let _ = (&client).write_all(b"something to say");
        }
        // Where the guest stands: around its own first number, and around what it was told.
        let frames: Vec<Vec<u8>> = (0..1 + random(5))
            .map(|_| {
                let flags = [SYN | ACK, SYN | ACK, SYN, ACK, RST | ACK, FIN | ACK, PSH | ACK, RST];
                let near = |base: u32, offset: usize| match offset {
                    0..4 => base,
                    4 => base.wrapping_add(1),
                    5 => base.wrapping_sub(1),
                    6 => base.wrapping_add(1 << 31),
                    _ => base.wrapping_add(70_000),
                };
                let flags = flags[random(flags.len())];
                let first = if flags & SYN != 0 { 1000 } else { 1001 };
                let segment = Segment {
                    window: [0, 1, 1000, 0xffff][random(4)],
                    options: OPTIONS[random(OPTIONS.len())],
                    ..Segment::new(80, syn.from, flags)
                };
                segment
                    .at(near(first, random(8)), near(syn.end(), random(8)))
                    .with(&payload[..LENGTHS[random(LENGTHS.len())]])
                    .frame()
            })
            .collect();
        raw.wire.send_all(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>());
        if random(2) == 0 {
            reset(client);
        }
        assert!(runtime.stop_reason().is_none(), "{:?}", runtime.stop_reason());
    }
    raw.until("an empty table", &runtime, |stats| stats.tcp_flows == 0);
    let stats = runtime.stats();
    assert_eq!((stats.tcp_half_open, stats.tcp_opened), (0, stats.tcp_closed), "{stats}");
    // And an honest one is served.
    let mut client = client(&published);
    let syn = raw.expect("a call", |heard| heard.is(SYN));
    raw.send(Segment::new(80, syn.from, SYN | ACK).at(1000, syn.end()));
    raw.send(Segment::new(80, syn.from, ACK | PSH).at(1001, syn.end()).with(b"honest"));
    let mut got = [0; 6];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"honest");
}

// --- Ending ------------------------------------------------------------------------------------

#[test]
fn the_client_closes_first_and_data_follow_from_the_guest() {
    let (runtime, mut guest, handle, mut client) = pair();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.read_to_end(handle), (b"question".to_vec(), true));
    let answer = pattern(1 << 20);
    let expected = answer.clone();
    let reader = thread::spawn(move || assert_same(&read_all(&mut client), &expected));
    guest.send(handle, &answer);
    guest.finish(handle);
    guest.until("the end", |guest| guest.state(handle) == State::Closed);
    reader.join().unwrap();
    guest.until("the end of the flow", |_| runtime.stats().tcp_bytes_to_host == 1 << 20);
    assert_eq!(runtime.stats().tcp_reset, 0);
}

#[test]
fn the_guest_closes_first_and_data_follow_from_the_client() {
    let (runtime, mut guest, handle, mut client) = pair();
    guest.send(handle, b"greeting");
    guest.finish(handle);
    assert_eq!(read_all(&mut client), b"greeting");
    let payload = pattern(1 << 20);
    let expected = payload.clone();
    let writer = thread::spawn(move || {
        client.write_all(&payload).unwrap();
    });
    let (got, clean) = guest.read_to_end(handle);
    assert!(clean);
    assert_same(&got, &expected);
    writer.join().unwrap();
    guest.until("the end", |guest| guest.state(handle) == State::TimeWait);
    assert_eq!(runtime.stats().tcp_reset, 0);
}

#[test]
fn a_reset_by_either_end_reaches_the_other() {
    let (runtime, mut guest, handle, mut client) = pair();
    guest.send(handle, b"before");
    let mut got = [0; 6];
    client.read_exact(&mut got).unwrap();
    guest.socket(handle).abort();
    guest.poll();
    assert_eq!(read_to_reset(&mut client), b"");
    until_empty(&mut guest, &runtime);

    let published = publish(&runtime, 81);
    let handle = guest.listen(81);
    let mut client = client_of(published.addresses[0]);
    client.write_all(b"before").unwrap();
    guest.accept(handle);
    assert_eq!(guest.read_exact(handle, 6), b"before");
    reset(client);
    assert_eq!(guest.read_to_end(handle), (vec![], false));
    until_empty(&mut guest, &runtime);
}

#[test]
fn a_half_closed_end_keeps_its_fin() {
    let (_runtime, mut raw) = raw();
    let mut client = client(&publish(&_runtime, 80));
    client.shutdown(Shutdown::Write).unwrap();
    let syn = called(&mut raw);
    raw.send(Segment::new(80, syn.from, SYN | ACK).at(1000, syn.end()));
    let fin = raw.expect("FIN", |heard| heard.flags & FIN != 0);
    assert_eq!(fin.sequence, syn.end());
    raw.send(Segment::new(80, syn.from, ACK | PSH).at(1001, fin.end()).with(b"still here"));
    raw.send(Segment::new(80, syn.from, ACK | FIN).at(1011, fin.end()));
    assert_eq!(read_all(&mut client), b"still here");
}

// --- Publishing --------------------------------------------------------------------------------

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let is_in_use = |error: &PublishError| {
        matches!(error, PublishError::Bind { address: named, source }
            if *named == address && source.kind() == ErrorKind::AddrInUse)
    };
    let ports = Publish::tcp(address, 80);
    let error = Runtime::builder()
        .publish(ports.clone())
        .start(std::os::unix::net::UnixStream::pair().unwrap().0)
        .unwrap_err();
    assert!(matches!(&error, StartError::Publish(error) if is_in_use(error)), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    let (runtime, _wire) = start(Runtime::builder());
    let error = runtime.handle().publish(&ports).unwrap_err();
    assert!(is_in_use(&error), "{error}");
    drop(taken);
    let published = runtime.handle().publish(&ports).unwrap();
    assert_eq!(published.addresses, [address]);
    // Our own, too.
    assert!(is_in_use(&runtime.handle().publish(&ports).unwrap_err()));
}

#[test]
fn an_address_of_another_host_is_an_error() {
    let (runtime, _wire) = start(Runtime::builder());
    let ports = Publish::tcp(([192, 0, 2, 1], 0).into(), 80);
    let error = runtime.handle().publish(&ports).unwrap_err();
    assert!(
        matches!(&error, PublishError::Bind { source, .. }
            if source.kind() == ErrorKind::AddrNotAvailable),
        "{error}"
    );
}

#[test]
fn what_is_published_at_the_start_is_listed() {
    let builder =
        Runtime::builder().publish(Publish::tcp_port(0, 80)).publish(Publish::tcp_port(0, 81));
    let (runtime, wire) = start(builder);
    let mut guest = Guest::new(wire);
    let published = runtime.handle().published().unwrap();
    assert_eq!(published.len(), 2);
    for (published, port) in published.iter().zip([80, 81]) {
        let handle = guest.listen(port);
        let _client = client(published);
        guest.accept(handle);
    }
    runtime.handle().unpublish(published[0].id).unwrap();
    assert_eq!(runtime.handle().published().unwrap(), published[1..]);
}

/// Ports next to each other that are free now, one at the least on each side of what is asked.
fn free_range(len: u16) -> std::ops::RangeInclusive<u16> {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let Some(last) = first.checked_add(len - 1) else { continue };
        if (first..=last).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first..=last;
        }
    }
    panic!("no {len} free ports next to each other");
}

#[test]
fn a_range_leads_port_by_port_up_to_the_last_one() {
    let (runtime, mut guest) = guest();
    // Another program may be faster to take a free port.
    let published = (0..20)
        .find_map(|_| {
            let ports =
                Publish::tcp_ports(Ipv4Addr::LOCALHOST.into(), free_range(4), 65_532..=65_535);
            runtime.handle().publish(&ports.unwrap()).ok()
        })
        .unwrap();
    assert_eq!(published.addresses.len(), 4);
    for (address, port) in published.addresses.iter().zip(65_532..=65_535) {
        let handle = guest.listen(port);
        let mut client = client_of(*address);
        guest.accept(handle);
        guest.send(handle, &port.to_be_bytes());
        let mut got = [0; 2];
        client.read_exact(&mut got).unwrap();
        assert_eq!(u16::from_be_bytes(got), port);
    }
    runtime.handle().unpublish(published.id).unwrap();
    for address in published.addresses {
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn the_first_port_of_the_guest_can_be_published() {
    let (runtime, mut guest) = guest();
    let published = publish(&runtime, 1);
    let handle = guest.listen(1);
    let _client = client(&published);
    guest.accept(handle);
}

#[test]
fn unpublish_closes_the_port_and_lets_connections_live() {
    let (runtime, mut guest) = guest();
    let published = publish(&runtime, 80);
    let handle = guest.listen(80);
    let mut client = client(&published);
    guest.accept(handle);
    runtime.handle().unpublish(published.id).unwrap();
    let refused = TcpStream::connect(published.addresses[0]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    guest.send(handle, b"still here");
    let mut got = [0; 10];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"still here");
    let again = runtime.handle().unpublish(published.id).unwrap_err();
    assert!(matches!(again, PublishError::Unknown(id) if id == published.id));
}

#[test]
fn unpublish_resets_connections_where_that_is_asked_for() {
    let (runtime, mut guest) = guest();
    let (kept, closed) = (publish(&runtime, 80), publish(&runtime, 81));
    let handles = [guest.listen(80), guest.listen(81)];
    let (mut kept, mut reset) = (client(&kept), client_of(closed.addresses[0]));
    for handle in handles {
        guest.accept(handle);
    }
    runtime.handle().unpublish_and_reset(closed.id).unwrap();
    assert_eq!(read_to_reset(&mut reset), b"");
    assert_eq!(guest.read_to_end(handles[1]), (vec![], false));
    guest.send(handles[0], b"x");
    let mut got = [0; 1];
    kept.read_exact(&mut got).unwrap();
}

#[test]
fn a_network_that_has_stopped_publishes_nothing() {
    let (runtime, _wire) = start(Runtime::builder());
    let handle = runtime.handle();
    let published = publish(&runtime, 80);
    runtime.shutdown();
    assert!(matches!(
        handle.publish(&Publish::tcp_port(0, 80)),
        Err(PublishError::Control(ControlError::Stopped))
    ));
    let refused = TcpStream::connect(published.addresses[0]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_udp_port_leads_to_the_guest_and_back_until_it_is_unpublished() {
    for host in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()] {
        let (runtime, mut peer) = Peer::start(Runtime::builder());
        let published = runtime.handle().publish(&Publish::udp(host, 53)).unwrap();
        let client = UdpSocket::bind(host).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect(published.addresses[0]).unwrap();
        client.send(b"question").unwrap();
        let (from, to_port, payload) = peer.datagram();
        assert_eq!((to_port, &payload[..]), (53, &b"question"[..]));
        let gateway: IpAddr = if host.is_ipv4() { GATEWAY_V4.into() } else { GATEWAY_V6.into() };
        assert_eq!(from.ip(), gateway, "the guest sees the gateway");
        peer.send(53, from, b"answer");
        let mut got = [0; 16];
        let n = client.recv(&mut got).unwrap();
        assert_eq!(&got[..n], b"answer");
        let flows = runtime.handle().flows().unwrap();
        assert_eq!(flows.len(), 1);
        assert_eq!(flows[0].client, Some(client.local_addr().unwrap()));
        assert_eq!(flows[0].remote, Some(from));
        assert_eq!((flows[0].bytes_to_guest, flows[0].bytes_to_host), (8, 6));
        runtime.handle().unpublish(published.id).unwrap();
        // The first tells that nobody is there, the second hears of it.
        let refused = client.send(b"more").and_then(|_| client.recv(&mut got)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn the_list_of_flows_names_the_client() {
    let (runtime, mut guest) = guest();
    let published = publish(&runtime, 80);
    let listener = guest.listen(80);
    let client = client(&published);
    guest.accept(listener);
    let flows = runtime.handle().flows().unwrap();
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].client, Some(client.local_addr().unwrap()));
    assert_eq!(flows[0].guest.port(), 80);
    assert_eq!(flows[0].remote.unwrap().ip(), GATEWAY_V4);
}

#[test]
fn publishing_a_thousand_times_under_load_leaves_nothing_behind() {
    const NAME: &str = "publishing_a_thousand_times_under_load_leaves_nothing_behind";
    if !alone(NAME) {
        return;
    }
    const CYCLES: usize = 1000;
    let (runtime, mut guest) = guest();
    let steady = publish(&runtime, 80);
    let load = guest.listen(80);
    let mut client = client(&steady);
    guest.accept(load);
    let (stop, told) = mpsc::channel::<()>();
    // A connection that is busy all the while; the guest takes its bytes as it goes round.
    let sender = thread::spawn(move || {
        let block = pattern(16 * 1024);
        while told.try_recv() == Err(mpsc::TryRecvError::Empty) {
            client.write_all(&block).unwrap();
        }
        drop(client);
    });
    let cycle = |guest: &mut Guest, which: usize| {
        let published = publish(&runtime, 1000);
        let before = runtime.stats().tcp_inbound;
        // Some are accepted and refused by the guest, some wait when the port is closed.
        let client = TcpStream::connect(published.addresses[0]).unwrap();
        if which.is_multiple_of(2) {
            guest.until("a call", |_| runtime.stats().tcp_inbound > before);
        }
        runtime.handle().unpublish(published.id).unwrap();
        drop(client);
        guest.socket(load).recv(|bytes| (bytes.len(), ())).unwrap();
        guest.poll();
    };
    let settle = |guest: &mut Guest| {
        guest.until("the flows of the cycles to end", |guest| {
            let _ = guest.socket(load).recv(|bytes| (bytes.len(), ()));
            runtime.stats().tcp_flows == 1
        });
    };
    for which in 0..50 {
        cycle(&mut guest, which);
    }
    settle(&mut guest);
    let before = (threads(), descriptors());
    for which in 0..CYCLES {
        cycle(&mut guest, which);
    }
    settle(&mut guest);
    let after = (threads_joined(before.0), descriptors_closed(before.1));
    say(format!("{CYCLES} cycles: threads and descriptors {before:?} -> {after:?}"));
    assert_eq!(after, before);
    assert_eq!(runtime.handle().published().unwrap(), [steady]);
    drop(stop);
    guest.until("the end of the load", |guest| {
        let _ = guest.socket(load).recv(|bytes| (bytes.len(), ()));
        sender.is_finished()
    });
    sender.join().unwrap();
}

#[test]
fn a_host_without_descriptors_resets_clients_and_recovers() {
    const NAME: &str = "a_host_without_descriptors_resets_clients_and_recovers";
    if !alone_after(NAME, "ulimit -n 64") {
        return;
    }
    let (runtime, mut guest) = guest();
    let published = publish(&runtime, 80);
    let kept = guest.listen(80);
    let mut first = client(&published);
    guest.accept(kept);
    // The client's descriptor is there before the rest are taken.
    let unconnected =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    unconnected.connect(&published.addresses[0].into()).unwrap();
    let mut second = TcpStream::from(unconnected);
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read_to_reset(&mut second), b"");
    assert!(runtime.stats().dropped(DropReason::HostResource) >= 1);
    // What is there goes on.
    guest.send(kept, b"still here");
    let mut got = [0; 10];
    first.read_exact(&mut got).unwrap();
    // An idle gateway, and no spinning.
    let turns = runtime.stats().turns;
    guest.live(Duration::from_millis(300));
    let turns = runtime.stats().turns - turns;
    assert!(turns < 50, "{turns} turns while nothing happened");
    drop(taken);
    let handle = guest.listen(80);
    let mut third = client_of(published.addresses[0]);
    guest.accept(handle);
    guest.send(handle, b"again");
    let mut got = [0; 5];
    third.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"again");
}

#[test]
fn many_clients_at_once_each_exchange_their_own_bytes() {
    const CLIENTS: usize = 300;
    let (runtime, mut guest) = guest();
    guest.buffer = 4096;
    let published = publish(&runtime, 80);
    let address = published.addresses[0];
    let handles: Vec<_> = (0..CLIENTS).map(|_| guest.listen(80)).collect();
    let clients = thread::spawn(move || {
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| client_of(address)).collect();
        for (which, client) in clients.iter_mut().enumerate() {
            client.write_all(&(which as u32).to_be_bytes()).unwrap();
        }
        for (which, client) in clients.iter_mut().enumerate() {
            let mut got = [0; 4];
            client.read_exact(&mut got).unwrap();
            assert_eq!(u32::from_be_bytes(got), !(which as u32));
        }
    });
    for handle in handles {
        let asked = {
            guest.accept(handle);
            guest.read_exact(handle, 4)
        };
        let which = u32::from_be_bytes(asked.try_into().unwrap());
        guest.send(handle, &(!which).to_be_bytes());
    }
    let began = Instant::now();
    guest.until("the clients", |_| clients.is_finished() || began.elapsed() > PATIENCE);
    clients.join().unwrap();
    assert_eq!(runtime.stats().tcp_established, CLIENTS as u64);
}

#[test]
fn a_client_s_port_is_no_way_in_for_the_guest() {
    // The gateway's ports that calls come from are no listeners.
    let (_runtime, mut raw) = raw();
    let _client = client(&publish(&_runtime, 80));
    let syn = called(&mut raw);
    raw.send(Segment::new(81, syn.from, SYN));
    let answer = raw.expect("RST", |heard| heard.to_port == 81);
    assert!(answer.flags & RST != 0);
    assert!(raw.receive(Duration::ZERO).is_none_or(|seen| !matches!(seen, Seen::Icmp(..))));
}

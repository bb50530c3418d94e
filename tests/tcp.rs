//! TCP between a guest and the host's loopback: what the guest sees is what it would see without a
//! gateway. No root, no VM: the guest is smoltcp, or segments made by hand.

#![cfg(all(feature = "runtime", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support_guest;

use std::io::{ErrorKind, Read, Write};
use std::mem::ManuallyDrop;
use std::net::{Shutdown, TcpStream};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use framegate::{Builder, DropReason, Limits, Runtime};
use smoltcp::socket::tcp::State;

use support_guest::guest::Guest;
use support_guest::host::{Server, Unanswering, descriptors, read_all, reset};
use support_guest::raw::{ACK, FIN, PSH, RST, Raw, SYN, Seen, Segment};
use support_guest::wire::{start, start_with_queues};
use support_guest::{alone, assert_same, gateway, pattern, say};

/// Bytes of a bulk transfer: less where smoltcp itself is slow.
const BULK: usize = if cfg!(debug_assertions) { 8 << 20 } else { 32 << 20 };

fn loopback() -> Builder {
    Runtime::builder().host_loopback(true)
}

fn limits(change: impl FnOnce(&mut Limits)) -> Builder {
    let mut limits = Limits::default();
    change(&mut limits);
    loopback().limits(limits)
}

fn guest() -> (Runtime, Guest) {
    let (runtime, wire) = start(loopback());
    (runtime, Guest::new(wire))
}

fn raw() -> (Runtime, Raw) {
    let (runtime, wire) = start(loopback());
    (runtime, Raw::new(wire))
}

/// A connection: the gateway, the guest and its socket, and the host's end.
fn pair(server: &Server) -> (Runtime, Guest, smoltcp::iface::SocketHandle, TcpStream) {
    let (runtime, mut guest) = guest();
    let handle = guest.connect(server.address);
    (runtime, guest, handle, server.accept())
}

// --- Urgent data -------------------------------------------------------------------------------

#[test]
fn rfc_6093_urgent_data_of_the_host_are_bytes_of_the_stream() {
    let server = Server::new();
    let (_runtime, mut guest, handle, stream) = pair(&server);
    let stream = socket2::Socket::from(stream);
    for _ in 0..100 {
        // A receive stops at the mark, and nothing that comes later tells of what lies behind it.
        stream.send(b"before").unwrap();
        stream.send_with_flags(b"!", libc::MSG_OOB).unwrap();
        stream.send(b"behind").unwrap();
        assert_eq!(guest.read_exact(handle, 13), b"before!behind");
    }
}

// --- Opening -----------------------------------------------------------------------------------

#[test]
fn no_syn_ack_before_the_host_has_accepted() {
    let host = Unanswering::new();
    let (runtime, mut raw) = raw();
    raw.send(Segment::new(5000, host.address, SYN));
    assert_eq!(raw.barrier(), [], "nothing is known of the connection yet");
    let stats = runtime.stats();
    assert_eq!((stats.tcp_half_open, stats.tcp_established), (1, 0));
    let _stream = host.accept();
    let answer = raw.expect("answer", |_| true);
    assert!(answer.is(SYN | ACK), "{answer:?}");
    raw.send(Segment::new(5000, host.address, ACK).at(1001, answer.end()));
    raw.until("an open flow", &runtime, |stats| stats.tcp_half_open == 0);
    assert_eq!(runtime.stats().tcp_established, 1);
}

#[test]
fn a_refused_connection_is_reset_and_never_acknowledged() {
    let closed = { Server::new().address };
    let (runtime, mut raw) = raw();
    for from in 5000..5010 {
        raw.send(Segment::new(from, closed, SYN).at(77, 0));
        let answer = raw.expect_flags(RST | ACK);
        assert_eq!((answer.sequence, answer.acknowledges), (0, 78));
        assert_eq!((answer.from, answer.to_port), (closed, from));
    }
    let stats = runtime.stats();
    assert_eq!(stats.dropped(DropReason::HostRefused), 10);
    assert_eq!((stats.tcp_flows, stats.tcp_half_open, stats.tcp_established), (0, 0, 0));
}

#[test]
fn the_guest_s_tcp_sees_a_refusal_at_once() {
    let closed = { Server::new().address };
    let (_runtime, mut guest) = guest();
    let handle = guest.dial(closed);
    guest.until("the refusal", |guest| guest.state(handle) == State::Closed);
}

#[test]
fn a_connection_that_times_out_is_unreachable() {
    let host = Unanswering::new();
    let (runtime, wire) = start(limits(|limits| limits.tcp_connect = Duration::from_millis(200)));
    let mut raw = Raw::new(wire);
    raw.send(Segment::new(5000, host.address, SYN));
    let answer = raw.receive(Duration::from_secs(10));
    assert_eq!(answer, Some(Seen::Icmp(3, 1)), "host unreachable");
    let stats = runtime.stats();
    assert_eq!(stats.dropped(DropReason::HostTimedOut), 1);
    assert_eq!((stats.tcp_flows, stats.tcp_half_open), (0, 0));
}

#[test]
fn repeated_syns_make_one_host_connection() {
    let server = Server::new();
    let (runtime, mut raw) = raw();
    let syn = Segment::new(5000, server.address, SYN).frame();
    raw.wire.send_all(&[&syn, &syn, &syn, &syn]);
    let answer = raw.expect_flags(SYN | ACK);
    raw.wire.send_all(&[&syn, &syn]);
    raw.send(Segment::new(5000, server.address, ACK).at(1001, answer.end()));
    raw.barrier();
    let _one = server.accept();
    assert!(!server.is_asked(), "a second host connection");
    assert_eq!(runtime.stats().tcp_opened, 1);
}

#[test]
fn a_syn_with_a_new_number_replaces_the_one_that_waits() {
    let host = Unanswering::new();
    let (runtime, mut raw) = raw();
    raw.send(Segment::new(5000, host.address, SYN).at(1000, 0));
    raw.send(Segment::new(5000, host.address, SYN).at(9000, 0));
    assert_eq!(raw.barrier(), []);
    let _stream = host.accept();
    let answer = raw.expect_flags(SYN | ACK);
    assert_eq!(answer.acknowledges, 9001);
    assert_eq!(runtime.stats().tcp_opened, 1);
}

#[test]
fn a_reset_ends_a_connection_that_waits() {
    let host = Unanswering::new();
    let (runtime, mut raw) = raw();
    raw.send(Segment::new(5000, host.address, SYN));
    raw.send(Segment::new(5000, host.address, RST).at(1001, 0));
    assert_eq!(raw.barrier(), []);
    let stats = runtime.stats();
    assert_eq!((stats.tcp_flows, stats.tcp_half_open, stats.tcp_opened), (0, 0, 1));
}

#[test]
fn a_host_connection_that_the_guest_gave_up_is_reset() {
    // The host has accepted by itself (its backlog), the guest's RST comes before its handshake ends:
    // the server must not see an empty stream that ends well.
    let server = Server::new();
    let (_runtime, mut raw) = raw();
    for from in 5000..5020 {
        let syn = Segment::new(from, server.address, SYN).frame();
        let rst = Segment::new(from, server.address, RST).at(1001, 0).frame();
        raw.wire.send_all(&[&syn, &rst]);
        raw.barrier();
        let mut stream = server.accept();
        let error = stream.read(&mut [0; 1]).expect_err("a stream that ends well");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_reset_after_the_syn_ack_resets_the_host() {
    let server = Server::new();
    let (runtime, mut raw) = raw();
    raw.send(Segment::new(5000, server.address, SYN));
    raw.expect_flags(SYN | ACK);
    raw.send(Segment::new(5000, server.address, RST).at(1001, 0));
    raw.until("the end", &runtime, |stats| stats.tcp_flows == 0);
    let error = server.accept().read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(runtime.stats().tcp_half_open, 0);
}

#[test]
fn a_port_can_be_used_again_right_after_a_reset() {
    let server = Server::new();
    let (_runtime, mut raw) = raw();
    let (ours, _) = raw.open(5000, server.address);
    let rst = Segment::new(5000, server.address, RST).at(ours, 0).frame();
    let syn = Segment::new(5000, server.address, SYN).at(50_000, 0).frame();
    raw.wire.send_all(&[&rst, &syn]);
    let answer = raw.expect("answer", |heard| heard.flags & (SYN | RST) != 0);
    assert!(answer.is(SYN | ACK), "{answer:?}");
    assert_eq!(answer.acknowledges, 50_001);
}

#[test]
fn the_gateway_refuses_without_host_loopback() {
    let server = Server::new();
    let (runtime, wire) = start(Runtime::builder());
    let mut raw = Raw::new(wire);
    raw.send(Segment::new(5000, server.address, SYN));
    raw.expect_flags(RST | ACK);
    let ipv6 = Server::ipv6();
    raw.send(Segment::new(5001, ipv6.address, SYN));
    raw.expect_flags(RST | ACK);
    assert_eq!(runtime.stats().dropped(DropReason::Policy), 2);
    assert!(!server.is_asked() && !ipv6.is_asked());
}

#[test]
fn metadata_is_prohibited_and_loopback_is_silent() {
    let (runtime, mut raw) = raw();
    raw.send(Segment::new(5000, "169.254.169.254:80".parse().unwrap(), SYN));
    assert_eq!(raw.receive(Duration::from_secs(5)), Some(Seen::Icmp(3, 13)));
    raw.send(Segment::new(5000, "[fd00:ec2::254]:80".parse().unwrap(), SYN));
    assert_eq!(raw.receive(Duration::from_secs(5)), Some(Seen::Icmp(1, 1)));
    raw.send(Segment::new(5000, "127.0.0.1:80".parse().unwrap(), SYN));
    assert_eq!(raw.barrier(), []);
    let stats = runtime.stats();
    assert_eq!(stats.dropped(DropReason::Policy), 2);
    assert_eq!(stats.dropped(DropReason::DestinationAddress), 1);
}

#[test]
fn segments_of_no_flow_are_reset() {
    let (runtime, mut raw) = raw();
    let to = gateway(80);
    raw.send(Segment::new(5000, to, ACK).at(7, 4242));
    let answer = raw.expect_flags(RST);
    assert_eq!(answer.sequence, 4242);
    raw.send(Segment::new(5000, to, ACK | FIN | PSH).at(7, 99).with(b"lost"));
    assert_eq!(raw.expect_flags(RST).sequence, 99);
    raw.send(Segment::new(5000, to, SYN | ACK).at(7, 3));
    assert_eq!(raw.expect_flags(RST).sequence, 3);
    raw.send(Segment::new(5000, to, RST).at(7, 3));
    assert_eq!(raw.barrier(), [], "no reset answers a reset");
    assert_eq!(runtime.stats().dropped(DropReason::NoFlow), 4);
}

// --- Limits ------------------------------------------------------------------------------------

#[test]
fn the_flow_limit_refuses_the_new_and_keeps_the_old() {
    let server = Server::new();
    let (runtime, wire) = start(limits(|limits| {
        limits.tcp_flows = 4;
        limits.tcp_half_open = 4;
    }));
    let mut raw = Raw::new(wire);
    let flows: Vec<_> = (5000..5004)
        .map(|from| {
            let (ours, theirs) = raw.open(from, server.address);
            (from, ours, theirs, server.accept())
        })
        .collect();
    for from in 6000..6003 {
        raw.send(Segment::new(from, server.address, SYN));
        let answer = raw.expect("answer", |heard| heard.to_port == from);
        assert!(answer.is(RST | ACK), "{answer:?}");
    }
    assert_eq!(runtime.stats().dropped(DropReason::FlowLimit), 3);
    assert_eq!(runtime.stats().tcp_flows, 4);
    for (from, ours, theirs, mut stream) in flows {
        raw.send(Segment::new(from, server.address, ACK | PSH).at(ours, theirs).with(b"ping"));
        let mut got = [0; 4];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"ping");
        stream.write_all(b"pong").unwrap();
        let answer = raw.expect("data", |heard| heard.to_port == from && !heard.payload.is_empty());
        assert_eq!(answer.payload, b"pong");
        drop(stream);
    }
    assert!(!server.is_asked(), "a refused flow reached the host");
}

#[test]
fn the_half_open_limit_counts_connections_under_way_and_handshakes() {
    let host = Unanswering::new();
    let server = Server::new();
    let (runtime, wire) = start(limits(|limits| limits.tcp_half_open = 2));
    let mut raw = Raw::new(wire);
    raw.send(Segment::new(5000, host.address, SYN)); // the host does not answer
    raw.send(Segment::new(5001, server.address, SYN)); // the guest will not
    let answer = raw.expect("SYN-ACK", |heard| heard.is(SYN | ACK));
    assert_eq!(answer.to_port, 5001);
    raw.send(Segment::new(5002, server.address, SYN));
    let refused = raw.expect("answer", |heard| heard.to_port == 5002);
    assert!(refused.is(RST | ACK), "{refused:?}");
    assert_eq!(runtime.stats().dropped(DropReason::HalfOpenLimit), 1);
    // A handshake that ends makes room.
    raw.send(Segment::new(5001, server.address, ACK).at(1001, answer.end()));
    raw.until("room", &runtime, |stats| stats.tcp_half_open == 1);
    raw.open(5003, server.address);
}

#[test]
fn flows_in_time_wait_give_way_when_the_table_is_full() {
    let server = Server::new();
    let (runtime, wire) = start(limits(|limits| {
        limits.tcp_flows = 2;
        limits.tcp_half_open = 2;
    }));
    let mut raw = Raw::new(wire);
    for from in 5000..5020 {
        let (ours, theirs) = raw.open(from, server.address);
        drop(server.accept());
        close_after_host(&mut raw, from, server.address, ours, theirs);
        raw.until("TIME-WAIT or nothing", &runtime, |stats| stats.tcp_flows <= 2);
    }
    assert_eq!(runtime.stats().dropped(DropReason::FlowLimit), 0);
    assert_eq!(runtime.stats().tcp_opened, 20);
}

/// The host has closed: acknowledges its FIN and sends ours. The flow is in TIME-WAIT then.
fn close_after_host(
    raw: &mut Raw,
    from: u16,
    to: std::net::SocketAddr,
    ours: u32,
    theirs: u32,
) -> (u32, u32) {
    let fin = raw.expect("FIN", |heard| heard.to_port == from && heard.flags & FIN != 0);
    assert_eq!(fin.end(), theirs.wrapping_add(1));
    raw.send(Segment::new(from, to, FIN | ACK).at(ours, fin.end()));
    raw.expect("ACK", |heard| heard.to_port == from && heard.acknowledges == ours + 1);
    (ours + 1, fin.end())
}

#[test]
fn a_new_syn_ends_time_wait() {
    let server = Server::new();
    let (runtime, mut raw) = raw();
    let (ours, theirs) = raw.open(5000, server.address);
    drop(server.accept());
    close_after_host(&mut raw, 5000, server.address, ours, theirs);
    raw.barrier();
    assert_eq!(runtime.stats().tcp_flows, 1, "in TIME-WAIT");
    raw.send(Segment::new(5000, server.address, SYN).at(90_000, 0));
    let answer = raw.expect("answer", |heard| heard.flags & (SYN | RST) != 0);
    assert!(answer.is(SYN | ACK), "{answer:?}");
    raw.send(Segment::new(5000, server.address, ACK | PSH).at(90_001, answer.end()).with(b"again"));
    let mut got = [0; 5];
    server.accept().read_exact(&mut got).unwrap();
    assert_eq!(&got, b"again");
    assert_eq!(runtime.stats().tcp_flows, 1);
}

#[test]
fn endless_limits_are_limits() {
    // How an embedder says "never".
    let server = Server::new();
    let builder = limits(|limits| {
        limits.tcp_idle = Duration::MAX;
        limits.tcp_transitory = Duration::MAX;
        limits.tcp_connect = Duration::MAX;
    });
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let Ok(runtime) = builder.start(theirs) else { return };
    let mut guest = Guest::new(support_guest::wire::Wire::stream(ours));
    let handle = guest.connect(server.address);
    guest.send(handle, b"alive");
    let mut got = [0; 5];
    server.accept().read_exact(&mut got).unwrap();
    assert!(runtime.stop_reason().is_none(), "{:?}", runtime.stop_reason());
}

// --- Closing -----------------------------------------------------------------------------------

#[test]
fn the_guest_closes_first_and_data_follow_from_the_host() {
    let server = Server::new();
    let (runtime, mut guest, handle, mut stream) = pair(&server);
    guest.send(handle, b"request");
    guest.finish(handle);
    let host = thread::spawn(move || {
        assert_eq!(read_all(&mut stream), b"request");
        stream.write_all(&pattern(1 << 20)).unwrap();
    });
    let (answer, clean) = guest.read_to_end(handle);
    assert!(clean);
    assert_same(&answer, &pattern(1 << 20));
    host.join().unwrap();
    guest.until("the slot is reaped", |_| runtime.stats().tcp_flows == 0);
    assert_eq!(runtime.stats().tcp_reset, 0);
}

#[test]
fn the_host_closes_first_and_data_follow_from_the_guest() {
    let server = Server::new();
    let (runtime, mut guest, handle, mut stream) = pair(&server);
    stream.write_all(b"banner").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.read_to_end(handle), (b"banner".to_vec(), true));
    let host = thread::spawn(move || read_all(&mut stream));
    guest.send(handle, &pattern(1 << 20));
    guest.finish(handle);
    guest.until("the guest's end", |guest| guest.state(handle) == State::Closed);
    assert_same(&host.join().unwrap(), &pattern(1 << 20));
    assert_eq!(runtime.stats().tcp_reset, 0);
}

#[test]
fn an_empty_stream_ends_well_in_both_directions() {
    let server = Server::new();
    let (runtime, mut guest, handle, mut stream) = pair(&server);
    stream.shutdown(Shutdown::Write).unwrap();
    guest.finish(handle);
    assert_eq!(guest.read_to_end(handle), (vec![], true));
    assert_eq!(read_all(&mut stream), b"");
    assert_eq!(runtime.stats().tcp_reset, 0);
}

/// A gateway with large windows, and a connection to a host with small ones.
fn wide() -> (Runtime, Guest, smoltcp::iface::SocketHandle, TcpStream, Server) {
    wide_with(|_| ())
}

fn wide_with(
    change: impl FnOnce(&mut Limits),
) -> (Runtime, Guest, smoltcp::iface::SocketHandle, TcpStream, Server) {
    // It takes seconds, in which no flow is to be silent.
    LazyLock::force(&STREAM);
    let server = Server::small(64 << 10);
    let (runtime, wire) = start(limits(|limits| {
        limits.tcp_window = 4 << 20;
        limits.tcp_flows = 1;
        limits.tcp_half_open = 1;
        change(limits);
    }));
    let mut guest = Guest::new(wire);
    let handle = guest.connect(server.address);
    let stream = server.accept();
    (runtime, guest, handle, stream, server)
}

/// More than the windows of a flow and the buffers of its host take.
static STREAM: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(64 << 20));

/// A flow whose guest has sent all it has and its FIN, while much of it lies in the gateway: the
/// host's buffers are full and its reader sleeps. Returns the stream's length and what was read of it.
fn held_back(
    guest: &mut Guest,
    handle: smoltcp::iface::SocketHandle,
    stream: &mut TcpStream,
    runtime: &Runtime,
) -> (usize, Vec<u8>) {
    // No pause tells a full flow from a busy machine; what lies in the gateway does.
    let mut sent = 0;
    guest.until("a full window in the gateway", |guest| {
        sent += guest.socket(handle).send_slice(&STREAM[sent..]).unwrap();
        assert!(sent < STREAM.len(), "the flow takes everything");
        let acknowledged = sent - guest.socket(handle).send_queue();
        acknowledged as u64 >= runtime.stats().tcp_bytes_to_host + (3 << 20)
    });
    // Room for what the guest itself still holds. Its FIN comes after that: in LAST-ACK smoltcp, which
    // this guest is, ignores window updates.
    let mut read = Vec::new();
    stream.set_nonblocking(true).unwrap();
    while guest.socket(handle).send_queue() > 0 {
        let mut block = vec![0; 16 << 10];
        let n = stream.read(&mut block).unwrap_or_default();
        read.extend_from_slice(&block[..n]);
        guest.live(Duration::from_millis(1));
    }
    stream.set_nonblocking(false).unwrap();
    guest.finish(handle);
    let held = sent as u64 - runtime.stats().tcp_bytes_to_host;
    let read_so_far = read.len();
    say(format!("{sent} bytes sent, {held} of them in the gateway, {read_so_far} read"));
    assert!(held > 200_000, "only {held} bytes lie in the gateway");
    (sent, read)
}

#[test]
fn data_that_wait_for_the_host_survive_both_ends_closing_the_guest_first() {
    // The guest has sent everything and its FIN; then the host ends its own direction, and reads late.
    let (runtime, mut guest, handle, mut stream, _server) = wide();
    let (sent, mut got) = held_back(&mut guest, handle, &mut stream, &runtime);
    guest.until("FIN-WAIT-2", |guest| guest.state(handle) == State::FinWait2);
    stream.shutdown(Shutdown::Write).unwrap();
    guest.until("TIME-WAIT", |guest| guest.state(handle) == State::TimeWait);
    guest.live(Duration::from_millis(20));
    stream.read_to_end(&mut got).unwrap();
    assert_same(&got, &STREAM[..sent]);
}

#[test]
fn data_that_wait_for_the_host_survive_time_wait() {
    // The host has ended its direction; the guest sends everything and its FIN. The host reads when
    // TIME-WAIT (10 s in smoltcp) is over.
    let (runtime, mut guest, handle, mut stream, _server) = wide();
    stream.shutdown(Shutdown::Write).unwrap();
    guest.read_to_end(handle);
    let (sent, mut got) = held_back(&mut guest, handle, &mut stream, &runtime);
    guest.until("the guest's end", |guest| guest.state(handle) == State::Closed);
    guest.live(Duration::from_secs(11));
    stream.read_to_end(&mut got).unwrap();
    assert_same(&got, &STREAM[..sent]);
}

#[test]
fn a_host_that_never_reads_does_not_hold_a_closed_flow_for_ever() {
    // Longer than a busy machine may take to fill the gateway without a pause.
    let (runtime, mut guest, handle, mut stream, _server) = wide_with(|limits| {
        limits.tcp_idle = Duration::from_secs(5);
        limits.tcp_transitory = Duration::from_secs(5);
    });
    // Should the poll loop hang, the test fails instead of hanging with it.
    let runtime = ManuallyDrop::new(runtime);
    stream.shutdown(Shutdown::Write).unwrap();
    guest.read_to_end(handle);
    held_back(&mut guest, handle, &mut stream, &runtime);
    guest.until("the guest's end", |guest| guest.state(handle) == State::Closed);
    guest.until("the flow's end", |_| runtime.stats().tcp_flows == 0);
    let turns = runtime.stats().turns;
    guest.live(Duration::from_millis(300));
    assert!(runtime.stats().turns < turns + 100, "the poll loop spins");
    ManuallyDrop::into_inner(runtime).shutdown();
}

#[test]
fn a_new_syn_does_not_cut_off_data_that_wait_for_the_host() {
    let (runtime, mut guest, handle, mut stream, server) = wide();
    let from = guest.socket(handle).local_endpoint().unwrap().port;
    stream.shutdown(Shutdown::Write).unwrap();
    guest.read_to_end(handle);
    let (sent, mut got) = held_back(&mut guest, handle, &mut stream, &runtime);
    guest.until("the guest's end", |guest| guest.state(handle) == State::Closed);
    let syn = Segment::new(from, server.address, SYN).at(123_456, 0).frame();
    guest.device.wire.send(&syn);
    guest.live(Duration::from_millis(50));
    match stream.read_to_end(&mut got) {
        Ok(_) => assert_same(&got, &STREAM[..sent]),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "cut off, and it shows"),
    }
}

#[test]
fn a_full_table_does_not_cut_off_data_that_wait_for_the_host() {
    let (runtime, mut guest, handle, mut stream, server) = wide();
    stream.shutdown(Shutdown::Write).unwrap();
    guest.read_to_end(handle);
    let (sent, mut got) = held_back(&mut guest, handle, &mut stream, &runtime);
    guest.until("the guest's end", |guest| guest.state(handle) == State::Closed);
    let other = guest.dial(server.address);
    guest.until("an answer", |guest| guest.state(other) != State::SynSent);
    match stream.read_to_end(&mut got) {
        Ok(_) => assert_same(&got, &STREAM[..sent]),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "cut off, and it shows"),
    }
}

// --- Resets ------------------------------------------------------------------------------------

#[test]
fn a_host_reset_reaches_the_guest_after_all_data() {
    for len in [0, 1, 100_000, 700_000] {
        let server = Server::new();
        let (runtime, mut guest, handle, mut stream) = pair(&server);
        let host = thread::spawn(move || {
            stream.write_all(&pattern(len)).unwrap();
            // The kernel drops what the peer has not taken when it resets.
            wait_until_sent(&stream);
            reset(stream);
        });
        let (bytes, clean) = guest.read_to_end(handle);
        host.join().unwrap();
        assert!(!clean, "a reset became a clean end after {len} bytes");
        assert_same(&bytes, &pattern(len));
        assert_eq!(runtime.stats().tcp_reset, 1);
        guest.until("the slot is reaped", |_| runtime.stats().tcp_flows == 0);
    }
}

/// Until the peer's kernel has everything.
fn wait_until_sent(stream: &TcpStream) {
    use std::os::fd::AsRawFd;
    let end = Instant::now() + Duration::from_secs(10);
    let inode = std::fs::read_link(format!("/proc/self/fd/{}", stream.as_raw_fd())).unwrap();
    let inode = inode.to_string_lossy().trim_matches(|c: char| !c.is_ascii_digit()).to_owned();
    while Instant::now() < end {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = table.lines().find(|line| line.split_whitespace().nth(9) == Some(&inode));
        let queue = line.and_then(|line| line.split_whitespace().nth(4)).unwrap();
        if queue.starts_with("00000000") {
            return;
        }
        thread::yield_now();
    }
    panic!("the peer does not take it");
}

#[test]
fn a_host_reset_is_no_clean_end_for_a_guest_that_sends() {
    // The gateway learns of this reset by sending, which takes the error from the socket.
    for round in 0..20 {
        let server = Server::new();
        let (_runtime, mut guest, handle, mut stream) = pair(&server);
        stream.write_all(&pattern(300_000)).unwrap();
        wait_until_sent(&stream);
        guest.send(handle, &pattern(50_000 + round));
        guest.poll();
        reset(stream);
        let mut clean = false;
        let mut got = Vec::new();
        guest.until("the reset", |guest| {
            let socket = guest.socket(handle);
            let _ = socket.send_slice(&[0; 1000]);
            let end = socket.recv(|bytes| {
                got.extend_from_slice(bytes);
                (bytes.len(), ())
            });
            clean |= end == Err(smoltcp::socket::tcp::RecvError::Finished);
            clean || end.is_err()
        });
        assert!(!clean, "round {round}: a reset became a clean end");
        assert_same(&got, &pattern(300_000));
    }
}

#[test]
fn a_host_that_closed_and_then_resets_resets_the_guest() {
    let server = Server::new();
    let (_runtime, mut guest, handle, stream) = pair(&server);
    drop(stream); // FIN; whatever comes now is answered with RST
    assert_eq!(guest.read_to_end(handle), (vec![], true));
    assert_eq!(guest.state(handle), State::CloseWait);
    guest.send(handle, b"nobody reads this");
    guest.until("the reset", |guest| guest.state(handle) == State::Closed);
}

#[test]
fn a_guest_reset_reaches_the_host() {
    let server = Server::new();
    let (runtime, mut guest, handle, mut stream) = pair(&server);
    guest.send(handle, b"before");
    let mut got = [0; 6];
    stream.read_exact(&mut got).unwrap();
    guest.socket(handle).abort();
    guest.poll();
    let error = stream.read(&mut [0; 1]).expect_err("a clean end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    guest.until("the slot is reaped", |_| runtime.stats().tcp_flows == 0);
    assert_eq!(runtime.stats().tcp_reset, 1);
}

#[test]
fn shutdown_resets_what_is_not_complete() {
    let server = Server::new();
    let (runtime, mut guest, handle, mut open) = pair(&server);
    guest.send(handle, b"half a");
    let mut got = [0; 6];
    open.read_exact(&mut got).unwrap();
    let half = guest.connect(server.address);
    let mut half_closed = server.accept();
    guest.send(half, b"whole");
    guest.finish(half);
    assert_eq!(read_all(&mut half_closed), b"whole");
    runtime.shutdown();
    let error = open.read(&mut [0; 1]).expect_err("a clean end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn shutdown_resets_a_host_connection_whose_handshake_the_guest_has_not_ended() {
    let server = Server::new();
    let (runtime, mut raw) = raw();
    raw.send(Segment::new(5000, server.address, SYN));
    raw.expect_flags(SYN | ACK);
    let mut stream = server.accept();
    runtime.shutdown();
    let error = stream.read(&mut [0; 1]).expect_err("a clean end");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn silent_flows_are_reset_at_both_ends() {
    let server = Server::new();
    let (runtime, wire) = start(limits(|limits| {
        limits.tcp_idle = Duration::from_millis(1500);
        limits.tcp_transitory = Duration::from_millis(1000);
    }));
    let mut guest = Guest::new(wire);
    let idle = guest.connect(server.address);
    let mut stream = server.accept();
    guest.until("the idle flow's end", |guest| guest.state(idle) == State::Closed);
    assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let half = guest.connect(server.address);
    let mut stream = server.accept();
    guest.finish(half);
    assert_eq!(read_all(&mut stream), b"");
    guest.until("the half-closed flow's end", |guest| guest.state(half) == State::Closed);
    assert_eq!(runtime.stats().tcp_flows, 0);
    drop(stream);
}

#[test]
fn a_handshake_that_is_not_finished_ends_with_the_transitory_time_out() {
    // RFC 5382 REQ-5: a partially open connection.
    let server = Server::new();
    let (runtime, wire) = start(limits(|limits| {
        limits.tcp_transitory = Duration::from_millis(300);
    }));
    let mut raw = Raw::new(wire);
    let (sequence, acknowledges) = raw.open(5000, server.address);
    let mut established = server.accept();
    raw.send(Segment::new(5001, server.address, SYN));
    raw.expect("SYN-ACK", |heard| heard.to_port == 5001 && heard.is(SYN | ACK));
    let mut half_open = server.accept();
    raw.until("its end", &runtime, |stats| stats.tcp_closed == 1);
    assert_eq!(half_open.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    // The one that is established has the idle time-out, and is longer silent by now.
    let stats = runtime.stats();
    assert_eq!((stats.tcp_flows, stats.tcp_half_open, stats.tcp_reset), (1, 0, 1));
    let data = Segment::new(5000, server.address, ACK | PSH).at(sequence, acknowledges);
    raw.send(data.with(b"still here"));
    let mut got = [0; 10];
    established.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"still here");
}

#[test]
fn a_flow_that_both_ends_have_closed_ends_with_the_transitory_time_out() {
    // RFC 5382 REQ-5: a connection in its closing handshake, of which the last ACK never comes.
    let server = Server::new();
    let (runtime, wire) = start(limits(|limits| {
        limits.tcp_transitory = Duration::from_millis(300);
    }));
    let mut raw = Raw::new(wire);
    let (sequence, acknowledges) = raw.open(5000, server.address);
    let mut stream = server.accept();
    raw.send(Segment::new(5000, server.address, FIN | ACK).at(sequence, acknowledges));
    assert_eq!(read_all(&mut stream), b"");
    // Half closed is established yet: it stays.
    raw.barrier();
    assert_eq!(runtime.stats().tcp_flows, 1);
    drop(stream);
    raw.expect("the host's FIN", |heard| heard.is(FIN | ACK));
    raw.until("its end", &runtime, |stats| stats.tcp_flows == 0);
    assert_eq!(runtime.stats().tcp_closed, 1);
}

#[test]
fn a_guest_that_ignores_the_window_after_its_handshake_gains_nothing() {
    // More than the window before the gateway has said another word than its SYN-ACK.
    for begin in [start, start_with_queues] {
        let server = Server::new();
        let (runtime, wire) = begin(loopback());
        let mut raw = Raw::new(wire);
        let (sequence, acknowledges) = raw.open(5000, server.address);
        let mut stream = server.accept();
        raw.barrier();
        let bytes = pattern(30 * 60_000);
        let frames: Vec<Vec<u8>> = (0_u32..)
            .zip(bytes.chunks(60_000))
            .map(|(n, chunk)| {
                let at = sequence + n * 60_000;
                Segment::new(5000, server.address, ACK).at(at, acknowledges).with(chunk).frame()
            })
            .collect();
        raw.wire.send_all(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let mut got = vec![0; 60_000];
        stream.read_exact(&mut got).unwrap();
        raw.barrier();
        assert!(runtime.stop_reason().is_none(), "{:?}", runtime.stop_reason());
        stream.set_nonblocking(true).unwrap();
        while let Ok(1..) = stream.read(&mut vec![0; 1 << 16]).inspect(|n| {
            got.resize(got.len() + n, 0);
        }) {}
        assert!(got.len() <= bytes.len());
    }
}

// --- Bulk --------------------------------------------------------------------------------------

fn host_sends(mut stream: TcpStream, len: usize) -> thread::JoinHandle<TcpStream> {
    thread::spawn(move || {
        stream.write_all(&pattern(len)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream
    })
}

fn bulk_both_ways(server: &Server, mut guest: Guest) -> Guest {
    let handle = guest.connect(server.address);
    let stream = server.accept();
    let mut reader = stream.try_clone().unwrap();
    let sender = host_sends(stream, BULK);
    let receiver = thread::spawn(move || read_all(&mut reader));
    let started = Instant::now();
    let (got, clean) = guest.exchange(handle, &pattern(BULK));
    assert!(clean);
    assert_same(&got, &pattern(BULK));
    assert_same(&receiver.join().unwrap(), &pattern(BULK));
    sender.join().unwrap();
    say(format!("{} MiB each way at once in {:?}", BULK >> 20, started.elapsed()));
    guest
}

#[test]
fn bulk_to_the_guest_is_exact() {
    let server = Server::new();
    let (runtime, mut guest, handle, stream) = pair(&server);
    let host = host_sends(stream, BULK);
    let (got, clean) = guest.read_to_end(handle);
    assert!(clean);
    assert_same(&got, &pattern(BULK));
    host.join().unwrap();
    assert!(guest.device.largest <= 1514);
    assert_eq!(runtime.stats().tcp_bytes_to_guest, BULK as u64);
}

#[test]
fn bulk_to_the_host_is_exact() {
    let server = Server::new();
    let (runtime, mut guest, handle, mut stream) = pair(&server);
    let host = thread::spawn(move || read_all(&mut stream));
    guest.send(handle, &pattern(BULK));
    guest.finish(handle);
    guest.until("the acknowledgement", |guest| {
        guest.state(handle) == State::FinWait2 || guest.state(handle) == State::TimeWait
    });
    assert_same(&host.join().unwrap(), &pattern(BULK));
    assert_eq!(runtime.stats().tcp_bytes_to_host, BULK as u64);
}

#[test]
fn bulk_both_ways_at_once_is_exact() {
    let (_runtime, guest) = guest();
    bulk_both_ways(&Server::new(), guest);
}

#[test]
fn bulk_over_ipv6_is_exact() {
    let (_runtime, guest) = guest();
    bulk_both_ways(&Server::ipv6(), guest);
}

#[test]
fn bulk_over_the_queues_alone_is_exact_and_every_frame_fits() {
    let (_runtime, wire) = start_with_queues(loopback());
    let guest = bulk_both_ways(&Server::new(), Guest::new(wire));
    assert!(guest.device.largest <= 1514);
}

#[test]
fn bulk_with_the_smallest_mtu_and_the_largest() {
    for (mtu, offload) in [(1280, framegate::Offload::None), (65_520, framegate::Offload::Jumbo)] {
        let builder = loopback().mtu(mtu).offload(offload);
        let (_runtime, wire) = start(builder);
        let guest = Guest::with_mtu(wire, usize::from(mtu));
        let guest = bulk_both_ways(&Server::new(), guest);
        assert!(guest.device.largest <= usize::from(mtu) + 14);
    }
}

#[test]
fn bulk_without_memory_for_windows_is_exact() {
    let (runtime, wire) = start(limits(|limits| limits.tcp_memory = 0));
    bulk_both_ways(&Server::new(), Guest::new(wire));
    drop(runtime);
}

#[test]
fn a_host_that_stops_reading_gets_everything_without_memory_for_windows() {
    let (runtime, mut guest, handle, mut stream, _server) =
        wide_with(|limits| limits.tcp_memory = 0);
    let mut sent = 0;
    guest.until("a refusal", |guest| {
        sent += guest.socket(handle).send_slice(&STREAM[sent..]).unwrap();
        runtime.stats().dropped(DropReason::WindowMemory) > 0
    });
    let host = thread::spawn(move || read_all(&mut stream));
    guest.finish(handle);
    guest.until("the acknowledgement", |guest| {
        matches!(guest.state(handle), State::FinWait2 | State::TimeWait)
    });
    assert_same(&host.join().unwrap(), &STREAM[..sent]);
}

#[test]
fn a_guest_that_stops_reading_stops_the_host_and_loses_nothing() {
    let server = Server::new();
    let (runtime, mut guest, handle, mut stream) = pair(&server);
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let bytes = pattern(64 << 20);
    // The guest's TCP goes on, its reader does not: the window closes.
    let (tell, told) = mpsc::channel();
    let host = thread::spawn(move || {
        let mut sent = 0;
        let error = loop {
            match stream.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "the host is held back");
        tell.send(sent).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(&pattern(1 << 20)).unwrap();
        sent
    });
    let mut held = 0;
    guest.until("the host to block", |_| match told.try_recv() {
        Ok(sent) => {
            held = sent;
            true
        }
        Err(_) => false,
    });
    let in_gateway = runtime.stats().tcp_bytes_to_guest;
    assert!(in_gateway <= (256 << 10) + (1 << 20), "{in_gateway} bytes taken for a closed window");
    say(format!("{held} bytes went before the host blocked, {in_gateway} into the gateway"));
    let got = guest.read_exact(handle, held);
    assert_same(&got, &pattern(64 << 20)[..held]);
    let rest = guest.read_exact(handle, 1 << 20);
    assert_same(&rest, &pattern(1 << 20));
    assert_eq!(host.join().unwrap(), held);
}

/// More than the sockets, the windows, the queue and the stream hold together.
const UNREAD: usize = 32 << 20;

#[test]
fn a_guest_that_leaves_its_frames_unread_loses_nothing() {
    // The link itself stands still: the writer's end of the stream is full.
    let server = Server::new();
    let (runtime, mut guest, handle, mut stream) = pair(&server);
    let (tell, told) = mpsc::channel();
    let host = thread::spawn(move || {
        stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let bytes = pattern(UNREAD);
        let mut sent = 0;
        while sent < bytes.len() {
            match stream.write(&bytes[sent..]) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let _ = tell.send(());
                }
                Err(error) => panic!("{error}"),
            }
        }
        stream.shutdown(Shutdown::Write).unwrap();
        stream
    });
    told.recv().unwrap();
    let (got, clean) = guest.read_to_end(handle);
    assert!(clean);
    assert_same(&got, &pattern(UNREAD));
    assert_eq!(runtime.stats().dropped(DropReason::ReplyNoRoom), 0);
    host.join().unwrap();
}

#[test]
fn a_blocked_flow_does_not_hold_back_another() {
    let server = Server::new();
    let (_runtime, mut guest, blocked, stream) = pair(&server);
    // Neither end of this flow reads.
    stream.set_nonblocking(true).unwrap();
    let writer = stream.try_clone().unwrap();
    let full = pattern(64 << 20);
    while (&writer).write(&full).is_ok() {
        guest.live(Duration::from_millis(5));
    }
    guest.fill(blocked, &full);
    let other = guest.connect(server.address);
    let mut peer = server.accept();
    guest.send(other, b"ping");
    let mut got = [0; 4];
    peer.read_exact(&mut got).unwrap();
    peer.write_all(b"pong").unwrap();
    assert_eq!(guest.read_exact(other, 4), b"pong");
}

/// The host sends `host` and closes, after the guest has closed if `guest_first`. The guest takes 20 kB,
/// closes its window, and opens it again when all is in the gateway. The rest must come, and the end of the
/// stream; returns the size of the first segment of it.
fn reopened(guest_first: bool) -> usize {
    let server = Server::new();
    let (runtime, mut raw) = raw();
    let (mut ours, mut next) = raw.open_with(5000, server.address, &[2, 4, 0x05, 0xb4]);
    let mut stream = server.accept();
    if guest_first {
        raw.send(Segment::new(5000, server.address, FIN | ACK).at(ours, next));
        ours += 1;
        assert_eq!(read_all(&mut stream), b"");
    }
    let bytes = pattern(200_000);
    stream.write_all(&bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    let take = |raw: &mut Raw, next: &mut u32, got: &mut Vec<u8>, window: u16| {
        let heard = raw.expect("data", |heard| !heard.payload.is_empty() || heard.flags & FIN != 0);
        if heard.sequence == *next {
            *next = heard.end();
            got.extend_from_slice(&heard.payload);
        }
        let ack = Segment::new(5000, server.address, ACK).at(ours, *next);
        raw.send(Segment { window, ..ack });
        heard.flags & FIN != 0 && heard.end() == *next
    };
    while got.len() < 20_000 {
        take(&mut raw, &mut next, &mut got, 0xffff);
    }
    // What is under way comes yet; the window is closed for what comes after.
    let closed = Segment { window: 0, ..Segment::new(5000, server.address, ACK) };
    while let Some(seen) = raw.receive(Duration::from_millis(100)) {
        let Seen::Tcp(heard) = seen else { continue };
        if heard.sequence == next {
            next = heard.end();
            got.extend_from_slice(&heard.payload);
            raw.send(closed.at(ours, next));
        }
    }
    assert!(got.len() < 150_000, "the window was ignored: {} bytes", got.len());
    assert_eq!(runtime.stats().tcp_bytes_to_guest, 200_000, "all is in the gateway");
    raw.send(Segment::new(5000, server.address, ACK).at(ours, next));
    let before = got.len();
    let mut is_over = take(&mut raw, &mut next, &mut got, 0xffff);
    let first = got.len() - before;
    while !is_over {
        is_over = take(&mut raw, &mut next, &mut got, 0xffff);
    }
    assert_same(&got, &bytes);
    first
}

#[test]
fn a_window_that_opens_again_lets_the_rest_through() {
    assert!(reopened(false) > 1, "a probe of one byte did it, and not the update");
}

#[test]
fn a_window_that_opens_again_after_the_guest_s_fin_lets_the_rest_through() {
    assert!(reopened(true) > 1, "a probe of one byte did it, and not the update");
}

// --- Sizes -------------------------------------------------------------------------------------

/// What the host sends to a guest that named `options`: the sizes of the payloads.
fn payload_sizes(raw: &mut Raw, options: &[u8]) -> Vec<usize> {
    let server = Server::new();
    let (ours, theirs) = raw.open_with(5000, server.address, options);
    let stream = server.accept();
    let host = host_sends(stream, 100_000);
    let mut sizes = Vec::new();
    let mut next = theirs;
    loop {
        let heard = raw.expect("data", |heard| heard.to_port == 5000);
        if heard.payload.is_empty() && heard.flags & FIN == 0 {
            continue;
        }
        if heard.sequence == next {
            next = heard.end();
            if !heard.payload.is_empty() {
                sizes.push(heard.payload.len());
            }
        }
        raw.send(Segment::new(5000, server.address, ACK).at(ours, next));
        if heard.flags & FIN != 0 && heard.end() == next {
            break;
        }
    }
    host.join().unwrap();
    assert_eq!(sizes.iter().sum::<usize>(), 100_000);
    sizes
}

#[test]
fn the_guest_s_mss_is_respected() {
    for queues in [false, true] {
        for (options, most) in [
            (&[2, 4, 0x05, 0xb4][..], 1460),
            (&[2, 4, 0x02, 0x58], 600),
            (&[2, 4, 0x05, 0xa8], 1448),
            (&[2, 4, 0xff, 0xff], 1460),
            (&[], 536),
            (&[2, 4, 0, 0], 536),
            (&[1, 1, 1, 2, 4, 0x02, 0x58, 0], 600),
        ] {
            let (_runtime, wire) =
                if queues { start_with_queues(loopback()) } else { start(loopback()) };
            let mut raw = Raw::new(wire);
            let sizes = payload_sizes(&mut raw, options);
            let largest = sizes.into_iter().max().unwrap();
            assert!(
                largest <= most,
                "{largest} bytes for the options {options:?}, queues {queues}"
            );
            assert!(raw.largest <= 1514);
        }
    }
}

#[test]
fn two_mss_options_make_no_frame_too_large() {
    for queues in [false, true] {
        let (_runtime, wire) =
            if queues { start_with_queues(loopback()) } else { start(loopback()) };
        let mut raw = Raw::new(wire);
        payload_sizes(&mut raw, &[2, 4, 0x05, 0xb4, 2, 4, 0xff, 0xff]);
        assert!(raw.largest <= 1514, "{}", raw.largest);
    }
}

#[test]
fn a_second_syn_after_a_reset_makes_no_frame_too_large() {
    let server = Server::new();
    let (_runtime, wire) = start_with_queues(loopback());
    let mut raw = Raw::new(wire);
    raw.send(Segment::new(5000, server.address, SYN));
    raw.expect_flags(SYN | ACK);
    let rst = Segment::new(5000, server.address, RST).at(1001, 0).frame();
    let large = &[2, 4, 0xff, 0xff];
    let syn = Segment { options: large, ..Segment::new(5000, server.address, SYN).at(7000, 0) };
    raw.wire.send_all(&[&rst, &syn.frame()]);
    let answer = raw.expect("answer", |heard| heard.flags & (SYN | RST) != 0);
    if answer.is(RST | ACK) {
        return; // refused: no harm
    }
    assert_eq!(answer.acknowledges, 7001, "{answer:?}");
    raw.send(Segment::new(5000, server.address, ACK).at(7001, answer.end()));
    // Which of the two host connections lives on depends on what the gateway makes of it.
    server.listener.set_nonblocking(true).unwrap();
    let mut streams = Vec::new();
    raw.barrier();
    while let Ok((stream, _)) = server.listener.accept() {
        stream.set_nonblocking(true).unwrap();
        let _ = (&stream).write(&pattern(100_000));
        streams.push(stream);
    }
    // Every frame is checked as it comes.
    let sent: Vec<_> = streams.iter().map(|stream| stream.peer_addr()).collect();
    raw.expect(&format!("data of {sent:?}"), |heard| !heard.payload.is_empty());
    raw.barrier();
    assert!(raw.largest <= 1514);
}

#[test]
fn the_syn_ack_names_what_the_guest_s_mtu_allows() {
    let (server, ipv6) = (Server::new(), Server::ipv6());
    for mtu in [1280, 1500] {
        let (_runtime, wire) = start(loopback().mtu(mtu));
        let mut raw = Raw::new(wire);
        raw.send(Segment::new(5000, server.address, SYN));
        assert_eq!(raw.expect_flags(SYN | ACK).mss, Some(mtu - 40));
        raw.send(Segment::new(5001, ipv6.address, SYN));
        assert_eq!(raw.expect("SYN-ACK", |heard| heard.to_port == 5001).mss, Some(mtu - 60));
    }
}

// --- Slots -------------------------------------------------------------------------------------

#[test]
fn two_thousand_connections_leave_nothing_behind() {
    if !alone("two_thousand_connections_leave_nothing_behind") {
        return;
    }
    const EACH: usize = if cfg!(debug_assertions) { 250 } else { 1000 };
    let server = Server::new();
    let (runtime, wire) = start(loopback());
    let mut guest = Guest::new(wire);
    guest.buffer = 4096;
    guest.poll();
    let before = descriptors();
    for round in 0..2 * EACH {
        let handle = guest.connect(server.address);
        let mut stream = server.accept();
        guest.send(handle, b"hello");
        let mut got = [0; 5];
        stream.read_exact(&mut got).unwrap();
        stream.write_all(b"world").unwrap();
        if round % 2 == 0 {
            guest.finish(handle);
            assert_eq!(read_all(&mut stream), b"");
            drop(stream);
            assert_eq!(guest.read_to_end(handle), (b"world".to_vec(), true));
            guest.forget(handle);
        } else {
            drop(stream);
            assert_eq!(guest.read_to_end(handle), (b"world".to_vec(), true));
            guest.finish(handle);
            guest.until("the guest's end", |guest| guest.state(handle) == State::Closed);
            guest.forget(handle);
        }
    }
    // Only those that the host closed first are left, in TIME-WAIT, without a host socket.
    let most = EACH as u64 + 1;
    guest.until("the slots are reaped", |_| runtime.stats().tcp_flows <= most);
    let started = Instant::now();
    while descriptors() > before && started.elapsed() < support_guest::PATIENCE {
        guest.live(Duration::from_millis(5));
    }
    assert_eq!(descriptors(), before, "host sockets are left");
    guest.until("TIME-WAIT is over", |_| runtime.stats().tcp_flows == 0);
    let stats = runtime.stats();
    assert_eq!(stats.tcp_opened, stats.tcp_closed);
    assert_eq!((stats.tcp_half_open, stats.tcp_reset), (0, 0));
    say(format!("{} connections, {} descriptors before and after", 2 * EACH, before));
}

#[test]
fn resets_and_refusals_leave_nothing_behind() {
    if !alone("resets_and_refusals_leave_nothing_behind") {
        return;
    }
    let server = Server::new();
    let closed = { Server::new().address };
    let (runtime, wire) = start(loopback());
    let mut raw = Raw::new(wire);
    raw.barrier();
    let before = descriptors();
    for round in 0..300u16 {
        let from = 5000 + round;
        match round % 3 {
            0 => {
                raw.send(Segment::new(from, closed, SYN));
                raw.expect("RST", |heard| heard.to_port == from && heard.flags & RST != 0);
            }
            1 => {
                let (ours, theirs) = raw.open(from, server.address);
                reset(server.accept());
                raw.expect("RST", |heard| heard.to_port == from && heard.flags & RST != 0);
                let _ = (ours, theirs);
            }
            _ => {
                let (ours, _) = raw.open(from, server.address);
                let _stream = server.accept();
                raw.send(Segment::new(from, server.address, RST).at(ours, 0));
            }
        }
    }
    raw.until("the slots are reaped", &runtime, |stats| stats.tcp_flows == 0);
    assert_eq!(descriptors(), before);
}

#[test]
fn a_flood_of_hostile_flags_changes_nothing() {
    let server = Server::new();
    let (runtime, mut raw) = raw();
    let (ours, theirs) = raw.open(5000, server.address);
    let mut stream = server.accept();
    for flags in 0..=255u8 {
        // Out of the window, so that a reset or a FIN means nothing.
        let far = ours.wrapping_add(1 << 30);
        raw.send(Segment::new(5000, server.address, flags).at(far, theirs).with(b"xxxx"));
    }
    raw.barrier();
    raw.send(Segment::new(5000, server.address, ACK | PSH).at(ours, theirs).with(b"alive"));
    let mut got = [0; 5];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"alive");
    assert_eq!(runtime.stats().tcp_flows, 1);
    assert!(runtime.stats().dropped(DropReason::TcpFlags) > 0);
}

#[test]
fn urgent_data_pass_as_data() {
    let server = Server::new();
    let (_runtime, mut raw) = raw();
    let (mut ours, theirs) = raw.open(5000, server.address);
    let mut stream = server.accept();
    for pointer in [0u16, 1, 4, 5, 65_535] {
        let mut frame = Segment::new(5000, server.address, ACK | PSH | 0x20)
            .at(ours, theirs)
            .with(b"data")
            .frame();
        frame[14 + 20 + 18..14 + 20 + 20].copy_from_slice(&pointer.to_be_bytes());
        raw.wire.send(&frame);
        ours += 4;
        let mut got = [0; 4];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"data");
    }
}

#[test]
fn segments_out_of_order_and_doubled_make_one_stream() {
    let server = Server::new();
    let (_runtime, mut raw) = raw();
    let (ours, theirs) = raw.open(5000, server.address);
    let mut stream = server.accept();
    let bytes = pattern(20 * 1000);
    let piece = |n: usize| {
        Segment::new(5000, server.address, ACK)
            .at(ours + 1000 * n as u32, theirs)
            .with(&bytes[1000 * n..1000 * (n + 1)])
            .frame()
    };
    let order = [3, 1, 2, 2, 5, 0, 19, 4, 4, 18, 6, 8, 7, 10, 9, 11, 13, 12, 17, 15, 16, 14, 0, 19];
    for n in order {
        raw.wire.send(&piece(n));
    }
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).unwrap();
    assert_same(&got, &bytes);
    let last = ours + bytes.len() as u32;
    raw.expect("the acknowledgement", |heard| heard.acknowledges == last);
}

#[test]
fn a_destination_without_a_route_is_unreachable() {
    // The discard-only prefix (RFC 6666): no route, or nobody who answers.
    let (runtime, wire) = start(limits(|limits| limits.tcp_connect = Duration::from_millis(300)));
    let mut raw = Raw::new(wire);
    raw.send(Segment::new(5000, "[100::1]:80".parse().unwrap(), SYN));
    let answer = raw.receive(Duration::from_secs(10));
    assert!(matches!(answer, Some(Seen::Icmp(1, _))), "{answer:?}");
    assert_eq!(runtime.stats().tcp_flows, 0);
}

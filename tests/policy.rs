//! Where a guest may go: each kind of rule, for each protocol, over each form of address; the floor below
//! the rules; changes while the gateway runs. What matters is what a guest made of raw frames hears, and
//! what the host's sockets see.

#![cfg(all(feature = "runtime", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;
mod support_guest;

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use framegate::{
    Action, Attempt, Because, ControlError, Dns, DropReason, Floor, Limits, LiveFlows, Policy,
    PolicyError, Protocol, Rule, Runtime, StartError, Stats,
};
use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, IpProtocol, UdpPacket};

use support::namespace::Namespace;
use support::{eventually, prerequisites};
use support_guest::host::Server;
use support_guest::raw::{ACK, RST, Raw, SYN, Seen, Segment, ip_frame};
use support_guest::udp::Peer;
use support_guest::wire::start;
use support_guest::{GATEWAY_V4, GATEWAY_V6, PATIENCE, guest_address};

/// The protocols that the gateway carries.
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];

fn policy(default: Action, rules: &[&str]) -> Policy {
    rules.iter().fold(Policy::new(default), |policy, rule| policy.rule(rule.parse().unwrap()))
}

fn gateway(policy: Policy) -> (Runtime, Raw) {
    let mut limits = Limits::default();
    // Nobody answers in the documentation prefixes.
    limits.tcp_connect = Duration::from_secs(5);
    let (runtime, wire) = start(Runtime::builder().policy(policy).limits(limits));
    (runtime, Raw::new(wire))
}

/// What opens a flow of this protocol.
fn opening(protocol: Protocol, from: u16, to: SocketAddr) -> Vec<u8> {
    let guest = guest_address(to.ip());
    match protocol {
        Protocol::Tcp => Segment::new(from, to, SYN).frame(),
        Protocol::Udp => {
            let mut bytes = vec![0; 12];
            let mut udp = UdpPacket::new_unchecked(&mut bytes[..]);
            udp.set_src_port(from);
            udp.set_dst_port(to.port());
            udp.set_len(12);
            udp.fill_checksum(&guest.into(), &to.ip().into());
            ip_frame(guest, to.ip(), IpProtocol::Udp, &bytes)
        }
        _ if to.is_ipv4() => {
            let mut bytes = vec![8, 0, 0, 0, (from >> 8) as u8, from as u8, 0, 1, 1, 2, 3, 4];
            Icmpv4Packet::new_unchecked(&mut bytes[..]).fill_checksum();
            ip_frame(guest, to.ip(), IpProtocol::Icmp, &bytes)
        }
        _ => {
            let mut bytes = vec![128, 0, 0, 0, (from >> 8) as u8, from as u8, 0, 1, 1, 2, 3, 4];
            let (IpAddr::V6(source), IpAddr::V6(destination)) = (guest, to.ip()) else {
                unreachable!("both are IPv6")
            };
            Icmpv6Packet::new_unchecked(&mut bytes[..]).fill_checksum(&source, &destination);
            ip_frame(guest, to.ip(), IpProtocol::Icmpv6, &bytes)
        }
    }
}

/// What the gateway made of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It tries.
    Allowed,
    /// The guest hears that it is prohibited.
    Prohibited,
    /// The guest hears that nobody is there.
    Reset,
    /// The guest hears that no port is open.
    NoPort,
    /// Nobody hears anything.
    Dropped,
}

/// Sends what opens a flow, and finds out what became of it, by the counters and by what the guest hears.
#[track_caller]
fn attempt(
    runtime: &Runtime,
    raw: &mut Raw,
    protocol: Protocol,
    from: u16,
    to: SocketAddr,
) -> Outcome {
    let decided = |stats: &Stats| (stats.policy_allowed, stats.policy_denied);
    let before = runtime.stats();
    raw.wire.send(&opening(protocol, from, to));
    let what = format!("{protocol:?} to {to}");
    let mut heard = Vec::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        assert!(std::time::Instant::now() < deadline, "{what}: {} {heard:?}", runtime.stats());
        let stats = runtime.stats();
        let dropped = stats.dropped(DropReason::DestinationAddress)
            > before.dropped(DropReason::DestinationAddress);
        let (allowed, denied) = decided(&before);
        if dropped {
            assert_eq!(decided(&stats), (allowed, denied), "{what}");
            return Outcome::Dropped;
        }
        if decided(&stats) == (allowed + 1, denied) {
            return Outcome::Allowed;
        }
        if decided(&stats) == (allowed, denied + 1) {
            break;
        }
        heard.extend(raw.receive(Duration::from_millis(1)));
    }
    // What earlier attempts have brought is passed over: the host says for itself who is unreachable.
    loop {
        let seen = heard.pop().or_else(|| raw.receive(PATIENCE));
        match seen {
            Some(Seen::Icmp(3, 13) | Seen::Icmp(1, 1)) => return Outcome::Prohibited,
            Some(Seen::Icmp(3, 3) | Seen::Icmp(1, 4)) if protocol == Protocol::Udp => {
                return Outcome::NoPort;
            }
            Some(Seen::Tcp(segment)) if segment.is(RST | ACK) && segment.to_port == from => {
                return Outcome::Reset;
            }
            Some(_) => {}
            None => panic!("{what}: denied without a word"),
        }
    }
}

/// The forms of 192.0.2.10, and an IPv6 address, all of prefixes that nobody has.
const FORMS: [(&str, &str); 6] = [
    ("v4", "192.0.2.10"),
    ("v6", "2001:db8::10"),
    ("nat64", "64:ff9b::c000:20a"),
    ("6to4", "2002:c000:20a::1"),
    ("mapped", "::ffff:192.0.2.10"),
    ("compatible", "::192.0.2.10"),
];

#[test]
fn matrix_of_rules_protocols_and_forms() {
    use Action::{Allow, Deny};
    type Allowed = fn(Protocol, &str, u16) -> bool;
    let kinds: [(&str, Policy, Allowed); 11] = [
        ("default allow", policy(Allow, &[]), |_, _, _| true),
        ("default deny", policy(Deny, &[]), |_, _, _| false),
        ("deny CIDR v4", policy(Allow, &["deny 192.0.2.0/24"]), |_, form, _| form == "v6"),
        ("allow CIDR v4", policy(Deny, &["allow 192.0.2.0/24"]), |_, form, _| form != "v6"),
        ("deny CIDR v6", policy(Allow, &["deny 2001:db8::/32"]), |_, form, _| form != "v6"),
        ("allow CIDR v6", policy(Deny, &["allow 2001:db8::/32"]), |_, form, _| form == "v6"),
        ("deny port", policy(Allow, &["deny *:400-450"]), |protocol, _, port| {
            protocol == Protocol::Icmp || port != 443
        }),
        ("allow port", policy(Deny, &["allow *:443"]), |protocol, _, port| {
            protocol != Protocol::Icmp && port == 443
        }),
        ("deny protocol", policy(Allow, &["deny tcp:*"]), |protocol, _, _| {
            protocol != Protocol::Tcp
        }),
        ("allow protocol", policy(Deny, &["allow tcp:192.0.2.10:443"]), |protocol, form, port| {
            protocol == Protocol::Tcp && port == 443 && form != "v6"
        }),
        (
            "first match",
            policy(Deny, &["deny tcp:192.0.2.10:80", "allow 192.0.2.0/25", "deny *"]),
            |protocol, form, port| form != "v6" && (protocol != Protocol::Tcp || port != 80),
        ),
    ];
    for (kind, policy, allowed) in kinds {
        let (runtime, mut raw) = gateway(policy);
        let mut from = 5000;
        for protocol in PROTOCOLS {
            for (form, address) in FORMS {
                for port in [80, 443] {
                    from += 1;
                    let to = SocketAddr::new(address.parse().unwrap(), port);
                    let outcome = attempt(&runtime, &mut raw, protocol, from, to);
                    let is_forwarded = !["mapped", "compatible"].contains(&form);
                    let wanted = match is_forwarded && allowed(protocol, form, port) {
                        true => Outcome::Allowed,
                        false => Outcome::Prohibited,
                    };
                    assert_eq!(outcome, wanted, "{kind}: {protocol:?} to {to} ({form})");
                }
            }
        }
    }
}

/// The addresses of metadata services, and what an IPv6 address makes of those of IPv4.
fn metadata() -> Vec<IpAddr> {
    let lines = include_str!("support_guest/metadata.txt").lines();
    let plain: Vec<IpAddr> = lines
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect();
    let disguised = plain.iter().flat_map(|address| match address {
        IpAddr::V4(address) => {
            let bits = u128::from(address.to_bits());
            let nat64 = 0x0064_ff9b << 96 | bits;
            let six_to_four = 0x2002 << 112 | bits << 80 | 1;
            let mapped = 0xffff << 32 | bits;
            [nat64, six_to_four, mapped].map(|bits| IpAddr::V6(bits.into())).to_vec()
        }
        IpAddr::V6(_) => vec![],
    });
    let disguised: Vec<IpAddr> = disguised.collect();
    [plain, disguised].concat()
}

#[test]
fn matrix_of_metadata_services_and_protocols() {
    // Rules do not open them.
    let (runtime, mut raw) = gateway(policy(Action::Allow, &["allow *", "allow 169.254.0.0/16"]));
    let addresses = metadata();
    assert!(addresses.len() > 60);
    let mut from = 5000;
    for protocol in PROTOCOLS {
        for address in &addresses {
            from += 1;
            let to = SocketAddr::new(*address, 80);
            let outcome = attempt(&runtime, &mut raw, protocol, from, to);
            assert_eq!(outcome, Outcome::Prohibited, "{protocol:?} to {to}");
        }
    }
    // Mapped addresses are forwarded by nobody, whatever they stand for.
    let mapped = addresses.iter().filter(|address| address.to_canonical() != **address).count();
    let wanted = (addresses.len() - mapped) * PROTOCOLS.len();
    assert_eq!(runtime.stats().denied_metadata, wanted as u64);
    // Link-local in IPv6 is forwarded by nobody.
    let to = "[fe80::a9fe:a9fe]:80".parse().unwrap();
    assert_eq!(attempt(&runtime, &mut raw, Protocol::Tcp, 6000, to), Outcome::Dropped);
}

#[test]
fn matrix_of_the_ways_to_the_loopback() {
    let (runtime, mut raw) = gateway(policy(Action::Allow, &["allow *"]));
    let own = own_address();
    let mut from = 5000;
    for (address, wanted) in [
        ("127.0.0.1", Outcome::Dropped),
        ("127.255.255.254", Outcome::Dropped),
        ("0.0.0.0", Outcome::Dropped),
        ("0.0.0.1", Outcome::Dropped),
        ("::1", Outcome::Dropped),
        ("::", Outcome::Dropped),
        ("::ffff:127.0.0.1", Outcome::Prohibited),
        ("::ffff:0.0.0.0", Outcome::Prohibited),
        ("::127.0.0.1", Outcome::Prohibited),
        ("::ffff:0:127.0.0.1", Outcome::Prohibited),
        ("64:ff9b::127.0.0.1", Outcome::Prohibited),
        ("64:ff9b::0.0.0.0", Outcome::Prohibited),
        ("64:ff9b:1::127.0.0.1", Outcome::Prohibited),
        ("64:ff9b:1:7f00:0:100::", Outcome::Prohibited),
        ("2002:7f00:1::1", Outcome::Prohibited),
        ("2001:0:808:808::80ff:fffe", Outcome::Prohibited),
        ("2001:db8::5efe:127.0.0.1", Outcome::Prohibited),
        // The gateway, by a disguise.
        ("64:ff9b::100.96.0.1", Outcome::Prohibited),
        ("2002:6460:1::1", Outcome::Prohibited),
    ] {
        for protocol in PROTOCOLS {
            from += 1;
            let to = SocketAddr::new(address.parse().unwrap(), 80);
            let outcome = attempt(&runtime, &mut raw, protocol, from, to);
            assert_eq!(outcome, wanted, "{protocol:?} to {to}");
        }
    }
    // The gateway itself refuses, as a host does on which nobody listens.
    for address in [IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()] {
        from += 1;
        let to = SocketAddr::new(address, 80);
        assert_eq!(attempt(&runtime, &mut raw, Protocol::Tcp, from, to), Outcome::Reset, "{to}");
        assert_eq!(attempt(&runtime, &mut raw, Protocol::Udp, from, to), Outcome::NoPort, "{to}");
    }
    assert_eq!(runtime.stats().denied_host_loopback, 4);
    // The host's own address, as it is and in IPv6.
    let Some(own) = own else { return };
    let [a, b, c, d] = own.octets();
    let [high, low] = [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    for address in [own.to_string(), format!("64:ff9b::{own}"), format!("2002:{high:x}:{low:x}::1")]
    {
        for protocol in PROTOCOLS {
            from += 1;
            let to = SocketAddr::new(address.parse().unwrap(), 80);
            let outcome = attempt(&runtime, &mut raw, protocol, from, to);
            assert_eq!(outcome, Outcome::Prohibited, "{protocol:?} to {to}");
        }
    }
    assert_eq!(runtime.stats().denied_host_address, 3 * PROTOCOLS.len() as u64);
}

/// The host's address on the way out, if there is one. No packet is sent.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("198.51.100.1:9").ok()?;
    match socket.local_addr().unwrap().ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Some(address),
        _ => None,
    }
}

#[test]
fn the_host_s_own_address_opens_with_its_switch() {
    let Some(own) = own_address() else { return };
    let listener = TcpListener::bind((own, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let (runtime, mut raw) = gateway(Policy::default());
    assert_eq!(attempt(&runtime, &mut raw, Protocol::Tcp, 5000, to), Outcome::Prohibited);
    drop((runtime, raw));
    let (_runtime, mut raw) = gateway(Policy::default().host_addresses(true));
    raw.open(5000, to);
    listener.accept().unwrap();
}

#[test]
fn rules_hold_for_the_host_s_loopback_too() {
    let (one, other) = (Server::new(), Server::new());
    let rule = Rule::allow(&format!("tcp:{}", one.address)).unwrap();
    let builder = Runtime::builder().host_loopback(true);
    let (runtime, wire) = start(builder.policy(Policy::new(Action::Deny).rule(rule)));
    let mut raw = Raw::new(wire);
    raw.open(5000, one.address);
    let outcome = attempt(&runtime, &mut raw, Protocol::Tcp, 5001, other.address);
    assert_eq!(outcome, Outcome::Prohibited);
    assert!(!other.is_asked());
}

#[test]
fn a_policy_that_is_changed_decides_on_what_comes_after() {
    let server = Server::new();
    let (runtime, wire) = start(Runtime::builder().host_loopback(true));
    let mut raw = Raw::new(wire);
    let (guest_at, host_at) = raw.open(5000, server.address);
    let mut stream = server.accept();
    runtime.handle().set_policy(&Policy::new(Action::Deny), LiveFlows::Keep).unwrap();
    let outcome = attempt(&runtime, &mut raw, Protocol::Tcp, 5001, server.address);
    assert_eq!(outcome, Outcome::Prohibited);
    // What was live stays.
    raw.send(Segment::new(5000, server.address, ACK).at(guest_at, host_at).with(b"still here"));
    let mut bytes = [0; 10];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"still here");
    runtime.handle().set_policy(&Policy::default(), LiveFlows::Keep).unwrap();
    raw.open(5002, server.address);
}

#[test]
fn a_policy_that_rechecks_resets_what_it_denies_at_both_ends() {
    let (kept, cut) = (Server::new(), Server::new());
    let (runtime, wire) = start(Runtime::builder().host_loopback(true));
    let mut raw = Raw::new(wire);
    let (guest_at, host_at) = raw.open(5000, kept.address);
    let mut kept_stream = kept.accept();
    raw.open(5001, cut.address);
    let mut cut_stream = cut.accept();
    let rule = Rule::allow(&format!("tcp:{}", kept.address)).unwrap();
    let policy = Policy::new(Action::Deny).rule(rule);
    runtime.handle().set_policy(&policy, LiveFlows::Recheck).unwrap();
    let reset = raw.expect("reset", |heard| heard.flags & RST != 0);
    assert_eq!((reset.from, reset.to_port), (cut.address, 5001));
    let error = cut_stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    raw.send(Segment::new(5000, kept.address, ACK).at(guest_at, host_at).with(b"still here"));
    kept_stream.read_exact(&mut [0; 10]).unwrap();
    let stats = runtime.stats();
    assert_eq!((stats.tcp_flows, stats.policy_denied), (1, 1));
    assert_eq!(stats.dropped(DropReason::Policy), 1);
}

#[test]
fn a_recheck_prohibits_connections_under_way() {
    let host = support_guest::host::Unanswering::new();
    let (runtime, wire) = start(Runtime::builder().host_loopback(true));
    let mut raw = Raw::new(wire);
    raw.send(Segment::new(5000, host.address, SYN));
    raw.until("a half-open flow", &runtime, |stats| stats.tcp_half_open == 1);
    runtime.handle().set_policy(&Policy::new(Action::Deny), LiveFlows::Recheck).unwrap();
    assert_eq!(raw.receive(PATIENCE), Some(Seen::Icmp(3, 13)));
    assert_eq!(runtime.stats().tcp_half_open, 0);
}

#[test]
fn udp_that_is_live_follows_the_policy_or_stays() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = SocketAddr::new(GATEWAY_V4.into(), server.local_addr().unwrap().port());
    let (runtime, mut peer) = Peer::start(Runtime::builder().host_loopback(true));
    let mut buffer = [0; 16];
    let mut exchange = |peer: &mut Peer, ask: &[u8]| {
        peer.send(5000, to, ask);
        let (len, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], ask);
        server.send_to(b"answer", from).unwrap();
        assert_eq!(peer.datagram(), (to, 5000, b"answer".to_vec()));
        from
    };
    exchange(&mut peer, b"one");
    runtime.handle().set_policy(&Policy::new(Action::Deny), LiveFlows::Keep).unwrap();
    let outside = exchange(&mut peer, b"two");
    // Another endpoint of the guest is another mapping.
    peer.send(5001, to, b"new");
    assert!(matches!(peer.next(), support_guest::udp::Seen::Icmp { kind: 3, code: 13, .. }));
    runtime.handle().set_policy(&Policy::new(Action::Deny), LiveFlows::Recheck).unwrap();
    server.send_to(b"unasked", outside).unwrap();
    peer.until(&runtime, |stats| stats.dropped(DropReason::Policy) == 2);
    peer.send(5000, to, b"three");
    assert!(matches!(peer.next(), support_guest::udp::Seen::Icmp { kind: 3, code: 13, .. }));
    server.set_nonblocking(true).unwrap();
    assert_eq!(server.recv_from(&mut [0; 16]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_policy_that_cannot_be_enforced_is_refused_at_start_and_at_change() {
    let rule = Rule { protocol: Some(Protocol::Icmp), ..Rule::allow("*:80").unwrap() };
    let bad = Policy::default().rule(rule);
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    match Runtime::builder().policy(bad.clone()).start(ours) {
        Err(StartError::Config(error)) => {
            assert_eq!(error.to_string(), "the policy: rule 0: ICMP has no ports");
        }
        other => panic!("{other:?}"),
    }
    let (runtime, mut raw) = gateway(Policy::new(Action::Deny));
    match runtime.handle().set_policy(&bad, LiveFlows::Keep) {
        Err(ControlError::Policy(PolicyError::IcmpPorts(0))) => {}
        other => panic!("{other:?}"),
    }
    let to = "192.0.2.10:80".parse().unwrap();
    let outcome = attempt(&runtime, &mut raw, Protocol::Tcp, 5000, to);
    assert_eq!(outcome, Outcome::Prohibited, "the policy from before holds");
}

#[test]
fn decisions_can_be_observed() {
    let (runtime, mut raw) = gateway(policy(Action::Allow, &["deny tcp:192.0.2.0/24"]));
    let mut events = runtime.handle().policy_events().unwrap().unwrap();
    assert!(runtime.handle().policy_events().unwrap().is_none(), "one reader at a time");
    let denied: SocketAddr = "192.0.2.10:80".parse().unwrap();
    let floor: SocketAddr = "169.254.169.254:80".parse().unwrap();
    let allowed: SocketAddr = "198.51.100.1:80".parse().unwrap();
    for (from, to) in [(5000, denied), (5001, floor), (5002, allowed)] {
        attempt(&runtime, &mut raw, Protocol::Tcp, from, to);
    }
    for (verdict, to, wanted) in [
        (Action::Deny, denied, Because::Rule(0)),
        (Action::Deny, floor, Because::Floor(Floor::Metadata)),
        (Action::Allow, allowed, Because::Default),
    ] {
        let event = events.wait_next().unwrap();
        assert_eq!((event.verdict, event.because, event.lost), (verdict, wanted, 0));
        match event.attempt {
            Attempt::Reach { protocol: Protocol::Tcp, destination, name: None } => {
                assert_eq!(destination, to);
            }
            other => panic!("{other:?}"),
        }
    }
    drop((runtime, raw));
    assert_eq!(events.wait_next(), None, "the gateway has ended");
}

// --- Names ------------------------------------------------------------------------------------------

/// A server that gives every name the same addresses, 192.0.2.10 and 2001:db8::10, and names that begin
/// with "alias." those of edge.cdn.test.
struct Upstream {
    address: SocketAddr,
    socket: UdpSocket,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Upstream {
    fn new() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let ours = socket.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((len, from)) = ours.recv_from(&mut buffer) {
                if len == 0 {
                    return;
                }
                ours.send_to(&answer_to(&buffer[..len]), from).unwrap();
            }
        });
        Self { address, socket, thread: Some(thread) }
    }

    /// A gateway that asks this server.
    fn gateway(&self, policy: Policy) -> (Runtime, Raw) {
        let dns = Dns::Servers(vec![self.address]);
        let (runtime, wire) = start(Runtime::builder().policy(policy).dns(dns));
        (runtime, Raw::new(wire))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.socket.send_to(&[], self.address).unwrap();
        let _ = self.thread.take().unwrap().join();
    }
}

/// Where the question ends.
fn end_of_question(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}

fn answer_to(query: &[u8]) -> Vec<u8> {
    const ALIAS: &[u8] = b"\x04edge\x03cdn\x04test\x00";
    let end = end_of_question(query);
    let mut answer = query[..end].to_vec();
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0]);
    let is_v6 = query[end - 3] == 28;
    let mut record = |owner: &[u8], rtype: u8, data: &[u8]| {
        answer.extend_from_slice(owner);
        answer.extend_from_slice(&[0, rtype, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
        answer.extend_from_slice(data);
        answer[7] += 1;
    };
    let mut owner: &[u8] = &[0xc0, 12];
    if query[13..].starts_with(b"alias") {
        record(owner, 5, ALIAS);
        owner = ALIAS;
    }
    match is_v6 {
        true => record(owner, 28, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]),
        false => record(owner, 1, &[192, 0, 2, 10]),
    }
    answer
}

/// Asks the gateway over UDP, from an address of the family of `gateway`. The response code and the number
/// of records.
#[track_caller]
fn resolve(raw: &Raw, gateway: IpAddr, name: &str, rtype: u8) -> (u8, u8) {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, rtype, 0, 1]);
    let guest = guest_address(gateway);
    let mut bytes = vec![0; 8];
    bytes.extend_from_slice(&message);
    let mut udp = UdpPacket::new_unchecked(&mut bytes[..]);
    udp.set_src_port(40_053);
    udp.set_dst_port(53);
    udp.set_len((8 + message.len()) as u16);
    udp.fill_checksum(&guest.into(), &gateway.into());
    raw.wire.send(&ip_frame(guest, gateway, IpProtocol::Udp, &bytes));
    loop {
        let frame = raw.wire.receive(PATIENCE).expect("an answer");
        let (protocol, header) = if frame[12] == 8 { (23, 34) } else { (20, 54) };
        // Answers of other attempts are passed over.
        if frame[protocol] == 17 && frame[header + 2..header + 4] == 40_053_u16.to_be_bytes() {
            let answer = &frame[header + 8..];
            assert_eq!(answer[..2], [0x12, 0x34]);
            return (answer[3] & 15, answer[7]);
        }
    }
}

const A: u8 = 1;
const AAAA: u8 = 28;
const NO_ERROR: u8 = 0;
const NX_DOMAIN: u8 = 3;

#[test]
fn matrix_of_names() {
    use Action::{Allow, Deny};
    type Allowed = fn(Protocol, u16) -> bool;
    let all: Allowed = |_, _| true;
    let none: Allowed = |_, _| false;
    let https: Allowed = |protocol, port| protocol == Protocol::Tcp && port == 443;
    let not_mail: Allowed = |protocol, port| protocol != Protocol::Tcp || port != 25;
    let kinds: [(Action, &[&str], &str, bool, Allowed); 18] = [
        (Deny, &["allow example.test"], "example.test", true, all),
        (Deny, &["allow example.test"], "EXAMPLE.Test", true, all),
        (Deny, &["allow example.test"], "www.example.test", false, none),
        (Deny, &["allow tcp:example.test:443"], "example.test", true, https),
        (Deny, &["allow .example.test"], "a.b.example.test", true, all),
        (Deny, &["allow .example.test"], "example.test", true, all),
        (Deny, &["allow .example.test"], "badexample.test", false, none),
        (Deny, &["allow tcp:.example.test:443"], "www.example.test", true, https),
        (Deny, &["allow .example.test"], "alias.example.test", true, all),
        (Deny, &["allow edge.cdn.test"], "alias.example.test", false, none),
        (Deny, &["allow 198.51.100.0/24"], "example.test", false, none),
        (Deny, &[], "example.test", false, none),
        (Allow, &["deny example.test"], "example.test", false, all),
        (Allow, &["deny .example.test"], "www.example.test", false, all),
        (Allow, &["deny tcp:.example.test:25"], "www.example.test", true, not_mail),
        (Allow, &["deny tcp:edge.cdn.test:25"], "alias.example.test", true, not_mail),
        (Allow, &["deny 192.0.2.0/24", "deny 2001:db8::/32"], "example.test", true, none),
        (Allow, &["allow *"], "metadata.google.internal", false, all),
    ];
    let upstream = Upstream::new();
    for (default, rules, name, resolves, allowed) in kinds {
        let what = format!("{name} with {rules:?} and {default}");
        let (runtime, mut raw) = upstream.gateway(policy(default, rules));
        let wanted = if resolves { (NO_ERROR, 1) } else { (NX_DOMAIN, 0) };
        for (gateway, rtype) in [(GATEWAY_V4.into(), A), (GATEWAY_V6.into(), AAAA)] {
            let (code, records) = resolve(&raw, gateway, name, rtype);
            assert_eq!((code, records.min(1)), wanted, "{what}");
        }
        let mut from = 5000;
        for protocol in PROTOCOLS {
            for (form, address) in &FORMS[..4] {
                for port in [25, 443] {
                    from += 1;
                    let to = SocketAddr::new(address.parse().unwrap(), port);
                    let outcome = attempt(&runtime, &mut raw, protocol, from, to);
                    let wanted = match allowed(protocol, port) {
                        true => Outcome::Allowed,
                        false => Outcome::Prohibited,
                    };
                    assert_eq!(outcome, wanted, "{what}: {protocol:?} to {to} ({form})");
                }
            }
            // An address that no name has.
            from += 1;
            let to = "203.0.113.77:443".parse().unwrap();
            let outcome = attempt(&runtime, &mut raw, protocol, from, to);
            let wanted = match default {
                Allow => Outcome::Allowed,
                Deny => Outcome::Prohibited,
            };
            assert_eq!(outcome, wanted, "{what}: {protocol:?} to {to}");
        }
    }
}

#[test]
fn resolve_all_resolves_and_opens_nothing() {
    let upstream = Upstream::new();
    let (runtime, mut raw) = upstream.gateway(Policy::new(Action::Deny).resolve_all(true));
    assert_eq!(resolve(&raw, GATEWAY_V4.into(), "example.test", A), (NO_ERROR, 1));
    let to = "192.0.2.10:80".parse().unwrap();
    let outcome = attempt(&runtime, &mut raw, Protocol::Tcp, 5000, to);
    assert_eq!(outcome, Outcome::Prohibited);
}

#[test]
fn a_name_opens_nothing_before_it_was_resolved_and_survives_another_policy() {
    let upstream = Upstream::new();
    let (runtime, mut raw) = upstream.gateway(policy(Action::Deny, &["allow example.test"]));
    let to = "192.0.2.10:80".parse().unwrap();
    let outcome = attempt(&runtime, &mut raw, Protocol::Tcp, 5000, to);
    assert_eq!(outcome, Outcome::Prohibited);
    assert_eq!(resolve(&raw, GATEWAY_V4.into(), "example.test", A), (NO_ERROR, 1));
    assert_eq!(attempt(&runtime, &mut raw, Protocol::Tcp, 5001, to), Outcome::Allowed);
    let other = policy(Action::Deny, &["allow 198.51.100.0/24", "allow .test"]);
    runtime.handle().set_policy(&other, LiveFlows::Recheck).unwrap();
    assert_eq!(attempt(&runtime, &mut raw, Protocol::Tcp, 5002, to), Outcome::Allowed);
    assert_eq!(runtime.stats().tcp_flows, 2, "what was opened by name stays");
    let other = policy(Action::Deny, &["allow example.test:443"]);
    runtime.handle().set_policy(&other, LiveFlows::Recheck).unwrap();
    let outcome = attempt(&runtime, &mut raw, Protocol::Tcp, 5003, to);
    assert_eq!(outcome, Outcome::Prohibited);
    assert_eq!(runtime.stats().tcp_flows, 0);
}

#[test]
fn a_name_that_the_gateway_answers_itself_opens_the_way_too() {
    let allowed = policy(Action::Deny, &["allow here.test", "allow host.framegate.internal"]);
    let builder = Runtime::builder().policy(allowed).host_loopback(true);
    let (runtime, wire) = start(builder.dns_record("here.test", [192, 0, 2, 10].into()));
    let mut raw = Raw::new(wire);
    let (name, to) = ("here.test", "192.0.2.10:80".parse().unwrap());
    let outcome = attempt(&runtime, &mut raw, Protocol::Tcp, 5000, to);
    assert_eq!(outcome, Outcome::Prohibited);
    assert_eq!(resolve(&raw, GATEWAY_V4.into(), name, A), (NO_ERROR, 1));
    assert_eq!(attempt(&runtime, &mut raw, Protocol::Tcp, 5001, to), Outcome::Allowed);
    let (name, to) = ("host.framegate.internal", SocketAddr::new(GATEWAY_V4.into(), 9));
    let outcome = attempt(&runtime, &mut raw, Protocol::Tcp, 5002, to);
    assert_eq!(outcome, Outcome::Prohibited);
    assert_eq!(resolve(&raw, GATEWAY_V4.into(), name, A), (NO_ERROR, 1));
    assert_eq!(attempt(&runtime, &mut raw, Protocol::Tcp, 5003, to), Outcome::Allowed);
}

// --- On networks of their own, with a server that is reached or not ----------------------------------

/// A host with a gateway in this process, and a server beyond it that has every form of 10.1.2.3.
struct Lab {
    host: Namespace,
    server: Namespace,
}

impl Lab {
    fn new(test: &str) -> Option<Self> {
        if !prerequisites::met(test, &[]) {
            return None;
        }
        let [host, server] = [(); 2].map(|()| Namespace::new().unwrap());
        host.ip(&format!("link add d0 type veth peer name d1 netns {}", server.path()));
        server.ip("addr add 192.0.2.1/24 dev d1
             addr add 2001:db8::1/64 dev d1 nodad
             addr add 10.1.2.3/32 dev d1
             addr add 64:ff9b::a01:203/128 dev d1 nodad
             addr add 2002:a01:203::1/128 dev d1 nodad
             link set d1 up");
        host.ip("addr add 192.0.2.2/24 dev d0
             addr add 2001:db8::2/64 dev d0 nodad
             link set d0 up
             route add default via 192.0.2.1
             route add default via 2001:db8::1");
        Some(Self { host, server })
    }

    fn gateway(&self, policy: Policy) -> (Runtime, Raw) {
        self.host.run(|| gateway(policy))
    }
}

#[test]
fn what_is_allowed_reaches_its_server_in_every_form() {
    let Some(lab) = Lab::new("what_is_allowed_reaches_its_server_in_every_form") else { return };
    let forms = ["10.1.2.3", "64:ff9b::a01:203", "2002:a01:203::1"];
    let listeners = forms.map(|form| lab.server.listen((form.parse::<IpAddr>().unwrap(), 7000)));
    let (_runtime, mut raw) = lab.gateway(policy(Action::Deny, &["allow tcp:10.1.2.3:7000"]));
    for (from, listener) in (5000..).zip(&listeners) {
        raw.open(from, listener.local_addr().unwrap());
        listener.accept().unwrap();
    }
    let (runtime, mut raw) = lab.gateway(policy(Action::Allow, &["deny 10.0.0.0/8"]));
    for (from, listener) in (5000..).zip(&listeners) {
        let to = listener.local_addr().unwrap();
        assert_eq!(attempt(&runtime, &mut raw, Protocol::Tcp, from, to), Outcome::Prohibited);
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn an_address_that_the_host_gets_while_running_is_its_own() {
    let Some(lab) = Lab::new("an_address_that_the_host_gets_while_running_is_its_own") else {
        return;
    };
    let (runtime, mut raw) = lab.gateway(Policy::default());
    let mut from = 5000;
    for to in ["192.0.2.77:80", "[2001:db8::77]:80", "[64:ff9b::c000:24d]:80"] {
        let to: SocketAddr = to.parse().unwrap();
        from += 1;
        assert_eq!(attempt(&runtime, &mut raw, Protocol::Tcp, from, to), Outcome::Allowed, "{to}");
    }
    for to in ["192.0.2.2:80", "192.0.2.255:80", "[2001:db8::2]:80", "[2001:db8::]:80"] {
        let to: SocketAddr = to.parse().unwrap();
        from += 1;
        let outcome = attempt(&runtime, &mut raw, Protocol::Tcp, from, to);
        assert_eq!(outcome, Outcome::Prohibited, "{to}");
    }
    lab.host.ip("addr add 192.0.2.77/24 dev d0
         addr add 2001:db8::77/64 dev d0 nodad");
    // The kernel announces an IPv6 address in its own time.
    let mut until = |to: &str, wanted: Outcome| {
        let to: SocketAddr = to.parse().unwrap();
        eventually(PATIENCE, || {
            from += 1;
            (attempt(&runtime, &mut raw, Protocol::Tcp, from, to) == wanted).then_some(())
        })
        .unwrap_or_else(|| panic!("{to} is never {wanted:?}"));
    };
    for to in ["192.0.2.77:80", "[2001:db8::77]:80", "[64:ff9b::c000:24d]:80"] {
        until(to, Outcome::Prohibited);
    }
    lab.host.ip("addr del 192.0.2.77/24 dev d0");
    until("192.0.2.77:80", Outcome::Allowed);
}

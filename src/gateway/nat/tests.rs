use std::net::UdpSocket;

use super::*;
use crate::config::{Builder, Limits};
use crate::gateway::surroundings::Surroundings;
use crate::gateway::testing::*;
use crate::wire::be16;

fn limits() -> NatLimits {
    let limits = Limits::default();
    NatLimits {
        mappings: limits.udp_mappings,
        idle: limits.udp_idle.into(),
        dns_idle: limits.udp_dns_idle.into(),
    }
}

/// A NAT in virtual time, and a server of the host's loopback behind the gateway's address.
struct Rig {
    surroundings: Surroundings,
    nat: Nat,
    server: UdpSocket,
    address: SocketAddr,
}

impl Rig {
    fn new(filtering: UdpFiltering, limits: NatLimits) -> Self {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        let address = SocketAddr::new(GATEWAY.into(), server.local_addr().unwrap().port());
        Self {
            surroundings: Surroundings::new(link_of(Builder::default().host_loopback(true), true)),
            nat: Nat::new(Carried::Udp, filtering, limits),
            server,
            address,
        }
    }

    /// The guest sends four bytes.
    fn send(&mut self, from: u16, to: SocketAddr) {
        let (nat, frame) = (&mut self.nat, vec![0; 64]);
        let guest = SocketAddr::new(GUEST.into(), from);
        let packet = Outbound {
            guest,
            destination: to,
            message: 42..46,
            hop_limit: 64,
            dont_fragment: true,
        };
        self.surroundings.turn(|turn| {
            nat.send(frame, packet, turn);
            nat.serve(64, turn);
        });
    }

    fn receive(&self) -> SocketAddr {
        let (len, from) = self.server.recv_from(&mut [0; 100]).unwrap();
        assert_eq!(len, 4);
        from
    }

    /// What comes from outside reaches the guest, and how many frames that makes.
    fn serve(&mut self) -> usize {
        let nat = &mut self.nat;
        self.surroundings.events(|source, event| {
            let Source::Udp(at) = source else { panic!("{source:?}") };
            nat.host_event(at, event);
        });
        self.surroundings.turn(|turn| nat.serve(64, turn));
        self.surroundings.frames().len()
    }

    fn expire(&mut self) {
        let nat = &mut self.nat;
        self.surroundings.turn(|turn| nat.serve(64, turn));
    }
}

#[test]
fn rfc_4787_req_5_the_timers_are_five_minutes_and_thirty_seconds_for_dns() {
    let mut rig = Rig::new(UdpFiltering::AddressDependent, limits());
    rig.send(4000, rig.address);
    rig.surroundings.pass(299);
    rig.expire();
    assert_eq!(rig.nat.table.len(), 1);
    rig.surroundings.pass(1);
    rig.expire();
    assert_eq!(rig.nat.table.len(), 0);
    assert_eq!(rig.nat.next_deadline(), None);

    let dns = SocketAddr::new(GATEWAY.into(), 53);
    rig.send(4000, dns);
    rig.surroundings.pass(30);
    rig.expire();
    assert_eq!(rig.nat.table.len(), 0, "only ever port 53");
    rig.send(4000, dns);
    rig.send(4000, rig.address);
    rig.surroundings.pass(121);
    rig.expire();
    assert_eq!(rig.nat.table.len(), 1, "another port makes it an ordinary mapping");
}

#[test]
fn rfc_4787_req_6_traffic_in_either_direction_keeps_a_mapping() {
    let mut rig = Rig::new(UdpFiltering::AddressDependent, limits());
    rig.send(4000, rig.address);
    let mapped = rig.receive();
    for _ in 0..5 {
        rig.surroundings.pass(250);
        rig.send(4000, rig.address);
        assert_eq!(rig.receive(), mapped);
    }
    for _ in 0..5 {
        rig.surroundings.pass(250);
        rig.server.send_to(b"in", ("127.0.0.1", mapped.port())).unwrap();
        while rig.serve() == 0 {}
    }
    rig.send(4000, rig.address);
    assert_eq!(rig.receive(), mapped);
    assert_eq!(rig.surroundings.stats().udp_opened, 1);
}

#[test]
fn rfc_4787_req_6_what_the_filter_drops_keeps_no_mapping() {
    let mut rig = Rig::new(UdpFiltering::AddressDependent, limits());
    rig.send(4000, rig.address);
    let mapped = rig.receive();
    rig.surroundings.pass(200);
    let outsider = UdpSocket::bind("127.0.0.2:0").unwrap();
    outsider.send_to(b"in", ("127.0.0.1", mapped.port())).unwrap();
    while rig.surroundings.stats().dropped(DropReason::Filtered) == 0 {
        assert_eq!(rig.serve(), 0);
    }
    rig.surroundings.pass(100);
    rig.expire();
    assert_eq!(rig.nat.table.len(), 0);
}

/// RFC 4787 REQ-12, RFC 5508 REQ-6, RFC 7857 section 3.
#[test]
fn rfc_5508_req_6_an_error_neither_extends_nor_ends_a_mapping() {
    let mut rig = Rig::new(UdpFiltering::AddressDependent, limits());
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    rig.send(4000, SocketAddr::new(GATEWAY.into(), closed));
    rig.surroundings.pass(200);
    while rig.serve() == 0 {}
    assert_eq!(rig.surroundings.stats().icmp_errors, 1);
    rig.surroundings.pass(99);
    rig.expire();
    assert_eq!(rig.nat.table.len(), 1);
    rig.surroundings.pass(1);
    rig.expire();
    assert_eq!(rig.nat.table.len(), 0);
}

#[test]
fn a_full_table_gives_up_what_is_closest_to_its_end() {
    let mut rig = Rig::new(UdpFiltering::AddressDependent, NatLimits { mappings: 3, ..limits() });
    for port in 1..=3 {
        rig.send(port, rig.address);
        rig.surroundings.pass(1);
    }
    rig.send(1, rig.address);
    rig.send(4, rig.address);
    let guests = |nat: &Nat| {
        let mut ports: Vec<_> =
            nat.table.places().iter().map(|at| nat.table.key(*at).unwrap().port()).collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(guests(&rig.nat), [1, 3, 4]);
    assert_eq!(rig.surroundings.stats().dropped(DropReason::MappingLimit), 1);
    assert_eq!(rig.surroundings.stats().udp_mappings, 3);
}

#[test]
fn rfc_4787_req_8_endpoint_independent_filtering_is_a_choice() {
    // Somebody whom the policy lets the guest send to, as far as the mapping knows.
    let stranger: SocketAddr = "192.0.2.1:9".parse().unwrap();
    for (filtering, wanted) in [
        (UdpFiltering::AddressDependent, Err(DropReason::Filtered)),
        (UdpFiltering::EndpointIndependent, Ok(stranger)),
    ] {
        let mut rig = Rig::new(filtering, limits());
        rig.send(4000, rig.address);
        let mapping = rig.nat.table.get_mut(0).unwrap();
        let name_of = |mapping: &mut Mapping, from: SocketAddr, turn: &mut Turn<'_, '_>| {
            mapping.name_of(Carried::Udp, filtering, from, turn)
        };
        rig.surroundings.turn(|turn| {
            assert_eq!(name_of(mapping, stranger, turn), wanted);
            // Denied in both directions.
            for denied in ["169.254.169.254:80", "127.0.0.2:80", "100.96.0.1:80"] {
                let from = denied.parse().unwrap();
                assert_eq!(name_of(mapping, from, turn), Err(DropReason::Filtered), "{denied}");
            }
        });
    }
}

#[test]
fn packets_that_wait_for_the_host_are_bounded() {
    let mut rig = Rig::new(UdpFiltering::AddressDependent, limits());
    rig.send(4000, rig.address);
    rig.nat.table.get_mut(0).unwrap().writable = false;
    for _ in 0..1000 {
        rig.send(4000, rig.address);
    }
    assert_eq!(rig.nat.table.get(0).unwrap().outgoing.len(), WAITING);
    assert_eq!(rig.surroundings.stats().dropped(DropReason::DatagramQueue), 1000 - WAITING as u64);
    rig.nat.table.get_mut(0).unwrap().writable = true;
    rig.nat.activate(0);
    rig.expire();
    assert_eq!((rig.nat.waiting, rig.nat.has_work()), (0, false));
    assert_eq!(rig.surroundings.stats().udp_datagrams_to_host, 1 + WAITING as u64);
}

#[test]
fn the_kernel_tells_of_room_only_while_packets_wait_for_it() {
    let mut rig = Rig::new(UdpFiltering::AddressDependent, limits());
    for _ in 0..3 {
        rig.send(4000, rig.address);
        rig.receive();
        assert!(rig.surroundings.is_quiet(), "woken for a datagram that has left");
    }
    // As if the host had refused the packet.
    rig.nat.table.get_mut(0).unwrap().writable = false;
    rig.send(4000, rig.address);
    rig.serve();
    rig.receive();
    rig.send(4000, rig.address);
    rig.receive();
    assert!(rig.surroundings.is_quiet(), "it waits for room no longer");
}

#[test]
fn mappings_that_end_before_they_are_served_leave_no_work() {
    let mut rig = Rig::new(UdpFiltering::AddressDependent, NatLimits { mappings: 2, ..limits() });
    for port in 1..=1000 {
        let nat = &mut rig.nat;
        let guest = SocketAddr::new(GUEST.into(), port);
        let packet = Outbound {
            guest,
            destination: rig.address,
            message: 0..1,
            hop_limit: 64,
            dont_fragment: false,
        };
        rig.surroundings.turn(|turn| nat.send(vec![0; 64], packet, turn));
        assert!(rig.nat.active.len() <= 2);
    }
    assert_eq!(
        rig.surroundings.stats().udp_datagrams_to_host,
        998,
        "they are sent before they end"
    );
    let nat = &mut rig.nat;
    rig.surroundings.turn(|turn| nat.close_all(turn.counters));
    assert_eq!((rig.nat.has_work(), rig.nat.waiting), (false, 0));
    assert_eq!(rig.surroundings.stats().udp_mappings, 0);
}

/// The kernel tells what does not fit the path; the loopback's MTU is what there is here.
#[test]
fn rfc_4787_req_13_a_datagram_that_may_not_be_fragmented_is_too_big() {
    let mut rig = Rig::new(UdpFiltering::AddressDependent, limits());
    let length = 65_530;
    let mut frame = vec![0; 14 + 28 + length];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    let total = (28 + 1000u16).to_be_bytes();
    frame[16..18].copy_from_slice(&total);
    frame[26..30].copy_from_slice(&GUEST.octets());
    frame[30..34].copy_from_slice(&GATEWAY.octets());
    let guest = SocketAddr::new(GUEST.into(), 4000);
    let packet = Outbound {
        guest,
        destination: rig.address,
        message: 42..42 + length,
        hop_limit: 64,
        dont_fragment: true,
    };
    let nat = &mut rig.nat;
    rig.surroundings.turn(|turn| {
        nat.send(frame, packet, turn);
        nat.serve(64, turn);
    });
    let frames = rig.surroundings.frames();
    assert_eq!((frames.len(), rig.surroundings.stats().dropped(DropReason::TooBig)), (1, 1));
    assert_eq!(frames[0][34..36], [3, 4]);
    assert!(be16(&frames[0], 40).is_some_and(|mtu| mtu >= 576));
}

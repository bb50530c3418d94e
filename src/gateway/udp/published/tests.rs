use std::collections::HashSet;

use super::*;
use crate::config::Builder;
use crate::gateway::classify::{Verdict, classify};
use crate::gateway::surroundings::Surroundings;
use crate::gateway::testing::*;

const IDLE: u64 = 300;

/// A published port of the guest's port 7, and what drives it.
struct Rig {
    surroundings: Surroundings,
    published: PublishedUdp,
    /// Where clients send to.
    address: SocketAddr,
    at: usize,
}

impl Rig {
    fn new(clients: usize, guest: SocketAddr) -> Self {
        let mut surroundings = Surroundings::new(link_of(Builder::default(), true));
        let mut published = PublishedUdp::new(clients, Duration::from_secs(IDLE));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let at = surroundings.turn(|turn| published.add(socket, guest, turn.registry)).unwrap();
        Self { surroundings, published, address, at }
    }

    fn ipv4(clients: usize) -> Self {
        Self::new(clients, (GUEST, 7).into())
    }

    /// The frames that the guest gets when a client has sent.
    fn serve(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while frames.is_empty() {
            let published = &mut self.published;
            self.surroundings.events(|source, event| match source {
                Source::PublishedUdp(at) => published.host_event(at, event),
                other => panic!("{other:?}"),
            });
            self.surroundings.turn(|turn| published.serve(turn));
            frames = self.surroundings.frames();
        }
        frames
    }

    /// Sends from a client, and gives the gateway's port that the guest sees.
    fn ask(&mut self, client: &UdpSocket, payload: &[u8]) -> u16 {
        client.send_to(payload, self.address).unwrap();
        let frames = self.serve();
        assert_eq!(frames.len(), 1);
        let frame = &frames[0];
        assert_eq!(frame[26..30], GATEWAY.octets());
        assert_eq!(frame[30..34], GUEST.octets());
        assert_eq!(frame[36..38], 7u16.to_be_bytes());
        assert_eq!(&frame[42..], payload);
        u16::from_be_bytes([frame[34], frame[35]])
    }

    /// The guest sends from its port 7; whether that was an answer to a client.
    fn answer(&mut self, to: u16, payload: &[u8]) -> bool {
        let mut udp = vec![0, 7];
        udp.extend_from_slice(&to.to_be_bytes());
        udp.extend_from_slice(&(8 + payload.len() as u16).to_be_bytes());
        udp.extend_from_slice(&[0, 0]);
        udp.extend_from_slice(payload);
        let mut frame = echo(GATEWAY, &udp);
        // The datagram takes the place of the echo message.
        frame.drain(34..42);
        let total = (20 + udp.len() as u16).to_be_bytes();
        frame[16..18].copy_from_slice(&total);
        frame[23] = 17;
        smoltcp::wire::Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
        let Ok(Verdict::Udp(head)) = classify(&frame, &self.surroundings.link) else { panic!() };
        let published = &mut self.published;
        self.surroundings.turn(|turn| published.answer(&frame, &head, turn))
    }
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    socket
}

fn heard(client: &UdpSocket) -> (SocketAddr, Vec<u8>) {
    let mut bytes = vec![0; 70_000];
    let (len, from) = client.recv_from(&mut bytes).unwrap();
    bytes.truncate(len);
    (from, bytes)
}

#[test]
fn each_client_is_a_port_of_the_gateway_and_gets_its_own_answers() {
    let mut rig = Rig::ipv4(100);
    let clients: Vec<_> = (0..20).map(|_| client()).collect();
    let ports: Vec<_> = clients.iter().map(|client| rig.ask(client, b"question")).collect();
    assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 20);
    for (client, port) in clients.iter().zip(&ports) {
        assert_eq!(client.local_addr().unwrap().port(), *port, "its own, where that is free");
        assert_eq!(rig.ask(client, b"again"), *port);
        assert!(rig.answer(*port, &port.to_be_bytes()));
        assert_eq!(heard(client), (rig.address, port.to_be_bytes().to_vec()));
    }
    let port = ports[0];
    assert!(rig.published.knows((GUEST, 7).into(), (GATEWAY, port).into()));
    assert!(!rig.published.knows((GUEST, 8).into(), (GATEWAY, port).into()));
    assert_eq!(rig.surroundings.stats().udp_clients, 20);
}

#[test]
fn what_is_for_no_client_is_left_to_others() {
    let mut rig = Rig::ipv4(100);
    let port = rig.ask(&client(), b"x");
    assert!(!rig.answer(port ^ 1, b"nobody"));
}

#[test]
fn empty_and_largest_datagrams_pass_both_ways() {
    let mut rig = Rig::ipv4(100);
    let client = client();
    let port = rig.ask(&client, b"");
    assert!(rig.answer(port, b""));
    assert_eq!(heard(&client).1, b"");
    client.send_to(&vec![7; 65_507], rig.address).unwrap();
    let frames = rig.serve();
    assert_eq!(frames.len(), 45, "in fragments");
    assert!(frames.iter().all(|frame| frame.len() <= 1514));
    assert!(rig.answer(port, &vec![9; 60_000]));
    assert_eq!(heard(&client).1, vec![9; 60_000]);
}

#[test]
fn two_clients_with_one_port_number_have_two_ports() {
    let mut rig = Rig::new(100, (GUEST, 7).into());
    let (link, guest) = (rig.surroundings.link.clone(), SocketAddr::from((GUEST, 7)));
    let one = rig.published.free_side(guest, 5000, &link).unwrap();
    rig.published.by_side.insert(one, 0);
    let two = rig.published.free_side(guest, 5000, &link).unwrap();
    assert_eq!(one.gateway.port(), 5000);
    assert!(EPHEMERAL.contains(&two.gateway.port()));
    let known = rig.published.free_side(guest, 53, &link).unwrap();
    assert!(EPHEMERAL.contains(&known.gateway.port()), "a well-known port is not a client's");
    let other = rig.published.free_side((GUEST, 8).into(), 5000, &link).unwrap();
    assert_eq!(other.gateway.port(), 5000, "another port of the guest has clients of its own");
}

#[test]
fn a_guest_port_over_ipv6_takes_clients_over_ipv4() {
    let mut rig = Rig::new(100, (GUEST_V6, 7).into());
    let client = client();
    client.send_to(b"hello", rig.address).unwrap();
    let frames = rig.serve();
    assert_eq!(frames[0][12..14], [0x86, 0xdd]);
    assert_eq!(frames[0][22..38], GATEWAY_V6.octets());
    assert_eq!(&frames[0][62..], b"hello");
}

#[test]
fn clients_are_bounded_and_end_by_silence() {
    let mut rig = Rig::ipv4(4);
    let clients: Vec<_> = (0..10).map(|_| client()).collect();
    let ask = |client| {
        rig.surroundings.now += Duration::from_millis(1);
        rig.ask(client, b"x")
    };
    let ports: Vec<_> = clients.iter().map(ask).collect();
    assert_eq!(rig.published.by_side.len(), 4);
    assert_eq!(rig.surroundings.stats().dropped(DropReason::MappingLimit), 6);
    assert!(!rig.answer(ports[0], b"gone") && rig.answer(ports[9], b"there"));
    rig.surroundings.pass(IDLE - 1);
    assert!(rig.answer(ports[8], b"the guest keeps it"));
    rig.surroundings.pass(1);
    let published = &mut rig.published;
    rig.surroundings.turn(|turn| published.serve(turn));
    assert_eq!(rig.surroundings.stats().udp_clients, 1);
    assert!(rig.answer(ports[8], b"x") && !rig.answer(ports[9], b"x"));
}

#[test]
fn a_port_that_is_published_no_longer_leaves_nothing_behind() {
    for _ in 0..100 {
        let mut rig = Rig::ipv4(10);
        let port = rig.ask(&client(), b"x");
        let (published, at) = (&mut rig.published, rig.at);
        let socket = rig
            .surroundings
            .turn(|turn| published.remove(at, turn.registry, turn.counters))
            .unwrap();
        assert_eq!(socket.local_addr().unwrap(), rig.address);
        assert!(!rig.answer(port, b"x"));
        assert_eq!((rig.published.by_side.len(), rig.surroundings.stats().udp_clients), (0, 0));
        assert_eq!(rig.published.next_deadline(), None);
        let published = &mut rig.published;
        assert!(
            rig.surroundings
                .turn(|turn| published.remove(at, turn.registry, turn.counters))
                .is_none()
        );
    }
}

#[test]
fn a_client_that_is_gone_does_not_stop_the_others() {
    let mut rig = Rig::ipv4(10);
    let (gone, there) = (client(), client());
    let (first, second) = (rig.ask(&gone, b"x"), rig.ask(&there, b"x"));
    drop(gone);
    for _ in 0..20 {
        assert!(rig.answer(first, b"nobody"));
        assert!(rig.answer(second, b"somebody"));
        assert_eq!(heard(&there).1, b"somebody");
    }
}

#[test]
fn a_socket_that_waits_for_room_waits_once() {
    let mut rig = Rig::ipv4(8);
    rig.surroundings.turn(|turn| {
        while room_for(turn, false) > 0 {
            assert!(turn.outlet.send(vec![0; 60]));
        }
    });
    let client = client();
    for round in 0..20_u8 {
        client.send_to(&[round], rig.address).unwrap();
        let published = &mut rig.published;
        rig.surroundings.events(|_, event| published.host_event(rig.at, event));
        rig.surroundings.turn(|turn| published.serve(turn));
        assert_eq!((published.starved.len(), published.has_work()), (1, false));
    }
    rig.surroundings.frames();
    rig.published.room_to_guest();
    while rig.published.has_work() {
        let published = &mut rig.published;
        rig.surroundings.turn(|turn| published.serve(turn));
    }
    let payloads: Vec<u8> = rig.surroundings.frames().iter().map(|frame| frame[42]).collect();
    assert_eq!(payloads, (0..20).collect::<Vec<_>>());
}

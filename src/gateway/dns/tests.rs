use mio::Poll;
use smoltcp::iface::{Config as InterfaceConfig, Interface};
use smoltcp::time::Duration;
use smoltcp::wire::{EthernetFrame, HardwareAddress, Ipv4Packet, TcpPacket};

use super::testing::query;
use super::*;
use crate::config::Builder;
use crate::gateway::device::{Capabilities, Outlet};
use crate::gateway::egress::Egress;
use crate::gateway::link::Link;
use crate::gateway::network::Network;
use crate::gateway::testing::{GATEWAY, Tcp, link_of};
use crate::metrics::Counters;
use crate::queues::NetworkFrameQueues;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A gateway without upstreams, in a time of its own, and a guest with one connection to it.
struct Rig {
    network: Network,
    link: Link,
    poll: Poll,
    counters: Counters,
    queues: crate::sync::Arc<NetworkFrameQueues>,
    now: Instant,
    /// The guest's next byte, and the gateway's.
    next: (u32, u32),
}

impl Rig {
    fn new() -> Self {
        let builder = Builder::default().dns(Dns::Servers(Vec::new()));
        let mut interface = Interface::new(
            InterfaceConfig::new(HardwareAddress::Ip),
            &mut Capabilities,
            Instant::ZERO,
        );
        interface.set_any_ip(true);
        let mut rig = Self {
            network: Network::new(&builder.clone().into_config_for_tests(), interface),
            link: link_of(builder, true),
            poll: Poll::new().unwrap(),
            counters: Counters::default(),
            queues: NetworkFrameQueues::try_shared(64).unwrap(),
            now: Instant::from_secs(1000),
            next: (1000, 0),
        };
        let heard = rig.send(SYN, &[]);
        assert_eq!(heard, [(SYN | ACK, vec![])]);
        rig.send(ACK, &[]);
        rig
    }

    /// Sends a segment of the guest; says what came back.
    fn send(&mut self, flags: u8, payload: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut tcp = Tcp::to(GATEWAY, flags);
        tcp.to.set_port(PORT);
        (tcp.sequence, tcp.acknowledges) = self.next;
        tcp.payload = payload.to_vec();
        self.next.0 += payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        self.turn(Some(tcp.frame()))
    }

    /// One turn of the poll loop: the flags and the payload of what the guest gets.
    fn turn(&mut self, frame: Option<Vec<u8>>) -> Vec<(u8, Vec<u8>)> {
        let mut outlet = Outlet::new(&self.queues, &self.counters);
        let mut egress = Egress::default();
        let mut turn = Turn {
            link: &self.link,
            outlet: &mut outlet,
            registry: self.poll.registry(),
            counters: &self.counters,
            egress: &mut egress,
            now: self.now,
        };
        if let Some(frame) = frame {
            self.network.handle(frame, &mut turn);
        }
        self.network.serve(&mut turn);
        while self.network.has_work() {
            self.network.serve(&mut turn);
        }
        drop(outlet);
        let mut heard = Vec::new();
        let mut drain = self.queues.drain_to_guest();
        while let Some(frame) = drain.pop() {
            let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
            let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
            let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
            let flags = ip.payload()[13] & (FIN | SYN | RST | ACK);
            self.next.1 = (tcp.seq_number().0 as u32)
                .wrapping_add(tcp.payload().len() as u32)
                .wrapping_add(u32::from(flags & (SYN | FIN) != 0));
            heard.push((flags, tcp.payload().to_vec()));
        }
        heard
    }

    /// Lets time pass; says what came, but for bare acknowledgements.
    fn pass(&mut self, milliseconds: u64) -> Vec<u8> {
        self.now += Duration::from_millis(milliseconds);
        let heard = self.turn(None);
        heard.into_iter().map(|(flags, _)| flags).filter(|flags| *flags != ACK).collect()
    }

    fn flows(&self) -> u64 {
        self.counters.snapshot().tcp_flows
    }
}

fn with_length(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

#[test]
fn a_connection_that_asks_nothing_is_closed_and_then_reset() {
    let mut rig = Rig::new();
    assert_eq!(rig.pass(9_999), []);
    assert_eq!(rig.pass(1), [FIN | ACK]);
    rig.send(ACK, &[]);
    assert_eq!(rig.pass(9_999), []);
    assert_eq!(rig.flows(), 1);
    assert_eq!(rig.pass(1), [RST | ACK]);
    assert_eq!(rig.flows(), 0);
    assert_eq!(rig.network.dns.next_deadline(), None);
}

#[test]
fn a_connection_that_the_guest_closes_leaves_nothing() {
    let mut rig = Rig::new();
    let heard = rig.send(FIN | ACK, &[]);
    assert!(heard.iter().any(|(flags, _)| flags & FIN != 0), "{heard:?}");
    rig.send(ACK, &[]);
    assert_eq!(rig.flows(), 0);
    assert_eq!(rig.network.dns.next_deadline(), None);
}

/// A byte every now and then does not keep a connection: a message must be finished in time.
#[test]
fn a_message_that_is_never_finished_is_reset() {
    let mut rig = Rig::new();
    let message = with_length(&query(7, "example.com", Rtype::A));
    for byte in &message[..4] {
        rig.send(ACK, std::slice::from_ref(byte));
        assert_eq!(rig.pass(2_499), []);
    }
    assert_eq!(rig.pass(4), [RST | ACK]);
    assert_eq!(rig.flows(), 0);
}

#[test]
fn each_query_begins_the_time_anew() {
    let mut rig = Rig::new();
    for n in 0..5 {
        let message = query(n, "example.com", Rtype::A);
        let heard = rig.send(ACK, &with_length(&message));
        let answer: Vec<u8> = heard.into_iter().flat_map(|(_, payload)| payload).collect();
        assert_eq!(answer.len(), 2 + message.len());
        assert_eq!(answer[2..4], n.to_be_bytes());
        assert_eq!(answer[5] & 15, 2, "SERVFAIL, for there is no upstream");
        rig.send(ACK, &[]);
        assert_eq!(rig.pass(9_000), []);
    }
    assert_eq!(rig.counters.snapshot().dns_failures, 5);
}

#[test]
fn a_reset_of_the_guest_leaves_nothing() {
    let mut rig = Rig::new();
    rig.send(ACK, &[0]);
    rig.send(RST, &[]);
    assert_eq!(rig.flows(), 0);
    assert_eq!(rig.network.dns.next_deadline(), None);
    assert!(!rig.network.has_work());
}

use std::net::{IpAddr, Ipv4Addr};

use smoltcp::iface::{Config as InterfaceConfig, Interface};
use smoltcp::wire::HardwareAddress;

use super::*;
use crate::config::Limits;
use crate::gateway::classify::{Verdict, classify};
use crate::gateway::device::Capabilities;
use crate::gateway::flows::Flows;
use crate::gateway::surroundings::Surroundings;
use crate::gateway::testing::{GATEWAY, GATEWAY_V6, Tcp, link};
use crate::wire::flag::{ACK, FIN, PSH, SYN};

const MSS: usize = 1460;

fn at(millis: i64) -> Instant {
    Instant::from_millis(millis)
}

/// The packets of a probe that is due now.
fn asked(probe: &mut Probe, now: Instant) -> Vec<Vec<u8>> {
    probe.ask(now).collect()
}

fn packet(frame: &[u8]) -> Vec<u8> {
    frame[ETHERNET..].to_vec()
}

#[test]
fn the_guests_acknowledgement_is_seen_three_times_after_another_window() {
    for gateway in [IpAddr::V4(GATEWAY), IpAddr::V6(GATEWAY_V6)] {
        for (flags, payload, taken) in
            [(ACK, 0, 0), (ACK | PSH, 100, 100), (ACK | FIN, 0, 1), (ACK | FIN | PSH, 7, 8)]
        {
            let options = vec![1, 1, 1, 1];
            let segment = Tcp { options: options.clone(), ..Tcp::to(gateway, flags) };
            let mut probe = Probe::default();
            probe.heard(&Tcp { payload: vec![7; payload], ..segment.clone() }.frame());
            probe.observe(0, 10 * MSS, MSS, at(0));
            let packets = asked(&mut probe, at(20));
            assert_eq!(packets.len(), 5);
            let mut expected =
                packet(&Tcp { flags: ACK, sequence: 1000 + taken, ..segment }.frame());
            let tcp = expected.len() - 24;
            // A checksum that smoltcp is told not to look at.
            for packet in &packets {
                expected[tcp + 16..tcp + 18].copy_from_slice(&packet[tcp + 16..tcp + 18]);
            }
            assert_eq!(&packets[1..], &[(); 4].map(|()| expected.clone()));
            expected[tcp + 15] ^= 1;
            assert_eq!(packets[0], expected);
        }
    }
}

#[test]
fn patience_ends_sooner_with_more_to_acknowledge_and_doubles() {
    let mut probe = Probe::default();
    probe.heard(&Tcp::to(GATEWAY, ACK).frame());
    assert_eq!(probe.deadline(), None);
    probe.observe(0, 1, MSS, at(0));
    assert_eq!(probe.deadline(), Some(at(200)));
    probe.observe(0, 10 * MSS, MSS, at(1));
    assert_eq!(probe.deadline(), Some(at(200)), "nothing is new");
    probe.observe(1, 10 * MSS, MSS, at(2));
    assert_eq!(probe.deadline(), Some(at(22)));
    probe.sent(at(10));
    assert_eq!(probe.deadline(), Some(at(30)));
    assert!(asked(&mut probe, at(29)).is_empty());
    let mut now = 30;
    for wait in [40, 80, 160, 320] {
        assert_eq!(asked(&mut probe, at(now)).len(), 5);
        assert_eq!(probe.deadline(), Some(at(now + wait)));
        now += wait;
    }
    for _ in 0..20 {
        let now = probe.deadline().unwrap();
        asked(&mut probe, now);
    }
    let last = probe.deadline().unwrap();
    asked(&mut probe, last);
    assert_eq!(probe.deadline(), Some(last + LONGEST));
    // The guest has acknowledged some, and then everything.
    probe.observe(2, 10 * MSS, MSS, at(5000));
    assert_eq!(probe.deadline(), Some(at(5020)));
    probe.observe(3, 0, MSS, at(5001));
    assert_eq!(probe.deadline(), None);
    assert!(asked(&mut probe, at(9999)).is_empty());
}

#[test]
fn a_guest_that_always_takes_long_is_given_twice_as_long() {
    let mut probe = Probe::default();
    probe.heard(&Tcp::to(GATEWAY, ACK).frame());
    let left = 10 * MSS;
    let mut now = 0;
    for acknowledged in 0..50 {
        probe.observe(acknowledged * left as u64, left, MSS, at(now));
        now += 100;
    }
    assert_eq!(probe.deadline(), Some(at(now - 100 + 200)));
    // Once it was away for longer; that is soon forgotten, and never makes it longer than the timeout.
    probe.observe(50 * left as u64, left, MSS, at(now + 60_000));
    assert_eq!(probe.deadline(), Some(at(now + 61_000)));
    now += 60_000;
    for acknowledged in 51..150 {
        now += 1;
        probe.observe(acknowledged * left as u64, left, MSS, at(now));
    }
    assert_eq!(probe.deadline(), Some(at(now + 20)));
}

#[test]
fn a_closed_window_and_a_guest_that_was_not_heard_are_left_alone() {
    let mut probe = Probe::default();
    probe.observe(0, 10 * MSS, MSS, at(0));
    assert!(asked(&mut probe, at(20)).is_empty());
    let mut frame = Tcp::to(GATEWAY, ACK).frame();
    put16(&mut frame, ETHERNET + 20 + 14, 0);
    probe.heard(&frame);
    assert!(asked(&mut probe, at(1000)).is_empty());
    probe.heard(b"no frame");
    assert!(asked(&mut probe, at(10_000)).is_empty());
}

// --- With smoltcp ------------------------------------------------------------------------------

/// A flow in virtual time, to whose guest the host has written.
struct Download {
    surroundings: Surroundings,
    flows: Flows,
    /// Where its bytes begin.
    first: u32,
}

const BYTES: u32 = 20_000;

impl Download {
    fn new() -> Self {
        let config = InterfaceConfig::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut Capabilities, Instant::ZERO);
        interface.set_any_ip(true);
        let mut flows = Flows::new(Limits::default(), interface);
        flows.in_process = true;
        let mut download = Self { surroundings: Surroundings::new(link()), flows, first: 0 };
        download.hear(SYN, 1000, 0, &[2, 4, 5, 0xb4]);
        let [(syn, 0)] = download.sent()[..] else { panic!("no SYN-ACK") };
        download.first = syn.wrapping_add(1);
        download.acknowledge(0);
        assert_eq!(download.sent(), []);
        let end = download.flows.in_process_end().unwrap();
        end.write(&[7; BYTES as usize]);
        download.flows.in_process_news();
        assert_eq!(download.sent(), [(download.first, BYTES)]);
        download
    }

    fn hear(&mut self, flags: u8, sequence: u32, acknowledges: u32, options: &[u8]) {
        let remote = Ipv4Addr::new(93, 184, 216, 34);
        let options = options.to_vec();
        let segment = Tcp { sequence, acknowledges, options, ..Tcp::to(remote, flags) };
        let frame = segment.frame();
        let Ok(Verdict::Tcp(segment)) = classify(&frame, &self.surroundings.link) else {
            unreachable!()
        };
        self.surroundings.turn(|turn| self.flows.segment(frame, &segment, turn));
        self.flows.in_process_news();
    }

    fn acknowledge(&mut self, bytes: u32) {
        self.hear(ACK, 1001, self.first.wrapping_add(bytes), &[]);
    }

    /// Serves the flow, and says what the guest got: sequence number and length.
    fn sent(&mut self) -> Vec<(u32, u32)> {
        while {
            self.surroundings.turn(|turn| self.flows.serve(64, turn));
            self.flows.has_work()
        } {}
        let segment = |frame: Vec<u8>| {
            let layout = tcp_layout(&frame).unwrap();
            let sequence = be32(&frame, layout.tcp + 4).unwrap();
            (sequence, (layout.end - layout.payload) as u32)
        };
        self.surroundings.frames().into_iter().map(segment).collect()
    }

    /// The next thing that the guest gets, and when.
    fn next(&mut self) -> (Instant, Vec<(u32, u32)>) {
        loop {
            self.surroundings.now = self.flows.next_deadline().unwrap();
            let sent = self.sent();
            if !sent.is_empty() {
                return (self.surroundings.now, sent);
            }
        }
    }
}

#[test]
fn what_is_lost_is_sent_again_before_a_second_has_passed_and_again() {
    let mut download = Download::new();
    let all = vec![(download.first, BYTES)];
    for millis in [20, 60, 140, 300] {
        assert_eq!(download.next(), (at(millis), all.clone()));
    }
    // What had come of it.
    download.acknowledge(5000);
    assert_eq!(download.sent(), []);
    assert_eq!(download.next(), (at(320), vec![(download.first + 5000, BYTES - 5000)]));
    download.acknowledge(BYTES);
    assert_eq!(download.sent(), []);
    download.surroundings.now = at(5000);
    assert_eq!(download.sent(), []);
}

#[test]
fn a_retransmission_that_is_lost_in_its_turn_is_sent_again() {
    let mut download = Download::new();
    for duplicates in 1..=7 {
        download.acknowledge(0);
        let retransmits = duplicates == 3;
        assert_eq!(download.sent().len(), usize::from(retransmits), "after {duplicates}");
    }
    assert_eq!(download.next(), (at(20), vec![(download.first, BYTES)]));
    assert_eq!(download.next(), (at(60), vec![(download.first, BYTES)]));
}

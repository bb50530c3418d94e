use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use super::*;
use crate::gateway::classify::{Verdict, classify};
use crate::gateway::testing::*;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// The reset for a segment: its flags, sequence number and acknowledgement.
#[track_caller]
fn reset_of(tcp: &Tcp) -> Option<(u8, u32, u32)> {
    let link = link();
    let offending = tcp.frame();
    let Ok(Verdict::Tcp(segment)) = classify(&offending, &link) else { panic!("refused") };
    let frame = reset_for(vec![0xee; 99], &link, &offending, &segment)?;
    assert_eq!(frame[..6], GUEST_MAC);
    assert_eq!(frame[6..12], GATEWAY_MAC);
    let (from, to, payload) = if tcp.to.is_ipv4() {
        assert_eq!(frame[12..14], [8, 0]);
        let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(ip.verify_checksum());
        assert_eq!(usize::from(ip.total_len()), frame.len() - 14);
        (IpAddr::V4(ip.src_addr()), IpAddr::V4(ip.dst_addr()), frame[34..].to_vec())
    } else {
        assert_eq!(frame[12..14], [0x86, 0xdd]);
        let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
        assert_eq!(ip.total_len(), frame.len() - 14);
        (IpAddr::V6(ip.src_addr()), IpAddr::V6(ip.dst_addr()), frame[54..].to_vec())
    };
    assert_eq!((from, to), (tcp.to.ip(), tcp.from.ip()));
    let reset = TcpPacket::new_checked(&payload[..]).unwrap();
    assert!(reset.verify_checksum(&from.into(), &to.into()));
    assert_eq!((reset.src_port(), reset.dst_port()), (tcp.to.port(), tcp.from.port()));
    assert_eq!((reset.window_len(), reset.payload(), reset.header_len()), (0, &[][..], 20));
    Some((payload[13], reset.seq_number().0 as u32, reset.ack_number().0 as u32))
}

fn both() -> [IpAddr; 2] {
    [Ipv4Addr::new(93, 184, 216, 34).into(), Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0, 1).into()]
}

#[test]
fn a_syn_is_acknowledged_by_its_reset() {
    for to in both() {
        let syn = Tcp { sequence: 7000, ..Tcp::to(to, SYN) };
        assert_eq!(reset_of(&syn), Some((RST | ACK, 0, 7001)));
        let with_data = Tcp { payload: vec![1; 10], ..syn.clone() };
        assert_eq!(reset_of(&with_data), Some((RST | ACK, 0, 7011)));
        let last = Tcp { sequence: u32::MAX, ..syn };
        assert_eq!(reset_of(&last), Some((RST | ACK, 0, 0)), "the numbers wrap");
    }
}

#[test]
fn a_segment_with_an_acknowledgement_is_reset_where_it_points() {
    for to in both() {
        for flags in [ACK, ACK | FIN, ACK | SYN, ACK | 8, ACK | 0x20] {
            for payload in [0, 1, 1000] {
                let payload = vec![0; payload];
                let tcp = Tcp { acknowledges: 0xffff_fff0, payload, ..Tcp::to(to, flags) };
                assert_eq!(reset_of(&tcp), Some((RST, 0xffff_fff0, 0)), "flags {flags:#x}");
            }
        }
    }
}

#[test]
fn padding_and_options_count_for_nothing() {
    let syn = Tcp { options: vec![1; 40], ip_options: vec![1; 40], ..Tcp::to(both()[0], SYN) };
    assert_eq!(reset_of(&syn), Some((RST | ACK, 0, 1001)));
}

#[test]
fn no_reset_answers_a_reset() {
    for to in both() {
        assert_eq!(reset_of(&Tcp::to(to, RST)), None);
        assert_eq!(reset_of(&Tcp::to(to, RST | ACK)), None);
    }
}

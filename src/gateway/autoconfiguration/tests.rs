use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DhcpPacket, EthernetFrame, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, UdpPacket,
};

use crate::config::Builder;
use crate::gateway::classify::{Verdict, classify};
use crate::gateway::testing::*;
use crate::metrics::DropReason;

const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ALL: Ipv4Addr = Ipv4Addr::BROADCAST;
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 77);
const DISCOVER: [u8; 4] = [53, 1, 1, 255];
const REQUEST: [u8; 4] = [53, 1, 3, 255];

/// Checks the headers of a DHCP reply; returns where it goes and what it is.
#[track_caller]
fn taken_apart(frame: &[u8]) -> (Ipv4Addr, u8) {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    assert_eq!((ethernet.src_addr().0, frame[12..14].to_vec()), (GATEWAY_MAC, vec![8, 0]));
    let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
    let caps = ChecksumCapabilities::default();
    let repr = Ipv4Repr::parse(&ip, &caps).unwrap();
    assert_eq!((repr.src_addr, repr.next_header), (GATEWAY, IpProtocol::Udp));
    assert_eq!(usize::from(ip.total_len()), frame.len() - 14);
    let to_mac = if repr.dst_addr == ALL { [0xff; 6] } else { GUEST_MAC };
    assert_eq!(ethernet.dst_addr().0, to_mac);
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert!(udp.verify_checksum(&GATEWAY.into(), &repr.dst_addr.into()));
    assert_ne!(udp.checksum(), 0, "checked, and not left out");
    assert_eq!((udp.src_port(), udp.dst_port()), (67, 68));
    let message = DhcpPacket::new_checked(udp.payload()).unwrap();
    let kind = message.options().find(|option| option.kind == 53).unwrap().data[0];
    (repr.dst_addr, kind)
}

#[test]
fn a_guest_without_an_address_gets_an_offer() {
    for to_mac in [[0xff; 6], GATEWAY_MAC] {
        let message = dhcp_message(NOBODY, &DISCOVER);
        let offer = reply(&link(), &dhcp(to_mac, NOBODY, ALL, &message));
        assert_eq!(taken_apart(&offer), (GUEST, 2));
        let mut message = message;
        message[10] = 0x80;
        let offer = reply(&link(), &dhcp(to_mac, NOBODY, ALL, &message));
        assert_eq!(taken_apart(&offer), (ALL, 2), "the broadcast flag");
    }
}

#[test]
fn a_guest_with_an_address_renews_it_by_unicast_and_by_broadcast() {
    let message = dhcp_message(GUEST, &REQUEST);
    for (to_mac, to) in [(GATEWAY_MAC, GATEWAY), ([0xff; 6], ALL)] {
        let ack = reply(&link(), &dhcp(to_mac, GUEST, to, &message));
        assert_eq!(taken_apart(&ack), (GUEST, 5));
    }
}

#[test]
fn a_guest_with_an_address_of_another_network_is_told_no() {
    // As after the snapshot of a guest was restored behind another gateway.
    let message = dhcp_message(OTHER, &REQUEST);
    let nak = reply(&link(), &dhcp([0xff; 6], OTHER, ALL, &message));
    assert_eq!(taken_apart(&nak), (ALL, 6));
    // But only so: by unicast, and with anything else to say, it is a spoofed source.
    let renewing = dhcp(GATEWAY_MAC, OTHER, GATEWAY, &message);
    assert_eq!(silence(&link(), &renewing), DropReason::SourceAddress);
    let discover = dhcp([0xff; 6], OTHER, ALL, &dhcp_message(NOBODY, &DISCOVER));
    assert_eq!(silence(&link(), &discover), DropReason::SourceAddress);
}

#[test]
fn a_release_is_taken_in_silence() {
    let message = dhcp_message(GUEST, &[53, 1, 7, 255]);
    accepted(&link(), &dhcp(GATEWAY_MAC, GUEST, GATEWAY, &message));
}

#[test]
fn dhcp_for_another_client_or_another_server_is_refused() {
    let mut message = dhcp_message(NOBODY, &DISCOVER);
    message[33] ^= 1;
    let frame = dhcp([0xff; 6], NOBODY, ALL, &message);
    assert_eq!(silence(&link(), &frame), DropReason::DhcpClient);
    // What goes to a server out there is an ordinary datagram, and not ours.
    let frame = dhcp(GATEWAY_MAC, GUEST, OTHER, &dhcp_message(GUEST, &REQUEST));
    assert!(matches!(classify(&frame, &link()), Ok(Verdict::Udp(_))));
}

#[test]
fn udp_to_the_dhcp_server_of_every_length_is_survived() {
    // CVE-2021-3592, through the whole parser.
    let whole = dhcp_message(NOBODY, &DISCOVER);
    for length in 0..=300 {
        let mut message = whole.clone();
        message.resize(length, 0);
        let frame = dhcp([0xff; 6], NOBODY, ALL, &message);
        match length {
            ..240 => assert_eq!(silence(&link(), &frame), DropReason::Malformed, "{length}"),
            240..243 => assert_eq!(silence(&link(), &frame), DropReason::Dhcp, "{length}"),
            _ => assert_eq!(taken_apart(&reply(&link(), &frame)), (GUEST, 2)),
        }
    }
}

#[test]
fn without_the_server_nothing_is_offered() {
    let builder = Builder::default().dhcp(false);
    let frame = dhcp([0xff; 6], NOBODY, ALL, &dhcp_message(NOBODY, &DISCOVER));
    assert_eq!(answer_with(builder, &link(), &frame), (vec![], Some(DropReason::Dhcp)));
}

#[test]
fn a_router_solicitation_is_answered() {
    for names_itself in [true, false] {
        for from in [GUEST_V6, "fe80::2".parse().unwrap()] {
            let frame = reply(&link(), &router_solicitation(from, names_itself));
            let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
            assert_eq!((ip.src_addr(), ip.dst_addr(), ip.payload()[0]), (LINK_LOCAL, from, 134));
        }
    }
}

#[test]
fn a_router_solicitation_that_breaks_the_rules_is_not() {
    let nobody = std::net::Ipv6Addr::UNSPECIFIED;
    let frame = router_solicitation(nobody, true);
    assert_eq!(silence(&link(), &frame), DropReason::Ndp, "RFC 4861 section 6.1.1");
    let mut forwarded = router_solicitation(GUEST_V6, true);
    forwarded[14 + 7] = 64;
    assert_eq!(silence(&link(), &forwarded), DropReason::Ndp);
    let mut unsound = router_solicitation(GUEST_V6, true);
    unsound[14 + 40 + 2] ^= 1;
    assert_eq!(silence(&link(), &unsound), DropReason::Malformed, "a bad checksum");
}

#[test]
fn without_the_router_nothing_is_advertised() {
    let builder = Builder::default().router_advertisements(false);
    let frame = router_solicitation(GUEST_V6, true);
    assert_eq!(answer_with(builder, &link(), &frame), (vec![], Some(DropReason::Ndp)));
}

#[test]
fn a_lease_has_bounds() {
    use std::time::Duration;
    for (seconds, sound) in
        [(0, false), (59, false), (60, true), (0xffff_fffe, true), (0xffff_ffff, false)]
    {
        let builder = Builder::default().dhcp_lease(Duration::from_secs(seconds));
        assert_eq!(builder.check().is_ok(), sound, "{seconds}");
    }
}

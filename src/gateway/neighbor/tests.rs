use smoltcp::time::Duration;
use smoltcp::wire::NdiscRouterFlags;

use super::*;
use crate::gateway::testing::*;
use crate::metrics::DropReason;

#[test]
fn the_arp_reply_byte_by_byte() {
    let mut wanted = [&GUEST_MAC[..], &GATEWAY_MAC, &[8, 6]].concat();
    wanted.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 2]);
    wanted.extend_from_slice(&GATEWAY_MAC);
    wanted.extend_from_slice(&[100, 96, 0, 1]);
    wanted.extend_from_slice(&GUEST_MAC);
    wanted.extend_from_slice(&[100, 96, 0, 2]);
    assert_eq!(reply(&link(), &arp_packet(1, GUEST, GATEWAY)), wanted);
    // To a probe: the sender has no address yet.
    let at = wanted.len() - 4;
    wanted[at..].copy_from_slice(&[0; 4]);
    assert_eq!(reply(&link(), &arp_packet(1, Ipv4Addr::UNSPECIFIED, GATEWAY)), wanted);
}

#[test]
fn a_padded_question_gets_the_same_reply() {
    let question = arp_packet(1, GUEST, GATEWAY);
    let mut padded = question.clone();
    padded.resize(60, 0xaa);
    assert_eq!(reply(&link(), &padded), reply(&link(), &question));
}

#[test]
fn a_probe_for_the_guest_s_own_address_is_met_with_silence() {
    let frame = arp_packet(1, Ipv4Addr::UNSPECIFIED, GUEST);
    assert_eq!(silence(&link(), &frame), DropReason::Arp);
    for target in [GUEST_V6, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2)] {
        let frame = solicitation(Ipv6Addr::UNSPECIFIED, target, false);
        accepted(&link(), &frame);
    }
    // For the address of somebody else: it cannot be the guest's.
    let frame = solicitation(Ipv6Addr::UNSPECIFIED, "2001:db8::1".parse().unwrap(), false);
    assert_eq!(silence(&link(), &frame), DropReason::Ndp);
}

/// The advertisement, with everything but its ICMPv6 body checked.
#[track_caller]
fn advertisement(frame: &[u8], to: Ipv6Addr, target: Ipv6Addr) -> NdiscNeighborFlags {
    let reply = reply(&link(), frame);
    assert_eq!(reply[..14], [&GUEST_MAC[..], &GATEWAY_MAC, &[0x86, 0xdd]].concat());
    let ip = Ipv6Packet::new_checked(&reply[14..]).unwrap();
    assert_eq!(ip.total_len(), reply.len() - 14);
    assert_eq!((ip.src_addr(), ip.dst_addr(), ip.hop_limit()), (target, to, 255));
    let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
    let caps = ChecksumCapabilities::default();
    let repr = Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &caps).unwrap();
    let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) = repr else {
        panic!("{repr:?}")
    };
    assert_eq!(target_addr, target);
    assert_eq!(lladdr, Some(EthernetAddress(GATEWAY_MAC).into()));
    flags
}

#[test]
fn a_solicitation_for_each_of_the_gateway_s_addresses_is_answered() {
    for target in [GATEWAY_V6, LINK_LOCAL] {
        for from in [GUEST_V6, "fe80::2".parse().unwrap(), "fd53:4d00::abcd".parse().unwrap()] {
            for names_itself in [true, false] {
                let flags = advertisement(&solicitation(from, target, names_itself), from, target);
                assert_eq!(flags, NdiscNeighborFlags::all(), "router, solicited, override");
            }
        }
    }
}

#[test]
fn duplicate_address_detection_for_the_gateway_s_address_is_answered_to_all() {
    let frame = solicitation(Ipv6Addr::UNSPECIFIED, GATEWAY_V6, false);
    let flags = advertisement(&frame, ALL_NODES, GATEWAY_V6);
    assert_eq!(flags, NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE);
}

#[test]
fn solicitations_for_others_are_met_with_silence() {
    for target in ["fd53:4d00::3", "fe80::3", "2001:db8::1", "::1"] {
        let frame = solicitation(GUEST_V6, target.parse().unwrap(), true);
        assert_eq!(silence(&link(), &frame), DropReason::Ndp, "{target}");
    }
}

#[test]
fn a_solicitation_that_a_router_has_forwarded_is_dropped() {
    for hop_limit in [0, 1, 64, 254] {
        let mut frame = solicitation(GUEST_V6, GATEWAY_V6, true);
        frame[14 + 7] = hop_limit;
        assert_eq!(silence(&link(), &frame), DropReason::Ndp, "hop limit {hop_limit}");
    }
}

#[test]
fn a_probe_that_names_its_sender_is_dropped() {
    // RFC 4861 section 7.1.1.
    let frame = solicitation(Ipv6Addr::UNSPECIFIED, GATEWAY_V6, true);
    assert_eq!(silence(&link(), &frame), DropReason::Ndp);
}

#[test]
fn a_probe_to_a_unicast_address_is_dropped() {
    // RFC 4861 section 7.1.1: from the unspecified address, to a solicited-node group.
    let frame = icmpv6(
        Ipv6Addr::UNSPECIFIED,
        GATEWAY_V6,
        255,
        &Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: GATEWAY_V6, lladdr: None }),
    );
    let reason = silence(&link(), &frame);
    assert!(matches!(reason, DropReason::Ndp | DropReason::SourceAddress), "{reason:?}");
}

/// Sets a byte of the ICMPv6 message and makes its checksum right again.
fn with_body_byte(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame[54 + at] = value;
    let mut ip = Ipv6Packet::new_unchecked(&mut frame[14..]);
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    Icmpv6Packet::new_unchecked(ip.payload_mut()).fill_checksum(&from, &to);
    frame
}

#[test]
fn a_solicitation_with_a_code_is_dropped() {
    let frame = with_body_byte(solicitation(GUEST_V6, GATEWAY_V6, true), 1, 3);
    silence(&link(), &frame);
}

#[test]
fn a_solicitation_with_an_option_of_no_length_is_dropped() {
    let frame = with_body_byte(solicitation(GUEST_V6, GATEWAY_V6, true), 25, 0);
    silence(&link(), &frame);
}

#[test]
fn a_solicitation_with_a_bad_checksum_is_dropped() {
    let mut frame = solicitation(GUEST_V6, GATEWAY_V6, true);
    frame[14 + 40 + 2] ^= 1;
    silence(&link(), &frame);
}

#[test]
fn other_neighbour_messages_are_met_with_silence() {
    let lladdr = Some(EthernetAddress(GUEST_MAC).into());
    let advertisement = NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE,
        target_addr: GATEWAY_V6,
        lladdr,
    };
    let router = NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: Duration::from_secs(1800),
        reachable_time: Duration::ZERO,
        retrans_time: Duration::ZERO,
        lladdr,
        mtu: None,
        prefix_info: None,
    };
    for message in [advertisement, router] {
        let frame = icmpv6(GUEST_V6, ALL_NODES, 255, &Icmpv6Repr::Ndisc(message));
        assert_eq!(silence(&link(), &frame), DropReason::Ndp);
    }
}

#[test]
fn icmpv6_of_every_type_cut_at_each_byte_is_survived() {
    // The IP header tells the same length, and the checksum is right: nothing but the message is short.
    let body: Vec<u8> = [&[0; 8][..], &GATEWAY_V6.octets(), &[1, 1], &GUEST_MAC, &[5, 0]].concat();
    for kind in
        [0, 1, 2, 3, 4, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143, 155, 255]
    {
        for length in 0..=body.len() {
            for from in [GUEST_V6, Ipv6Addr::UNSPECIFIED] {
                let mut body = body[..length].to_vec();
                body.iter_mut().take(1).for_each(|byte| *byte = kind);
                if length >= 4 {
                    let mut packet = Icmpv6Packet::new_unchecked(&mut body[..]);
                    packet.fill_checksum(&from, &GATEWAY_V6);
                }
                let frame = ipv6_packet(from, GATEWAY_V6, IpProtocol::Icmpv6, 255, &body);
                crate::gateway::fuzz_classify(&frame);
                let (replies, reason) = answer(&link(), &frame);
                assert!(replies.len() + usize::from(reason.is_some()) <= 1);
            }
        }
    }
}

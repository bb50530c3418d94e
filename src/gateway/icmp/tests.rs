use smoltcp::wire::Icmpv6Repr;

use super::*;
use crate::config::Builder;
use crate::gateway::testing::*;
use crate::metrics::DropReason;

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

#[test]
fn the_echo_reply_is_the_request_turned_round() {
    for len in [0, 1, 2, 55, 56, 1472] {
        let request = echo(GATEWAY, &data(len));
        let reply = reply(&link(), &request);
        let mut wanted = request.clone();
        wanted[..6].copy_from_slice(&GUEST_MAC);
        wanted[6..12].copy_from_slice(&GATEWAY_MAC);
        wanted[22] = 64; // TTL
        wanted[26..30].copy_from_slice(&GATEWAY.octets());
        wanted[30..34].copy_from_slice(&GUEST.octets());
        wanted[34] = 0; // echo reply
        wanted[24..26].copy_from_slice(&reply[24..26]);
        wanted[36..38].copy_from_slice(&reply[36..38]);
        assert_eq!(reply, wanted, "{len} bytes");
        let ip = Ipv4Packet::new_checked(&reply[14..]).unwrap();
        assert!(ip.verify_checksum());
        assert!(Icmpv4Packet::new_checked(ip.payload()).unwrap().verify_checksum());
    }
}

#[test]
fn the_echo_reply_over_ipv6_is_the_request_turned_round() {
    for gateway in [GATEWAY_V6, LINK_LOCAL] {
        for len in [0, 1, 56, 1452] {
            let request = echo(gateway, &data(len));
            let reply = reply(&link(), &request);
            let mut wanted = request.clone();
            wanted[..6].copy_from_slice(&GUEST_MAC);
            wanted[6..12].copy_from_slice(&GATEWAY_MAC);
            wanted[21] = 64; // hop limit
            wanted[22..38].copy_from_slice(&gateway.octets());
            wanted[38..54].copy_from_slice(&GUEST_V6.octets());
            wanted[54] = 129; // echo reply
            wanted[56..58].copy_from_slice(&reply[56..58]);
            assert_eq!(reply, wanted, "{len} bytes");
            let ip = Ipv6Packet::new_checked(&reply[14..]).unwrap();
            let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
            assert!(icmp.verify_checksum(&gateway, &GUEST_V6));
        }
    }
}

#[test]
fn padding_comes_back_in_no_reply() {
    for gateway in [std::net::IpAddr::from(GATEWAY), GATEWAY_V6.into()] {
        let request = echo(gateway, b"abc");
        let mut padded = request.clone();
        padded.resize(request.len() + 30, 0x55);
        assert_eq!(reply(&link(), &padded), reply(&link(), &request));
    }
}

#[test]
fn a_request_with_a_bad_checksum_is_refused() {
    let mut frame = echo(GATEWAY, b"abc");
    frame[36] ^= 1;
    assert_eq!(silence(&link(), &frame), DropReason::Malformed);
    let mut frame = echo(GATEWAY_V6, b"abc");
    frame[56] ^= 1;
    silence(&link(), &frame);
}

#[test]
fn a_request_that_does_not_fit_on_the_way_back_is_answered_in_fragments() {
    let link = link_of(Builder::default().mtu(1280), true);
    for (to, len, count) in [
        (std::net::IpAddr::from(GATEWAY), 1252, 1),
        (GATEWAY.into(), 1253, 2),
        (GATEWAY.into(), 65_000, 52),
        (GATEWAY_V6.into(), 1232, 1),
        (GATEWAY_V6.into(), 1233, 2),
    ] {
        let (replies, reason) = answer(&link, &echo(to, &data(len)));
        assert_eq!((replies.len(), reason), (count, None), "{len} bytes to {to}");
        assert!(replies.iter().all(|reply| reply.len() <= 1280 + 14));
    }
}

#[test]
fn other_messages_to_the_gateway_are_refused() {
    for (kind, code) in [(0, 0), (3, 1), (5, 0), (11, 0), (13, 0), (17, 0), (8, 1), (255, 255)] {
        let mut frame = echo(GATEWAY, &data(56));
        frame[34] = kind;
        frame[35] = code;
        Icmpv4Packet::new_unchecked(&mut frame[34..]).fill_checksum();
        let is_error = matches!(kind, 3 | 11);
        let wanted = if is_error { DropReason::IcmpUnmatched } else { DropReason::Icmp };
        assert_eq!(silence(&link(), &frame), wanted, "type {kind} code {code}");
    }
    for (kind, code) in [(129, 0), (1, 0), (2, 0), (137, 0), (130, 0), (143, 0), (128, 1)] {
        let mut frame = echo(GATEWAY_V6, &data(56));
        frame[54] = kind;
        frame[55] = code;
        Icmpv6Packet::new_unchecked(&mut frame[54..]).fill_checksum(&GUEST_V6, &GATEWAY_V6);
        let reason = silence(&link(), &frame);
        assert!(
            matches!(
                reason,
                DropReason::Icmp
                    | DropReason::IcmpUnmatched
                    | DropReason::Ndp
                    | DropReason::Malformed
            ),
            "type {kind} code {code}: {reason:?}"
        );
    }
}

#[test]
fn an_echo_to_a_group_or_from_nobody_is_refused() {
    let message = Icmpv6Repr::EchoRequest { ident: 1, seq_no: 1, data: b"x" };
    let all: Ipv6Addr = "ff02::1".parse().unwrap();
    assert_eq!(silence(&link(), &icmpv6(GUEST_V6, all, 64, &message)), DropReason::Icmp);
    let frame = icmpv6(Ipv6Addr::UNSPECIFIED, GATEWAY_V6, 64, &message);
    assert_eq!(silence(&link(), &frame), DropReason::Icmp);
}

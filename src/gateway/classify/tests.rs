use proptest::prelude::*;

use super::*;
use crate::gateway::fuzz_classify;
use crate::gateway::testing::*;

const SYN: u8 = 2;
const ACK: u8 = 16;

fn remote() -> Ipv4Addr {
    [93, 184, 216, 34].into()
}

fn remote_v6() -> Ipv6Addr {
    "2001:db9::1".parse().unwrap()
}

/// The frame with other bytes at a place, and a right IPv4 checksum all the same.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    if frame[12..14] == [8, 0]
        && let Ok(mut ip) = Ipv4Packet::new_checked(&mut frame[14..])
    {
        ip.fill_checksum();
    }
    frame
}

#[test]
fn a_wrong_ipv4_checksum_is_malformed() {
    let good = Tcp::to(remote(), ACK).frame();
    for at in 14..34 {
        let mut frame = good.clone();
        frame[at] ^= 1;
        assert!(classify(&frame, &link()).is_err(), "byte {at}");
    }
    let mut frame = good;
    frame[24] ^= 0x10;
    assert_eq!(refused(&frame), DropReason::Malformed);
}

#[track_caller]
fn refused(frame: &[u8]) -> DropReason {
    classify(frame, &link()).expect_err("the frame is accepted")
}

#[track_caller]
fn segment(frame: &[u8]) -> Segment {
    match classify(frame, &link()) {
        Ok(Verdict::Tcp(segment)) => segment,
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_of_an_honest_guest_are_accepted() {
    for (name, frame) in valid_frames() {
        let verdict = classify(&frame, &link());
        assert!(verdict.is_ok(), "{name}: {verdict:?}");
    }
}

#[test]
fn padding_is_no_part_of_a_packet() {
    for (name, frame) in valid_frames() {
        let mut padded = frame.clone();
        padded.resize(frame.len() + 46, 0xee);
        assert_eq!(classify(&padded, &link()), classify(&frame, &link()), "{name}");
        fuzz_classify(&padded);
    }
}

#[test]
fn a_frame_that_is_cut_anywhere_is_malformed() {
    for (name, frame) in valid_frames() {
        for len in 0..frame.len() {
            assert_eq!(refused(&frame[..len]), DropReason::Malformed, "{name} cut at {len}");
            fuzz_classify(&frame[..len]);
        }
    }
}

#[test]
fn a_segment_is_what_its_headers_say() {
    let frame = Tcp { payload: vec![1; 33], ..Tcp::to(remote(), ACK | 8) }.frame();
    let got = segment(&frame);
    assert_eq!(
        got,
        Segment {
            key: FlowKey {
                guest: SocketAddr::new(GUEST.into(), 40_000),
                remote: SocketAddr::new(remote().into(), 80),
            },
            opens: false,
            syn: false,
            fin: false,
            rst: false,
            psh: true,
            sequence: 1000,
            payload: 33,
            end: frame.len(),
        }
    );
    let syn = segment(&Tcp { sequence: u32::MAX, ..Tcp::to(remote_v6(), SYN) }.frame());
    assert!(syn.opens && !syn.fin && !syn.rst);
    assert_eq!((syn.sequence, syn.payload), (u32::MAX, 0));
    assert!(!segment(&Tcp::to(remote(), SYN | ACK).frame()).opens);
    assert!(segment(&Tcp::to(remote(), ACK | 1).frame()).fin);
    assert!(segment(&Tcp::to(remote(), 4).frame()).rst);
}

// --- Ethernet ----------------------------------------------------------------------------------

#[test]
fn frames_from_another_mac_are_refused() {
    for (name, frame) in valid_frames() {
        for mac in [GATEWAY_MAC, [0; 6], [0xff; 6], [2, 0x53, 0x4d, 0, 0, 3]] {
            let frame = with(frame.clone(), 6, &mac);
            assert_eq!(refused(&frame), DropReason::SourceMac, "{name}");
        }
    }
}

#[test]
fn frames_to_another_mac_are_refused() {
    for (name, frame) in valid_frames() {
        for mac in [GUEST_MAC, [0; 6], [2, 0x53, 0x4d, 0, 0, 3]] {
            let frame = with(frame.clone(), 0, &mac);
            assert_eq!(refused(&frame), DropReason::DestinationMac, "{name}");
        }
    }
}

#[test]
fn other_ethertypes_are_refused() {
    let frame = Tcp::to(remote(), SYN).frame();
    for ethertype in [0x0000u16, 0x002e, 0x05dc, 0x0801, 0x8100, 0x88a8, 0x88cc, 0xffff] {
        let frame = with(frame.clone(), 12, &ethertype.to_be_bytes());
        assert_eq!(refused(&frame), DropReason::EtherType, "{ethertype:#x}");
    }
}

#[test]
fn unicast_ip_in_a_group_s_frame_is_refused() {
    for mac in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
        for to in [IpAddr::from(remote()), remote_v6().into(), GATEWAY.into(), GATEWAY_V6.into()] {
            let frame = with(Tcp::to(to, SYN).frame(), 0, &mac);
            assert_eq!(refused(&frame), DropReason::DestinationAddress, "{to}");
        }
        assert_eq!(refused(&with(echo(GATEWAY, b""), 0, &mac)), DropReason::DestinationAddress);
    }
}

// --- ARP ---------------------------------------------------------------------------------------

#[test]
fn only_the_guest_s_question_for_the_gateway_is_arp_for_us() {
    let unspecified = Ipv4Addr::UNSPECIFIED;
    assert_eq!(
        classify(&arp_packet(1, GUEST, GATEWAY), &link()),
        Ok(Verdict::Arp { mac: EthernetAddress(GUEST_MAC), address: GUEST })
    );
    assert_eq!(
        classify(&arp_packet(1, unspecified, GATEWAY), &link()),
        Ok(Verdict::Arp { mac: EthernetAddress(GUEST_MAC), address: unspecified })
    );
    for (name, frame) in [
        ("a probe for its own address", arp_packet(1, unspecified, GUEST)),
        ("an announcement", arp_packet(1, GUEST, GUEST)),
        ("a question for a neighbour", arp_packet(1, GUEST, [100, 96, 0, 3].into())),
        ("a question from a neighbour", arp_packet(1, [100, 96, 0, 3].into(), GATEWAY)),
        ("a question in the gateway's name", arp_packet(1, GATEWAY, GATEWAY)),
        ("a reply", arp_packet(2, GUEST, GATEWAY)),
        ("operation 0", arp_packet(0, GUEST, GATEWAY)),
        ("RARP", arp_packet(3, GUEST, GATEWAY)),
        ("InARP", arp_packet(8, GUEST, GATEWAY)),
        ("operation 65535", arp_packet(0xffff, GUEST, GATEWAY)),
        ("another sender's MAC", with(arp_packet(1, GUEST, GATEWAY), 22, &[2, 0, 0, 0, 0, 9])),
    ] {
        assert_eq!(refused(&frame), DropReason::Arp, "{name}");
    }
}

#[test]
fn arp_with_other_types_or_lengths_is_refused() {
    let good = arp_packet(1, GUEST, GATEWAY);
    for (at, value) in
        [(15, 6u8), (16, 0x86), (18, 8), (18, 255), (19, 16), (19, 255), (18, 0), (19, 0)]
    {
        let frame = with(good.clone(), at, &[value]);
        let reason = refused(&frame);
        assert!(matches!(reason, DropReason::Malformed | DropReason::Arp), "{at}: {reason:?}");
        fuzz_classify(&frame);
    }
}

// --- IPv4 --------------------------------------------------------------------------------------

#[test]
fn every_ihl_is_a_header_or_a_reason() {
    for ihl in 0..=15u8 {
        // Zeros where options would be: end of list; behind them something like a TCP header.
        let mut frame = Tcp { payload: vec![0x50; 80], ..Tcp::to(remote(), ACK) }.frame();
        frame[14] = 0x40 | ihl;
        let verdict = classify(&frame, &link());
        if ihl < 5 {
            assert_eq!(verdict, Err(DropReason::Malformed), "IHL {ihl}");
        }
        fuzz_classify(&frame);
        if let Some(words @ 1..) = ihl.checked_sub(5) {
            let ip_options = vec![1; usize::from(words) * 4];
            let frame = Tcp { ip_options, payload: vec![1; 9], ..Tcp::to(remote(), ACK) }.frame();
            assert_eq!(segment(&frame).payload, 9, "IHL {ihl}");
        }
    }
}

#[test]
fn ip_options_of_every_kind_neither_panic_nor_move_the_segment() {
    for option in [
        [0, 0, 0, 0],
        [1, 1, 1, 1],
        [7, 4, 4, 0],
        [131, 3, 4, 1],
        [68, 4, 5, 0],
        [130, 0, 0, 0],
        [130, 1, 0, 0],
        [130, 255, 0, 0],
        [255, 255, 255, 255],
    ] {
        let ip_options = option.to_vec();
        let frame = Tcp { ip_options, payload: vec![1; 9], ..Tcp::to(remote(), ACK) }.frame();
        assert_eq!(segment(&frame).payload, 9, "{option:?}");
        fuzz_classify(&frame);
    }
}

#[test]
fn ipv4_lengths_that_lie_are_malformed() {
    let good = Tcp { payload: vec![1; 20], ..Tcp::to(remote(), ACK) }.frame();
    let total = (good.len() - 14) as u16;
    for wrong in [0, 1, 19, 20, 39, total + 1, u16::MAX] {
        let frame = with(good.clone(), 16, &wrong.to_be_bytes());
        assert_eq!(refused(&frame), DropReason::Malformed, "total length {wrong}");
    }
    let shorter = with(good, 16, &(total - 5).to_be_bytes());
    assert_eq!(segment(&shorter).payload, 15);
}

#[test]
fn another_ip_version_is_malformed() {
    for version in [0u8, 1, 5, 6, 15] {
        let frame = with(Tcp::to(remote(), ACK).frame(), 14, &[version << 4 | 5]);
        assert_eq!(refused(&frame), DropReason::Malformed, "version {version} as IPv4");
    }
    for version in [0u8, 4, 5, 7, 15] {
        let frame = with(Tcp::to(remote_v6(), ACK).frame(), 14, &[version << 4]);
        assert_eq!(refused(&frame), DropReason::Malformed, "version {version} as IPv6");
    }
}

#[test]
fn fragments_are_told_apart() {
    let good = Tcp { payload: vec![1; 20], ..Tcp::to(remote(), ACK) }.frame();
    let fragment = |field: u16| classify(&with(good.clone(), 20, &field.to_be_bytes()), &link());
    for field in [0x2000u16, 0x2001, 0x0001, 0x6000] {
        assert!(matches!(fragment(field), Ok(Verdict::Fragment(_))), "{field:#x}");
    }
    // Beyond the largest packet.
    for field in [0x1fff, 0x3fff] {
        assert_eq!(fragment(field), Err(DropReason::Fragment), "{field:#x}");
    }
    let fragment = |to, body: &[u8]| {
        let frame = ipv6_packet(GUEST_V6, to, IpProtocol::Ipv6Frag, 64, body);
        classify(&frame, &link())
    };
    let first = [17, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8];
    assert!(matches!(fragment(remote_v6(), &first), Ok(Verdict::Fragment(_))));
    assert_eq!(fragment(remote_v6(), &first[..8]), Err(DropReason::Fragment), "no payload");
    let multicast = "ff02::1".parse().unwrap();
    assert_eq!(fragment(multicast, &first), Err(DropReason::DestinationAddress));
}

#[test]
fn ipv4_sources_other_than_the_guest_s_are_refused() {
    for source in [
        "0.0.0.0",
        "127.0.0.1",
        "100.96.0.1",
        "100.96.0.3",
        "8.8.8.8",
        "224.0.0.1",
        "255.255.255.255",
    ] {
        let from = SocketAddr::new(source.parse().unwrap(), 40_000);
        for flags in [SYN, ACK, 4] {
            let frame = Tcp { from, ..Tcp::to(remote(), flags) }.frame();
            assert_eq!(refused(&frame), DropReason::SourceAddress, "{source}");
        }
        let IpAddr::V4(source) = from.ip() else { unreachable!() };
        let frame = with(echo(GATEWAY, b"x"), 26, &source.octets());
        assert_eq!(refused(&frame), DropReason::SourceAddress);
    }
}

#[test]
fn martian_ipv4_destinations_are_refused() {
    for destination in [
        "100.96.0.2", // LAND
        "100.96.0.0",
        "100.96.0.3", // the subnet's broadcast
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.255.255.254",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
    ] {
        let to: Ipv4Addr = destination.parse().unwrap();
        for flags in [SYN, ACK, ACK | 1, 4] {
            let frame = Tcp::to(to, flags).frame();
            assert_eq!(silence(&link(), &frame), DropReason::DestinationAddress, "{destination}");
        }
    }
}

#[test]
fn other_protocols_are_refused() {
    for protocol in [0u8, 2, 41, 47, 50, 132, 255] {
        let frame = with(Tcp::to(remote(), ACK).frame(), 23, &[protocol]);
        assert_eq!(refused(&frame), DropReason::Protocol, "{protocol} over IPv4");
    }
    for protocol in [1u8, 2, 47, 50, 132, 255] {
        let frame = with(Tcp::to(remote_v6(), ACK).frame(), 20, &[protocol]);
        assert_eq!(refused(&frame), DropReason::Protocol, "{protocol} over IPv6");
    }
}

#[test]
fn icmp_for_others_is_told_apart() {
    for to in [IpAddr::V4(remote()), remote_v6().into()] {
        let frame = echo(to, b"x");
        let Ok(Verdict::Icmp(head)) = classify(&frame, &link()) else { panic!("no message") };
        assert_eq!((head.destination, head.hop_limit), (to, 3));
        let request = head.echo_request(head.message(&frame).unwrap()).unwrap();
        assert_eq!((request.guest.port(), request.destination.port()), (0xbeef, 0));
        assert_eq!(frame[request.message].len(), 9);
    }
    let frame = with(echo(remote(), b"x"), 36, &[0, 0]);
    let Ok(Verdict::Icmp(head)) = classify(&frame, &link()) else { panic!("no message") };
    assert_eq!(head.message(&frame), Err(DropReason::Malformed), "rfc_5508_req_3a");
}

// --- IPv6 --------------------------------------------------------------------------------------

#[test]
fn ipv6_payload_lengths_that_lie_are_malformed() {
    let good = Tcp { payload: vec![1; 20], ..Tcp::to(remote_v6(), ACK) }.frame();
    for wrong in [0u16, 1, 19, 41, 100, u16::MAX] {
        let frame = with(good.clone(), 18, &wrong.to_be_bytes());
        assert_eq!(refused(&frame), DropReason::Malformed, "payload length {wrong}");
    }
    assert_eq!(segment(&with(good, 18, &30u16.to_be_bytes())).payload, 10);
    let echo = echo(GATEWAY_V6, b"abcd");
    for wrong in [0u16, 1, 3, 7, 13, u16::MAX] {
        let frame = with(echo.clone(), 18, &wrong.to_be_bytes());
        assert_eq!(silence(&link(), &frame), DropReason::Malformed, "payload length {wrong}");
    }
}

#[test]
fn ipv6_sources_other_than_the_guest_s_are_refused() {
    let gateway_too = LINK_LOCAL.to_string();
    for source in [
        "::",
        "::1",
        "fd53:4d00::1",
        &gateway_too,
        "2001:db8::1",
        "ff02::1",
        "::ffff:100.96.0.2",
        "fd53:4d00:0:1::2",
    ] {
        let from = SocketAddr::new(source.parse().unwrap(), 40_000);
        let frame = Tcp { from, ..Tcp::to(remote_v6(), SYN) }.frame();
        assert_eq!(refused(&frame), DropReason::SourceAddress, "{source}");
    }
    for source in ["::1", "fd53:4d00::1", &gateway_too, "2001:db8::1", "ff02::1"] {
        let source: Ipv6Addr = source.parse().unwrap();
        let frame = with(echo(GATEWAY_V6, b"x"), 22, &source.octets());
        assert_eq!(refused(&frame), DropReason::SourceAddress, "{source}");
    }
    // SLAAC and privacy extensions choose within the prefix.
    for source in ["fd53:4d00::2", "fd53:4d00::1234:5678"] {
        let from = SocketAddr::new(source.parse().unwrap(), 40_000);
        segment(&Tcp { from, ..Tcp::to(remote_v6(), SYN) }.frame());
    }
    // A router forwards nothing from a link-local address; the gateway itself it may reach.
    let from = SocketAddr::new("fe80::2".parse().unwrap(), 40_000);
    let forwarded = Tcp { from, ..Tcp::to(remote_v6(), SYN) }.frame();
    assert_eq!(refused(&forwarded), DropReason::SourceAddress);
    for gateway in [GATEWAY_V6, LINK_LOCAL] {
        segment(&Tcp { from, ..Tcp::to(gateway, SYN) }.frame());
    }
}

#[test]
fn martian_ipv6_destinations_are_refused() {
    for destination in [
        "fd53:4d00::2", // LAND
        "fd53:4d00::77",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "ff0e::1",
    ] {
        let to: Ipv6Addr = destination.parse().unwrap();
        for flags in [SYN, ACK, 4] {
            let frame = Tcp::to(to, flags).frame();
            assert_eq!(silence(&link(), &frame), DropReason::DestinationAddress, "{destination}");
        }
    }
    segment(&Tcp::to(LINK_LOCAL, SYN).frame());
}

#[test]
fn extension_headers_are_refused() {
    let body = [6, 0, 1, 4, 0, 0, 0, 0];
    for protocol in [0u8, 43, 59, 60] {
        let frame = ipv6_packet(GUEST_V6, remote_v6(), protocol.into(), 64, &body);
        assert_eq!(refused(&frame), DropReason::ExtensionHeader, "{protocol}");
    }
}

// --- TCP ---------------------------------------------------------------------------------------

#[test]
fn flags_that_contradict_each_other_are_refused() {
    for flags in 0..=255u8 {
        let [fin, syn, rst, ack] = [1, 2, 4, 16].map(|bit| flags & bit != 0);
        let honest = if syn { !fin && !rst } else { ack || rst };
        for to in [IpAddr::from(remote()), remote_v6().into()] {
            let verdict = classify(&Tcp::to(to, flags).frame(), &link());
            if honest {
                assert!(verdict.is_ok(), "flags {flags:#010b}: {verdict:?}");
            } else {
                assert_eq!(verdict, Err(DropReason::TcpFlags), "flags {flags:#010b}");
            }
        }
    }
    for (name, flags) in [("null", 0), ("Xmas", 0x29), ("SYN and FIN", 3), ("SYN and RST", 6)] {
        assert_eq!(refused(&Tcp::to(remote(), flags).frame()), DropReason::TcpFlags, "{name}");
    }
}

#[test]
fn port_zero_is_refused_and_65535_is_not() {
    for to in [IpAddr::from(remote()), remote_v6().into()] {
        let good = Tcp::to(to, SYN);
        let mut from_zero = good.clone();
        from_zero.from.set_port(0);
        let mut to_zero = good.clone();
        to_zero.to.set_port(0);
        assert_eq!(refused(&from_zero.frame()), DropReason::TcpFlags);
        assert_eq!(refused(&to_zero.frame()), DropReason::TcpFlags);
        let mut highest = good;
        highest.from.set_port(65_535);
        highest.to.set_port(65_535);
        segment(&highest.frame());
    }
}

#[test]
fn tcp_data_offsets_outside_the_segment_are_malformed() {
    let good = Tcp { payload: vec![1; 8], ..Tcp::to(remote(), ACK) }.frame();
    for offset in 0..=15u8 {
        let frame = with(good.clone(), 14 + 20 + 12, &[offset << 4]);
        let verdict = classify(&frame, &link());
        match offset {
            5 => assert!(verdict.is_ok()),
            0..5 | 8.. => assert_eq!(verdict, Err(DropReason::Malformed), "offset {offset}"),
            // Ones where options would be: kind 1, padding.
            _ => assert!(verdict.is_ok(), "offset {offset}"),
        }
    }
}

#[test]
fn hostile_tcp_options_are_malformed() {
    for options in [
        [2, 0, 0, 0],
        [2, 1, 0, 0],
        [2, 3, 0, 0],
        [2, 5, 0, 0],
        [1, 1, 1, 2],
        [1, 1, 2, 4],
        [3, 0, 0, 0],
        [3, 1, 0, 0],
        [3, 255, 0, 0],
        [5, 1, 0, 0],
        [8, 10, 0, 0],
        [254, 0, 0, 0],
        [254, 1, 0, 0],
        [254, 5, 0, 0],
    ] {
        for to in [IpAddr::from(remote()), remote_v6().into()] {
            let frame = Tcp { options: options.to_vec(), ..Tcp::to(to, SYN) }.frame();
            assert_eq!(refused(&frame), DropReason::Malformed, "{options:?}");
            fuzz_classify(&frame);
        }
    }
    for options in [
        [2, 4, 0, 0],     // MSS 0
        [2, 4, 0, 1],     // MSS 1
        [2, 4, 255, 255], // MSS 65,535
        [3, 3, 255, 0],   // window scale 255
        [0, 2, 0, 0],     // nothing after the end of the list
        [0, 255, 255, 255],
        [254, 4, 0, 0], // an experiment
        [1, 1, 1, 1],
    ] {
        let frame = Tcp { options: options.to_vec(), ..Tcp::to(remote(), SYN) }.frame();
        segment(&frame);
    }
}

// --- Anything ----------------------------------------------------------------------------------

fn any_valid_frame() -> impl Strategy<Value = Vec<u8>> {
    prop::sample::select(valid_frames()).prop_map(|(_, frame)| frame)
}

proptest! {
    #[test]
    fn any_bytes_have_a_verdict(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_classify(&bytes);
    }

    #[test]
    fn any_bytes_from_the_guest_to_the_gateway_have_a_verdict(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        ethertype in prop::sample::select(vec![[8u8, 0], [8, 6], [0x86, 0xdd]]),
    ) {
        let frame = [&GATEWAY_MAC[..], &GUEST_MAC, &ethertype, &bytes].concat();
        fuzz_classify(&frame);
    }

    #[test]
    fn a_frame_with_bytes_changed_has_a_verdict(
        mut frame in any_valid_frame(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        for (at, value) in changes {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if is_cut {
            frame.truncate(cut.index(frame.len() + 1));
        }
        fuzz_classify(&frame);
    }

    #[test]
    fn a_frame_with_a_field_at_its_limits_has_a_verdict(
        frame in any_valid_frame(),
        at in any::<prop::sample::Index>(),
        value in prop::sample::select(vec![0u16, 1, 0x7fff, 0x8000, 0xfffe, 0xffff]),
    ) {
        let at = at.index(frame.len() - 1);
        fuzz_classify(&with(frame, at, &value.to_be_bytes()));
    }
}

// --- UDP ---------------------------------------------------------------------------------------

/// A datagram of 12 bytes from the guest's port 40000 to port 4242.
fn datagram(to: IpAddr) -> Vec<u8> {
    let mut frame = Tcp::to(to, ACK).frame();
    let (protocol, at) = if to.is_ipv4() { (23, 34) } else { (20, 54) };
    frame[protocol] = 17;
    frame[at..at + 8].copy_from_slice(&[0x9c, 0x40, 0x10, 0x92, 0, 20, 0, 0]);
    let len = frame.len();
    if to.is_ipv4() { with(frame, 23, &[17]) } else { with(frame, len, &[]) }
}

#[test]
fn datagrams_are_parsed() {
    for to in [IpAddr::V4(remote()), IpAddr::V6(remote_v6())] {
        let frame = datagram(to);
        let Ok(Verdict::Udp(head)) = classify(&frame, &link()) else { panic!("no datagram") };
        assert_eq!(head.destination, SocketAddr::new(to, 4242));
        assert_eq!(head.source.port(), 40_000);
        assert_eq!(head.payload, frame.len() - 12..frame.len());
        assert_eq!(head.hop_limit, 64);
        assert!(head.dont_fragment);
    }
}

#[test]
fn datagrams_of_a_wrong_length_and_without_ports_are_refused() {
    for to in [IpAddr::V4(remote()), IpAddr::V6(remote_v6())] {
        let at = if to.is_ipv4() { 34 } else { 54 };
        for length in [0u16, 1, 7, 21, 1000, u16::MAX] {
            let frame = with(datagram(to), at + 4, &length.to_be_bytes());
            assert_eq!(refused(&frame), DropReason::Malformed, "{length}");
        }
        for port in [at, at + 2] {
            assert_eq!(refused(&with(datagram(to), port, &[0, 0])), DropReason::UdpPort);
        }
    }
}

//! Writes the seed corpora, one under `corpus` for each target:
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds`. With `-- --check` it writes nothing
//! and fails if the files that are there are not the ones it would write.
//!
//! The inputs are those that have broken gateways and stacks before: lengths that lie, headers that
//! end early, options of length zero, addresses that no router may forward.

mod dhcp;
mod dns;
mod flows;
mod fragments;
mod frames;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use dhcp::dhcp_seeds;
use fragments::fragment_seeds;
use frames::*;

/// Seeds of one target, by file name.
type Seeds = BTreeMap<String, Vec<u8>>;

fn main() -> io::Result<ExitCode> {
    let check = env::args().any(|argument| argument == "--check");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut differences = 0;
    let targets = [
        ("classify", classify()),
        ("dns", dns::dns()),
        ("flow", flow()),
        ("fragments", fragment_seeds()),
        ("framing", framing()),
    ];
    for (target, seeds) in targets {
        let directory = corpus.join(target);
        let bytes: usize = seeds.values().map(Vec::len).sum();
        println!("{target}: {} seeds, {bytes} bytes", seeds.len());
        if check {
            differences += differing(&directory, &seeds)?;
        } else {
            write(&directory, &seeds)?;
        }
    }
    Ok(if differences == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(directory: &Path, seeds: &Seeds) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for file in committed(directory)? {
        fs::remove_file(file)?;
    }
    seeds.iter().try_for_each(|(name, bytes)| fs::write(directory.join(name), bytes))
}

/// How many seeds are missing, stale or unknown; each is named.
fn differing(directory: &Path, seeds: &Seeds) -> io::Result<usize> {
    let mut wrong: Vec<PathBuf> = Vec::new();
    for file in committed(directory)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !seeds.contains_key(&name) {
            wrong.push(file);
        }
    }
    for (name, bytes) in seeds {
        let file = directory.join(name);
        if fs::read(&file).ok().as_ref() != Some(bytes) {
            wrong.push(file);
        }
    }
    wrong.iter().for_each(|file| println!("not as generated: {}", file.display()));
    Ok(wrong.len())
}

/// The files of a corpus but for what the fuzzer found, which has a hash for a name.
fn committed(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let is_found = |name: &str| name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit());
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !is_found(&entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Lives of a flow.
fn flow() -> Seeds {
    let mut seeds = Seeds::new();
    flows::seeds(&mut seeds);
    seeds
}

/// Frames of the guest.
fn classify() -> Seeds {
    let mut seeds = Seeds::new();
    ethernet_seeds(&mut seeds);
    arp_seeds(&mut seeds);
    ipv4_seeds(&mut seeds);
    ipv6_seeds(&mut seeds);
    icmp_seeds(&mut seeds);
    ndp_seeds(&mut seeds);
    dhcp_seeds(&mut seeds);
    tcp_seeds(&mut seeds);
    seeds
}

fn add(seeds: &mut Seeds, name: impl Into<String>, bytes: Vec<u8>) {
    let name = name.into();
    assert!(seeds.insert(name.clone(), bytes).is_none(), "two seeds are called {name}");
}

fn ethernet_seeds(seeds: &mut Seeds) {
    let frame = ethernet(GATEWAY_MAC, IPV4, &ipv4(TCP, SERVER, &syn(&[])));
    for len in [0, 1, 5, 6, 12, 13, 14, 15] {
        add(seeds, format!("ethernet_len_{len:02}"), frame[..len].to_vec());
    }
    for (name, ethertype) in
        [("vlan", 0x8100), ("lldp", 0x88cc), ("llc", 0x05dc), ("qinq", 0x88a8), ("zero", 0)]
    {
        add(seeds, format!("ethertype_{name}"), ethernet(GATEWAY_MAC, ethertype, &[0; 46]));
    }
    let payload = ipv4(TCP, SERVER, &syn(&[]));
    for (name, mac) in [
        ("other", [2, 0, 0, 0, 0, 9]),
        ("broadcast", BROADCAST),
        ("multicast", [1, 0, 0x5e, 0, 0, 1]),
        ("zero", [0; 6]),
    ] {
        add(seeds, format!("ethernet_to_{name}"), ethernet(mac, IPV4, &payload));
        let mut from = ethernet(GATEWAY_MAC, IPV4, &payload);
        from[6..12].copy_from_slice(&mac);
        add(seeds, format!("ethernet_from_{name}"), from);
    }
}

fn arp_seeds(seeds: &mut Seeds) {
    let request = arp(1, GUEST, GATEWAY);
    let whole = ethernet(BROADCAST, ARP, &request);
    add(seeds, "arp_request", whole.clone());
    for len in 14..whole.len() {
        add(seeds, format!("arp_len_{len}"), whole[..len].to_vec());
    }
    let mut padded = whole.clone();
    padded.resize(60, 0xaa);
    add(seeds, "arp_padded", padded);
    add(seeds, "arp_unicast", ethernet(GATEWAY_MAC, ARP, &request));
    add(seeds, "arp_probe_for_guest", ethernet(BROADCAST, ARP, &arp(1, [0; 4], GUEST)));
    add(seeds, "arp_probe_for_gateway", ethernet(BROADCAST, ARP, &arp(1, [0; 4], GATEWAY)));
    add(seeds, "arp_gratuitous_gateway", ethernet(BROADCAST, ARP, &arp(1, GATEWAY, GATEWAY)));
    add(seeds, "arp_gratuitous_guest", ethernet(BROADCAST, ARP, &arp(1, GUEST, GUEST)));
    add(seeds, "arp_spoofed", ethernet(BROADCAST, ARP, &arp(1, SERVER, GATEWAY)));
    for operation in [0, 2, 3, 8, 0xffff] {
        let packet = arp(operation, GUEST, GATEWAY);
        add(seeds, format!("arp_operation_{operation}"), ethernet(BROADCAST, ARP, &packet));
    }
    for (field, at, values) in [
        ("hlen", 4, [0, 1, 5, 7, 8, 255]),
        ("plen", 5, [0, 1, 3, 5, 16, 255]),
        ("htype", 1, [0, 2, 6, 24, 32, 255]),
        ("ptype", 3, [1, 6, 0x35, 0x80, 0xdd, 255]),
    ] {
        for value in values {
            let mut packet = request.clone();
            packet[at] = value;
            add(seeds, format!("arp_{field}_{value}"), ethernet(BROADCAST, ARP, &packet));
        }
    }
}

fn ipv4_seeds(seeds: &mut Seeds) {
    let options: [(&str, &[u8]); 8] = [
        ("eol", &[0]),
        ("nop", &[1, 1, 1, 1]),
        ("record_route", &[7, 7, 4, 0, 0, 0, 0]),
        ("source_route", &[131, 7, 4, 192, 0, 2, 9]),
        ("timestamp", &[68, 8, 5, 0, 0, 0, 0, 0]),
        ("len_0", &[7, 0]),
        ("len_1", &[7, 1]),
        ("len_beyond", &[7, 255]),
    ];
    let segment = syn(&[]);
    for words in 0..=5 {
        let mut packet = ipv4(TCP, SERVER, &segment);
        packet[0] = 0x40 | words;
        add(seeds, format!("ipv4_ihl_{words:02}"), to_gateway(IPV4, &packet));
    }
    for words in [6, 7, 10, 14, 15] {
        for (name, option) in options {
            let mut field = option.to_vec();
            field.resize((words - 5) * 4, if name == "nop" { 1 } else { 0 });
            let packet = ipv4_with_options(TCP, SERVER, &field, &segment);
            add(seeds, format!("ipv4_ihl_{words:02}_{name}"), to_gateway(IPV4, &packet));
        }
    }
    // A header that is longer than the packet.
    let mut long = ipv4(TCP, SERVER, &[]);
    long[0] = 0x4f;
    add(seeds, "ipv4_header_beyond_packet", to_gateway(IPV4, &long));
    for version in [0, 5, 6, 15] {
        let mut packet = ipv4(TCP, SERVER, &segment);
        packet[0] = version << 4 | 5;
        add(seeds, format!("ipv4_version_{version:02}"), to_gateway(IPV4, &packet));
    }
    let packet = ipv4(TCP, SERVER, &segment);
    for total in [0, 19, 20, 21, packet.len() - 1, packet.len() + 1, 0xffff] {
        let mut packet = packet.clone();
        packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        refresh_ipv4(&mut packet);
        add(seeds, format!("ipv4_total_{total:05}"), to_gateway(IPV4, &packet));
    }
    let mut padded = to_gateway(IPV4, &packet);
    padded.resize(padded.len() + 6, 0xaa);
    add(seeds, "ipv4_padded", padded);
    let mut wrong = packet.clone();
    wrong[10] ^= 0x55;
    add(seeds, "ipv4_wrong_checksum", to_gateway(IPV4, &wrong));
    for hops in [0, 1, 255] {
        let mut packet = packet.clone();
        packet[8] = hops;
        refresh_ipv4(&mut packet);
        add(seeds, format!("ipv4_ttl_{hops}"), to_gateway(IPV4, &packet));
    }
    for (name, flags_and_offset, len) in [
        ("first", 0x2000, 64),
        ("first_64k", 0x2000, 65_512),
        ("middle", 0x2008, 64),
        ("last", 0x0010, 64),
        ("tiny", 0x2000, 8),
        ("overlap", 0x2001, 8),
        ("ping_of_death", 0x1fff, 64),
        ("odd_size", 0x2000, 13),
        ("reserved_bit", 0x8000, 64),
    ] {
        for (protocol, number) in [("tcp", TCP), ("icmp", ICMP)] {
            if len > 64 && number == TCP {
                continue;
            }
            let mut packet = ipv4(number, GATEWAY, &vec![0x50; len]);
            packet[6..8].copy_from_slice(&u16::to_be_bytes(flags_and_offset));
            refresh_ipv4(&mut packet);
            add(seeds, format!("ipv4_fragment_{name}_{protocol}"), to_gateway(IPV4, &packet));
        }
    }
    for protocol in [0, 2, 4, 17, 41, 47, 50, 58, 132, 255] {
        let packet = ipv4(protocol, SERVER, &[0; 16]);
        add(seeds, format!("ipv4_protocol_{protocol:03}"), to_gateway(IPV4, &packet));
    }
    for port in [7, 53, 67, 69] {
        let mut datagram = vec![0xc3, 0x50, 0, port, 0, 8, 0, 0];
        datagram.extend([0; 32]);
        add(seeds, format!("udp_to_{port}"), to_gateway(IPV4, &ipv4(17, GATEWAY, &datagram)));
    }
    for (name, address) in ADDRESSES_V4 {
        let from = ipv4_between(TCP, address, SERVER, &syn(&[]));
        add(seeds, format!("ipv4_from_{name}"), to_gateway(IPV4, &from));
        let to = ipv4_between(TCP, GUEST, address, &syn(&[]));
        add(seeds, format!("ipv4_to_{name}"), to_gateway(IPV4, &to));
    }
}

fn ipv6_seeds(seeds: &mut Seeds) {
    let packet = ipv6(TCP, SERVER_V6, &syn(&[]));
    add(seeds, "ipv6_syn", to_gateway(IPV6, &packet));
    for payload in [0, 1, 19, 21, 1280, 0xffff] {
        let mut packet = packet.clone();
        packet[4..6].copy_from_slice(&u16::to_be_bytes(payload));
        add(seeds, format!("ipv6_payload_{payload:05}"), to_gateway(IPV6, &packet));
    }
    for len in [0, 1, 39, 40, 41, 59] {
        add(seeds, format!("ipv6_len_{len:02}"), to_gateway(IPV6, &packet[..len]));
    }
    for version in [0, 4, 5, 15] {
        let mut packet = packet.clone();
        packet[0] = version << 4;
        add(seeds, format!("ipv6_version_{version:02}"), to_gateway(IPV6, &packet));
    }
    for next in [0, 17, 43, 44, 50, 51, 59, 60, 135, 255] {
        // As an extension header: TCP follows, 8 bytes of options, or a routing header of type 0.
        let mut payload = vec![TCP, 0, 1, 4, 0, 0, 0, 0];
        payload.extend(syn(&[]));
        let packet = ipv6(next, SERVER_V6, &payload);
        add(seeds, format!("ipv6_next_{next:03}"), to_gateway(IPV6, &packet));
    }
    for (name, address) in ADDRESSES_V6 {
        let from = ipv6_between(TCP, address, SERVER_V6, &syn(&[]));
        add(seeds, format!("ipv6_from_{name}"), to_gateway(IPV6, &from));
        let to = ipv6_between(TCP, GUEST_V6, address, &syn(&[]));
        add(seeds, format!("ipv6_to_{name}"), to_gateway(IPV6, &to));
    }
}

fn icmp_seeds(seeds: &mut Seeds) {
    let echo = icmp(8, 0, b"\x12\x34\0\x01abcdefgh");
    add(seeds, "icmp_echo", to_gateway(IPV4, &ipv4(ICMP, GATEWAY, &echo)));
    add(seeds, "icmp_echo_elsewhere", to_gateway(IPV4, &ipv4(ICMP, SERVER, &echo)));
    add(seeds, "icmp_echo_to_broadcast", ethernet(BROADCAST, IPV4, &ipv4(ICMP, [255; 4], &echo)));
    let with_options = ipv4_with_options(ICMP, GATEWAY, &[7, 7, 4, 0, 0, 0, 0, 0], &echo);
    add(seeds, "icmp_echo_record_route", to_gateway(IPV4, &with_options));
    for len in 0..echo.len() {
        let packet = ipv4(ICMP, GATEWAY, &echo[..len]);
        add(seeds, format!("icmp_echo_len_{len:02}"), to_gateway(IPV4, &packet));
    }
    let mut wrong = echo.clone();
    wrong[2] ^= 1;
    add(seeds, "icmp_echo_wrong_checksum", to_gateway(IPV4, &ipv4(ICMP, GATEWAY, &wrong)));
    add(seeds, "icmp_echo_code_1", {
        to_gateway(IPV4, &ipv4(ICMP, GATEWAY, &icmp(8, 1, b"\x12\x34\0\x01")))
    });
    for (name, size) in [("largest", 1468), ("too_large", 1469), ("64k", 65_000)] {
        let echo = icmp(8, 0, &vec![7; size + 4]);
        add(seeds, format!("icmp_echo_{name}"), to_gateway(IPV4, &ipv4(ICMP, GATEWAY, &echo)));
    }
    // An error in an error in an error.
    let mut nested = ipv4(TCP, SERVER, &syn(&[]));
    for _ in 0..10 {
        let mut body = vec![0; 4];
        body.extend(&nested);
        nested = ipv4(ICMP, GATEWAY, &icmp(3, 1, &body));
    }
    add(seeds, "icmp_error_in_error", to_gateway(IPV4, &nested));
    for kind in [0, 3, 4, 5, 9, 10, 11, 12, 13, 15, 17, 42, 255] {
        let packet = ipv4(ICMP, GATEWAY, &icmp(kind, 0, &[0; 24]));
        add(seeds, format!("icmp_type_{kind:03}"), to_gateway(IPV4, &packet));
    }
}

fn ndp_seeds(seeds: &mut Seeds) {
    let echo = |from, to| {
        to_gateway(
            IPV6,
            &ipv6_between(ICMPV6, from, to, &icmpv6(128, 0, from, to, b"\x12\x34\0\x01abcd")),
        )
    };
    add(seeds, "icmpv6_echo", echo(GUEST_V6, GATEWAY_V6));
    add(seeds, "icmpv6_echo_link_local", echo(GUEST_LINK_LOCAL, GATEWAY_LINK_LOCAL));
    add(seeds, "icmpv6_echo_from_unspecified", echo([0; 16], GATEWAY_V6));
    add(seeds, "icmpv6_echo_from_all_nodes", echo(ALL_NODES, GATEWAY_V6));
    add(seeds, "icmpv6_echo_to_all_nodes", echo(GUEST_V6, ALL_NODES));
    add(seeds, "icmpv6_echo_elsewhere", echo(GUEST_V6, SERVER_V6));
    let whole = icmpv6(128, 0, GUEST_V6, GATEWAY_V6, b"\x12\x34\0\x01abcd");
    for len in 0..whole.len() {
        let packet = ipv6(ICMPV6, GATEWAY_V6, &whole[..len]);
        add(seeds, format!("icmpv6_echo_len_{len:02}"), to_gateway(IPV6, &packet));
        // The header promises what the frame does not hold.
        let packet = ipv6(ICMPV6, GATEWAY_V6, &whole);
        let cut = to_gateway(IPV6, &packet[..40 + len]);
        add(seeds, format!("icmpv6_echo_cut_{len:02}"), cut);
    }
    let mut body = vec![0; 4];
    body.extend(ipv6(TCP, SERVER_V6, &syn(&[])));
    for kind in 0..=4 {
        let message = icmpv6(kind, 0, GUEST_V6, GATEWAY_V6, &body);
        for len in [4, 7, 8, 40, 43, 47, 48, message.len()] {
            let packet = ipv6(ICMPV6, GATEWAY_V6, &message[..len]);
            add(seeds, format!("icmpv6_error_{kind}_len_{len:02}"), to_gateway(IPV6, &packet));
        }
    }
    for kind in [130, 131, 132, 143, 144, 200, 255] {
        for len in [0, 16, 20] {
            let message = icmpv6(kind, 0, GUEST_V6, ALL_NODES, &vec![0; 4 + len]);
            let packet = ipv6(ICMPV6, ALL_NODES, &message);
            add(seeds, format!("icmpv6_type_{kind}_{len:02}"), to_gateway(IPV6, &packet));
        }
    }

    let link_layer: [u8; 8] = [1, 1, 2, 0x53, 0x4d, 0, 0, 2];
    let solicit = |target: [u8; 16], options: &[u8]| [&[0; 4], &target[..], options].concat();
    let ndp = |kind, from, to, hops, body: &[u8]| {
        let mut packet = ipv6_between(ICMPV6, from, to, &icmpv6(kind, 0, from, to, body));
        packet[7] = hops;
        ethernet([0x33, 0x33, 0xff, 0, 0, 1], IPV6, &packet)
    };
    let question = |from, hops, target, options: &[u8]| {
        ndp(135, from, SOLICITED_NODE, hops, &solicit(target, options))
    };
    add(seeds, "ns_gateway", question(GUEST_V6, 255, GATEWAY_V6, &link_layer));
    add(seeds, "ns_gateway_link_local", {
        question(GUEST_LINK_LOCAL, 255, GATEWAY_LINK_LOCAL, &link_layer)
    });
    add(seeds, "ns_unicast", ndp(135, GUEST_V6, GATEWAY_V6, 255, &solicit(GATEWAY_V6, &[])));
    add(seeds, "ns_hop_limit_254", question(GUEST_V6, 254, GATEWAY_V6, &link_layer));
    add(seeds, "ns_other_target", question(GUEST_V6, 255, SERVER_V6, &link_layer));
    add(seeds, "ns_multicast_target", question(GUEST_V6, 255, ALL_NODES, &link_layer));
    add(seeds, "ns_spoofed", question(SERVER_V6, 255, GATEWAY_V6, &link_layer));
    add(seeds, "ns_from_gateway", question(GATEWAY_V6, 255, GATEWAY_V6, &link_layer));
    add(seeds, "dad_guest", question([0; 16], 255, GUEST_V6, &[]));
    add(seeds, "dad_gateway", question([0; 16], 255, GATEWAY_V6, &[]));
    add(seeds, "dad_with_link_layer", question([0; 16], 255, GATEWAY_V6, &link_layer));
    for (name, options) in [
        ("len_0", &[1, 0, 0, 0, 0, 0, 0, 0][..]),
        ("len_beyond", &[1, 255, 0, 0, 0, 0, 0, 0]),
        ("cut", &[1, 1, 2, 0x53]),
        ("one_byte", &[1]),
        ("unknown", &[200, 1, 0, 0, 0, 0, 0, 0]),
        ("nonce", &[14, 1, 1, 2, 3, 4, 5, 6]),
        ("mtu", &[5, 1, 0, 0, 0, 0, 5, 0]),
        ("twice", &[1, 1, 2, 0x53, 0x4d, 0, 0, 2, 1, 1, 2, 0x53, 0x4d, 0, 0, 3]),
    ] {
        add(seeds, format!("ns_option_{name}"), question(GUEST_V6, 255, GATEWAY_V6, options));
    }
    let advert = [&[0x60, 0, 0, 0], &GATEWAY_V6[..], &[2, 1, 2, 0x53, 0x4d, 0, 0, 2]].concat();
    add(seeds, "na_for_gateway", ndp(136, GUEST_V6, ALL_NODES, 255, &advert));
    add(seeds, "na_short", ndp(136, GUEST_V6, ALL_NODES, 255, &advert[..12]));
    add(
        seeds,
        "rs",
        ndp(133, GUEST_LINK_LOCAL, ALL_ROUTERS, 255, &[&[0; 4], &link_layer[..]].concat()),
    );
    let nobody = [0; 16];
    for (name, from, hop_limit, options) in [
        ("rs_without_address", nobody, 255, &[][..]),
        ("rs_without_address_with_link_layer", nobody, 255, &link_layer[..]),
        ("rs_forwarded", GUEST_LINK_LOCAL, 64, &link_layer[..]),
        ("rs_option_len_0", GUEST_LINK_LOCAL, 255, &[1, 0, 0, 0, 0, 0, 0, 0]),
        ("rs_option_cut", GUEST_LINK_LOCAL, 255, &[1, 2, 0, 0, 0, 0, 0, 0]),
        ("rs_prefix_option_short", GUEST_LINK_LOCAL, 255, &[3, 1, 0, 0, 0, 0, 0, 0]),
    ] {
        let body = [&[0; 4], options].concat();
        add(seeds, name, ndp(133, from, ALL_ROUTERS, hop_limit, &body));
    }
    let mut router = vec![64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    router.extend([3, 4, 64, 0xc0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    router.extend(GUEST_V6);
    add(seeds, "ra_from_guest", ndp(134, GUEST_LINK_LOCAL, ALL_NODES, 255, &router));
    add(seeds, "ra_short_prefix", ndp(134, GUEST_LINK_LOCAL, ALL_NODES, 255, &router[..20]));
    let redirect = [&[0; 4], &SERVER_V6[..], &GUEST_V6[..]].concat();
    add(seeds, "redirect", ndp(137, GUEST_LINK_LOCAL, ALL_NODES, 255, &redirect));
    add(seeds, "redirect_short", ndp(137, GUEST_LINK_LOCAL, ALL_NODES, 255, &redirect[..20]));
}

fn tcp_seeds(seeds: &mut Seeds) {
    let v4 = |segment: &[u8]| to_gateway(IPV4, &ipv4(TCP, SERVER, segment));
    let v6 = |segment: &[u8]| to_gateway(IPV6, &ipv6(TCP, SERVER_V6, segment));
    for flags in
        [0, 1, 2, 3, 4, 6, 7, 8, 0x10, 0x11, 0x12, 0x14, 0x18, 0x20, 0x22, 0x29, 0x3f, 0xc2, 0xff]
    {
        add(seeds, format!("tcp_flags_{flags:02x}"), v4(&tcp(flags, &[], b"hello")));
        add(seeds, format!("tcp_v6_flags_{flags:02x}"), v6(&tcp(flags, &[], b"hello")));
    }
    let whole = syn(&[]);
    for len in 0..whole.len() {
        add(seeds, format!("tcp_len_{len:02}"), v4(&whole[..len]));
    }
    for words in 0..=15 {
        let mut segment = tcp(ACK, &[], &[1; 12]);
        segment[12] = words << 4;
        add(seeds, format!("tcp_offset_{words:02}"), v4(&segment));
    }
    for (name, at, value) in [
        ("source_0", 0, 0),
        ("destination_0", 2, 0),
        ("source_65535", 0, 0xffff),
        ("destination_65535", 2, 0xffff),
        ("window_0", 14, 0),
    ] {
        let mut segment = syn(&[]);
        segment[at..at + 2].copy_from_slice(&u16::to_be_bytes(value));
        add(seeds, format!("tcp_{name}"), v4(&segment));
    }
    for sequence in [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, u32::MAX] {
        for flags in [SYN, ACK] {
            let mut segment = tcp(flags, &[], if flags == ACK { b"hello" } else { b"" });
            segment[4..8].copy_from_slice(&u32::to_be_bytes(sequence));
            add(seeds, format!("tcp_sequence_{sequence:08x}_{flags:02x}"), v4(&segment));
        }
    }
    for kind in [0, 2, 3, 4, 5, 8, 34, 253] {
        for len in [0, 1, 3, 4, 10, 40] {
            let option = [kind, len, 0, 0, 1, 1, 1, 1];
            add(seeds, format!("tcp_option_{kind:03}_len_{len:02}"), v4(&syn(&option)));
        }
    }
    for mss in [0u16, 1, 48, 88, 536, 1220, 1459, 1460, 1461, 65_535] {
        let [high, low] = mss.to_be_bytes();
        add(seeds, format!("tcp_mss_{mss:05}"), v4(&syn(&[2, 4, high, low])));
    }
    for shift in [0, 7, 14, 15, 255] {
        add(seeds, format!("tcp_window_scale_{shift:03}"), v4(&syn(&[3, 3, shift, 0])));
    }
    let ordinary = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    add(seeds, "tcp_syn_of_linux", v4(&syn(&ordinary)));
    add(seeds, "tcp_syn_of_linux_v6", v6(&syn(&ordinary)));
    let sack = |blocks: &[u8]| [&[1, 1, 5, 2 + blocks.len() as u8], blocks].concat();
    for (name, blocks) in [
        ("one", &[0, 0, 0, 9, 0, 0, 0, 19][..]),
        ("backwards", &[0, 0, 0, 19, 0, 0, 0, 9]),
        ("wraps", &[255, 255, 255, 255, 0, 0, 0, 9]),
        ("half", &[0, 0, 0, 9]),
    ] {
        add(seeds, format!("tcp_sack_{name}"), v4(&tcp(ACK, &sack(blocks), &[])));
    }
    for (name, flags, payload) in [
        ("data", ACK | URG, &b"hello"[..]),
        ("empty", ACK | URG, b""),
        ("syn", SYN | URG, b""),
        ("fin", FIN | ACK | URG, b"hello"),
    ] {
        for pointer in [0, 1, 5, 6, 65_535] {
            let mut segment = tcp(flags, &[], payload);
            segment[18..20].copy_from_slice(&u16::to_be_bytes(pointer));
            add(seeds, format!("tcp_urgent_{name}_{pointer:05}"), v4(&segment));
        }
    }
    let mut wrong = tcp(ACK, &[], b"hello");
    wrong[16] ^= 0x55;
    add(seeds, "tcp_wrong_checksum", v4(&wrong));
    add(seeds, "tcp_full_size", v4(&tcp(ACK, &[], &[7; 1460])));
    add(seeds, "tcp_super_frame", v4(&tcp(ACK, &[], &[7; 65_495])));
    add(seeds, "tcp_super_frame_v6", v6(&tcp(ACK, &[], &[7; 65_476])));
}

/// The VMM's stream, after three bytes and a list that say how it is split (`bridge/check.rs`).
fn framing() -> Seeds {
    let mut seeds = Seeds::new();
    let mut stream = |name: &str, head: Head, bytes: Vec<u8>| {
        add(&mut seeds, name, head.before(&bytes));
    };
    let plain = Head::default();
    let ordinary = to_gateway(IPV4, &ipv4(TCP, SERVER, &tcp(ACK, &[], b"hello")));

    for len in [
        0,
        1,
        13,
        14,
        15,
        59,
        60,
        1514,
        1518,
        65_549,
        65_550,
        65_551,
        65_552,
        65_562,
        0x1_0000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_fff0,
        u32::MAX,
    ] {
        let body = vec![0x5a; if len <= 2000 { len as usize } else { 40 }];
        let frame = [&len.to_be_bytes(), &body[..]].concat();
        stream(&format!("length_{len:08x}"), plain, frame.clone());
        let second = [prefixed(&ordinary), frame].concat();
        stream(&format!("length_{len:08x}_second"), plain, second);
    }
    stream("length_largest", plain, prefixed(&[0x5a; 65_550]));
    stream("length_little_endian", plain, [&60u32.to_le_bytes()[..], &[0; 60]].concat());
    stream("length_two_bytes", plain, [&60u16.to_be_bytes()[..], &[0; 60]].concat());
    stream("empty", plain, Vec::new());
    stream("http", plain, b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n".to_vec());
    for len in 1..4 {
        stream(&format!("prefix_cut_{len}"), plain, prefixed(&ordinary)[..len].to_vec());
    }
    for len in [4, 5, 17, 18, 40, ordinary.len() + 3] {
        stream(&format!("frame_cut_{len:02}"), plain, prefixed(&ordinary)[..len].to_vec());
    }
    let all: Vec<u8> = (14..=200).flat_map(|len| prefixed(&vec![len as u8; len])).collect();
    stream("every_length", plain, all.clone());
    for sizes in [&[1][..], &[2], &[3, 1], &[0], &[36, 1, 0, 1], &[1; 15], &[255, 1]] {
        let name = sizes.iter().map(u8::to_string).collect::<Vec<_>>().join("_");
        stream(&format!("split_{name}"), Head { sizes, ..plain }, all.clone());
    }

    // Segments that are, or only seem to be, each other's continuation.
    let data = |at: u32, len: usize| {
        let mut segment = tcp(ACK, &[], &vec![at as u8; len]);
        segment[4..8].copy_from_slice(&at.to_be_bytes());
        segment
    };
    let v4 = |segment: &[u8]| to_gateway(IPV4, &ipv4(TCP, SERVER, segment));
    let v6 = |segment: &[u8]| to_gateway(IPV6, &ipv6(TCP, SERVER_V6, segment));
    let run = |frame: &dyn Fn(u32) -> Vec<u8>, n: u32| {
        (0..n).flat_map(|i| prefixed(&frame(i))).collect::<Vec<u8>>()
    };
    let cut = Head { limit: 243, ..plain };
    stream("run_v4", cut, run(&|i| v4(&data(i * 100, 100)), 20));
    stream("run_v6", cut, run(&|i| v6(&data(i * 100, 100)), 20));
    stream("run_wraps", cut, run(&|i| v4(&data((i * 100).wrapping_sub(950), 100)), 20));
    stream("run_backwards", cut, run(&|i| v4(&data(2000 - i * 100, 100)), 20));
    stream("run_repeated", cut, run(&|i| v4(&data(i / 2 * 100, 100)), 20));
    stream("run_with_gap", cut, run(&|i| v4(&data(i * 100 + i / 7, 100)), 20));
    stream("run_past_64k", cut, run(&|i| v4(&data(i * 1400, 1400)), 50));
    stream("run_past_64k_v6", Head { limit: 60, ..plain }, run(&|i| v6(&data(i * 1400, 1400)), 50));
    stream(
        "run_of_12_flows",
        cut,
        run(
            &|i| {
                let mut segment = data(i / 12 * 50, 50);
                segment[1] = i as u8 % 12;
                v4(&segment)
            },
            60,
        ),
    );
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 14] = [
        ("push", |frame| frame[47] |= 8),
        ("fin", |frame| frame[47] |= FIN),
        ("syn", |frame| frame[47] |= SYN),
        ("rst", |frame| frame[47] |= 4),
        ("urgent", |frame| frame[47] |= URG),
        ("ece", |frame| frame[47] |= 0x40),
        ("cwr", |frame| frame[47] |= 0x80),
        ("reserved", |frame| frame[46] |= 1),
        ("window", |frame| frame[48] ^= 1),
        ("acknowledgement", |frame| frame[42] ^= 1),
        ("ttl", |frame| frame[22] ^= 1),
        ("ip_checksum", |frame| frame[24] ^= 1),
        ("more_fragments", |frame| frame[20] |= 0x20),
        ("padding", |frame| frame.extend([0xaa; 6])),
    ];
    for (name, change) in changes {
        let frames = run(
            &|i| {
                let mut frame = v4(&data(i * 10, 10));
                if i % 4 == 2 {
                    change(&mut frame);
                    if name != "ip_checksum" {
                        refresh_ipv4(&mut frame[14..]);
                    }
                }
                frame
            },
            9,
        );
        stream(&format!("run_broken_by_{name}"), Head { limit: 2, ..plain }, frames);
    }
    // Frames whose headers the target makes a continuation of each other.
    let dressed = |flows: u8, size: u8, deviation: u8, flags: u8, len: usize, n: u32| {
        run(
            &|i| {
                let mut frame = vec![i as u8; len];
                frame[..4].copy_from_slice(&[i as u8 % flows, size, deviation, flags]);
                frame
            },
            n,
        )
    };
    let dress = Head { control: 1, ..cut };
    stream("dressed", dress, dressed(1, 5, 100, 0, 200, 30));
    stream("dressed_four_flows", dress, dressed(4, 5, 100, 0, 100, 60));
    stream("dressed_with_gaps", dress, dressed(2, 5, 251, 0, 100, 20));
    for flags in [1, 8, 0x20, 0x80] {
        let frames = dressed(1, 5, 10, flags, 100, 8);
        stream(&format!("dressed_flags_{flags:02x}"), dress, frames);
    }
    stream("dressed_large", dress, dressed(1, 255, 100, 0, 40_000, 2));
    for limit in [0, 1, 2, 255] {
        let head = Head { limit, ..dress };
        stream(&format!("dressed_limit_{limit:03}"), head, dressed(1, 9, 100, 0, 300, 10));
    }
    seeds
}

/// How the target reads what follows.
#[derive(Clone, Copy, Default)]
struct Head {
    /// 1: give the frames TCP headers that continue each other.
    control: u8,
    /// The largest frame that a cut may make: 55 and six times this.
    limit: u8,
    /// The stream comes in pieces of seven times these, over and over; 0 is all there is.
    sizes: &'static [u8],
}

impl Head {
    fn before(self, stream: &[u8]) -> Vec<u8> {
        let head = [self.control, self.sizes.len() as u8, self.limit];
        [&head, self.sizes, stream].concat()
    }
}

fn prefixed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

//! Frames, built by hand: a builder that can only make good ones is of no use here.

pub const ARP: u16 = 0x0806;
pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const ICMPV6: u8 = 58;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;

pub type Mac = [u8; 6];
pub type V4 = [u8; 4];
pub type V6 = [u8; 16];

pub const GUEST_MAC: Mac = [2, 0x53, 0x4d, 0, 0, 2];
pub const GATEWAY_MAC: Mac = [2, 0x53, 0x4d, 0, 0, 1];
pub const BROADCAST: Mac = [0xff; 6];
pub const GUEST: V4 = [100, 96, 0, 2];
pub const GATEWAY: V4 = [100, 96, 0, 1];
pub const SERVER: V4 = [192, 0, 2, 1];
pub const GUEST_V6: V6 = v6([0xfd53, 0x4d00, 0, 0, 0, 0, 0, 2]);
pub const GATEWAY_V6: V6 = v6([0xfd53, 0x4d00, 0, 0, 0, 0, 0, 1]);
pub const GUEST_LINK_LOCAL: V6 = v6([0xfe80, 0, 0, 0, 0x53, 0x4dff, 0xfe00, 2]);
pub const GATEWAY_LINK_LOCAL: V6 = v6([0xfe80, 0, 0, 0, 0x53, 0x4dff, 0xfe00, 1]);
pub const SERVER_V6: V6 = v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
pub const ALL_NODES: V6 = v6([0xff02, 0, 0, 0, 0, 0, 0, 1]);
pub const ALL_ROUTERS: V6 = v6([0xff02, 0, 0, 0, 0, 0, 0, 2]);
pub const SOLICITED_NODE: V6 = v6([0xff02, 0, 0, 0, 0, 1, 0xff00, 1]);

/// Addresses to come from and to go to that a gateway must think about.
pub const ADDRESSES_V4: [(&str, V4); 15] = [
    ("guest", GUEST),
    ("gateway", GATEWAY),
    ("unspecified", [0, 0, 0, 0]),
    ("this_network", [0, 1, 2, 3]),
    ("loopback", [127, 0, 0, 1]),
    ("loopback_end", [127, 255, 255, 254]),
    ("link_local", [169, 254, 169, 254]),
    ("metadata_alibaba", [100, 100, 100, 200]),
    ("metadata_azure", [168, 63, 129, 16]),
    ("multicast", [224, 0, 0, 1]),
    ("reserved", [240, 0, 0, 1]),
    ("broadcast", [255, 255, 255, 255]),
    ("subnet_broadcast", [100, 96, 0, 3]),
    ("subnet_network", [100, 96, 0, 0]),
    ("public", [8, 8, 8, 8]),
];

/// The same for IPv6, with the forms that carry an IPv4 address.
pub const ADDRESSES_V6: [(&str, V6); 19] = [
    ("guest", GUEST_V6),
    ("gateway", GATEWAY_V6),
    ("gateway_link_local", GATEWAY_LINK_LOCAL),
    ("neighbour", v6([0xfd53, 0x4d00, 0, 0, 0, 0, 0, 77])),
    ("unspecified", [0; 16]),
    ("loopback", v6([0, 0, 0, 0, 0, 0, 0, 1])),
    ("all_nodes", ALL_NODES),
    ("link_local", v6([0xfe80, 0, 0, 0, 0, 0, 0, 77])),
    ("site_local", v6([0xfec0, 0, 0, 0, 0, 0, 0, 1])),
    ("unique_local", v6([0xfd00, 1, 2, 3, 0, 0, 0, 4])),
    ("metadata_aws", v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254])),
    ("metadata_google", v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254])),
    ("mapped_loopback", v6([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1])),
    ("mapped_metadata", v6([0, 0, 0, 0, 0, 0xffff, 0xa9fe, 0xa9fe])),
    ("compatible_metadata", v6([0, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe])),
    ("translated_metadata", v6([0, 0, 0, 0, 0xffff, 0, 0xa9fe, 0xa9fe])),
    ("nat64_metadata", v6([0x64, 0xff9b, 0, 0, 0, 0, 0xa9fe, 0xa9fe])),
    ("6to4_metadata", v6([0x2002, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1])),
    ("nat64_local_metadata", v6([0x64, 0xff9b, 1, 0, 0, 0, 0xa9fe, 0xa9fe])),
];

const fn v6(segments: [u16; 8]) -> V6 {
    let mut bytes = [0; 16];
    let mut i = 0;
    while i < 8 {
        let [high, low] = segments[i].to_be_bytes();
        bytes[2 * i] = high;
        bytes[2 * i + 1] = low;
        i += 1;
    }
    bytes
}

pub fn ethernet(to: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &GUEST_MAC, &ethertype.to_be_bytes(), payload].concat()
}

pub fn to_gateway(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    ethernet(GATEWAY_MAC, ethertype, payload)
}

pub fn arp(operation: u16, sender: V4, target: V4) -> Vec<u8> {
    let kinds = [0, 1, 8, 0, 6, 4];
    [&kinds[..], &operation.to_be_bytes(), &GUEST_MAC, &sender, &[0; 6], &target].concat()
}

/// A packet of the guest. Checksums of TCP follow the addresses.
pub fn ipv4(protocol: u8, to: V4, payload: &[u8]) -> Vec<u8> {
    ipv4_between(protocol, GUEST, to, payload)
}

pub fn ipv4_between(protocol: u8, from: V4, to: V4, payload: &[u8]) -> Vec<u8> {
    packet_v4(protocol, from, to, &[], payload)
}

pub fn ipv4_with_options(protocol: u8, to: V4, options: &[u8], payload: &[u8]) -> Vec<u8> {
    packet_v4(protocol, GUEST, to, options, payload)
}

fn packet_v4(protocol: u8, from: V4, to: V4, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = 20 + options.len();
    let total = (header + payload.len()) as u16;
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend([from, to].concat());
    packet.extend(options);
    packet.extend(payload);
    if protocol == TCP {
        fill_tcp(&mut packet[header..], &[&from[..], &to].concat());
    }
    refresh_ipv4(&mut packet);
    packet
}

/// Writes the header checksum, for as much of a header as there is.
pub fn refresh_ipv4(packet: &mut [u8]) {
    let header = (usize::from(packet[0] & 15) * 4).clamp(20, packet.len().max(20));
    packet[10..12].fill(0);
    let sum = checksum(&packet[..header]);
    packet[10..12].copy_from_slice(&sum);
}

pub fn ipv6(next: u8, to: V6, payload: &[u8]) -> Vec<u8> {
    ipv6_between(next, GUEST_V6, to, payload)
}

pub fn ipv6_between(next: u8, from: V6, to: V6, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, if next == ICMPV6 { 255 } else { 64 }]);
    packet.extend([from, to].concat());
    packet.extend(payload);
    if next == TCP {
        fill_tcp(&mut packet[40..], &[&from[..], &to].concat());
    }
    packet
}

pub fn icmp(kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0], body].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

pub fn icmpv6(kind: u8, code: u8, from: V6, to: V6, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0], body].concat();
    let pseudo = [&from[..], &to, &(message.len() as u32).to_be_bytes(), &[0, 0, 0, ICMPV6]];
    let sum = checksum(&[&pseudo.concat()[..], &message].concat());
    message[2..4].copy_from_slice(&sum);
    message
}

pub fn syn(options: &[u8]) -> Vec<u8> {
    tcp(SYN, options, &[])
}

/// A segment to port 443, its options padded with zeros to a multiple of four.
pub fn tcp(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let options_len = options.len().next_multiple_of(4);
    let mut segment = vec![0xc3, 0x50, 1, 0xbb, 0, 0, 0, 7, 0, 0, 0, 9];
    segment.extend([((20 + options_len) / 4 * 16) as u8, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
    segment.extend(options);
    segment.resize(20 + options_len, 0);
    segment.extend(payload);
    segment
}

fn fill_tcp(segment: &mut [u8], addresses: &[u8]) {
    if segment.len() >= 18 && segment[16..18] == [0, 0] {
        let length = (segment.len() as u32).to_be_bytes();
        let pseudo = [addresses, &[0, 0, 0, TCP], &length].concat();
        let sum = checksum(&[&pseudo[..], segment].concat());
        segment[16..18].copy_from_slice(&sum);
    }
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!sum as u16).to_be_bytes()
}

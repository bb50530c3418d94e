//! DHCP messages of the guest (RFC 2131).

use super::frames::*;
use super::{Seeds, add};

const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const NOBODY: V4 = [0; 4];
const EVERYBODY: V4 = [255; 4];

pub fn dhcp_seeds(seeds: &mut Seeds) {
    let all = [
        &[61, 7, 1][..],
        &GUEST_MAC,
        &[55, 7, 1, 3, 6, 26, 51, 58, 59, 57, 2, 2, 64, 50, 4],
        &GUEST,
        &[80, 0, 255],
    ]
    .concat();
    let discover = message(DISCOVER, NOBODY, &all);
    add(seeds, "dhcp_discover", from_nobody(&discover));
    add(seeds, "dhcp_request", from_nobody(&message(REQUEST, NOBODY, &all)));
    for (name, kind) in [("decline", 4), ("release", 7), ("inform", 8), ("offer", 2), ("nak", 6)] {
        add(seeds, format!("dhcp_{name}"), from(GUEST, GATEWAY, &message(kind, GUEST, &all)));
    }
    for (name, address) in [("renew", GUEST), ("rebind_elsewhere", [192, 168, 1, 77])] {
        let message = message(REQUEST, address, &[255]);
        add(seeds, format!("dhcp_{name}"), from(address, EVERYBODY, &message));
    }
    // BOOTP that ends early: CVE-2021-3592.
    for len in [0, 1, 27, 28, 44, 235, 236, 239, 240, 241, 242, 243, 244, 260] {
        add(seeds, format!("dhcp_len_{len:03}"), from_nobody(&discover[..len]));
    }
    for (name, at, value) in [
        ("hlen_0", 2, 0),
        ("hlen_255", 2, 255),
        ("htype_6", 1, 6),
        ("reply", 0, 2),
        ("relayed", 24, 10),
        ("chaddr", 33, 9),
        ("cookie", 239, 0),
        ("broadcast_flag", 10, 0x80),
    ] {
        let mut message = discover.clone();
        message[at] = value;
        add(seeds, format!("dhcp_{name}"), from_nobody(&message));
    }
    let long_identifier = [&[61, 255][..], &[7; 255], &[80, 0, 255]].concat();
    for (name, options) in [
        ("no_end", &[12, 2, 65, 65][..]),
        ("option_empty", &[61, 0, 50, 0, 54, 0, 57, 0, 255]),
        ("option_too_long", &[50, 255, 1, 2, 3]),
        ("overload", &[52, 1, 3, 255]),
        ("max_size_0", &[57, 2, 0, 0, 255]),
        ("max_size_65535", &[57, 2, 255, 255, 255]),
        ("requested_broadcast", &[50, 4, 255, 255, 255, 255, 255]),
        ("identifier_255", &long_identifier),
    ] {
        for kind in [DISCOVER, REQUEST] {
            let message = message(kind, NOBODY, options);
            add(seeds, format!("dhcp_{name}_{kind}"), from_nobody(&message));
        }
    }
}

fn message(kind: u8, ciaddr: V4, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0];
    bytes.extend(ciaddr);
    bytes.resize(28, 0);
    bytes.extend(GUEST_MAC);
    // Options in `sname` and `file` too, for those that say so.
    bytes.resize(44, 0);
    bytes.extend([54, 4, 192, 168, 1, 1, 255]);
    bytes.resize(108, 0);
    bytes.extend([50, 4, 100, 96, 0, 2, 255]);
    bytes.resize(236, 0);
    bytes.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind]);
    bytes.extend(options);
    bytes
}

fn from_nobody(message: &[u8]) -> Vec<u8> {
    from(NOBODY, EVERYBODY, message)
}

fn from(source: V4, to: V4, message: &[u8]) -> Vec<u8> {
    let length = 8 + message.len() as u16;
    let datagram = [&[0, 68, 0, 67][..], &length.to_be_bytes(), &[0, 0], message].concat();
    let to_mac = if to == EVERYBODY { BROADCAST } else { GATEWAY_MAC };
    ethernet(to_mac, IPV4, &ipv4_between(17, source, to, &datagram))
}

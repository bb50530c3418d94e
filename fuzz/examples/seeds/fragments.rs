//! Sequences of fragments (RFC 791, RFC 8200): whole packets cut in every way, and what has broken
//! reassembly before.

use super::frames::*;
use super::{Seeds, add};

const REMOTE: V4 = [192, 0, 2, 9];
const REMOTE_V6: V6 = [0x20, 1, 0x0d, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;

/// Where a fragment's bytes belong, how many there are, and whether more follow.
type Cut = (usize, usize, bool);

const THREE: [Cut; 3] = [(0, 24, true), (24, 16, true), (40, 5, false)];

pub fn fragment_seeds() -> Seeds {
    let mut seeds = Seeds::new();
    for (family, frame) in [("v4", v4 as fn(Cut, u16) -> Vec<u8>), ("v6", v6)] {
        let mut put = |name: &str, cuts: &[Cut]| {
            let input = cuts.iter().flat_map(|cut| behind(0, &frame(*cut, 7))).collect();
            add(&mut seeds, format!("{family}_{name}"), input);
        };
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            put(
                &format!("order_{order:?}").replace([' ', ',', '[', ']'], ""),
                &order.map(|i| THREE[i]),
            );
        }
        put("twice", &[THREE[0], THREE[0], THREE[2], THREE[2], THREE[1]]);
        put("teardrop", &[(0, 24, true), (16, 4, false)]);
        put("overlap_before", &[(24, 16, true), (8, 24, true)]);
        put("overlap_inside", &[(0, 48, true), (16, 8, true)]);
        put("overlap_outside", &[(16, 8, true), (0, 48, true)]);
        put("two_ends", &[(16, 8, false), (32, 8, false)]);
        put("behind_the_end", &[(16, 8, false), (24, 8, true)]);
        put("ping_of_death", &[(0, 1480, true), (65_528, 400, false)]);
        put("largest_offset", &[(65_528, 1, false)]);
        put("empty_last", &[(0, 8, true), (8, 0, false)]);
        put("empty_first", &[(0, 0, true)]);
        put("odd", &[(0, 7, true), (8, 8, false)]);
        put("atomic", &[(0, 40, false)]);
        put("tiny", &(0..40).map(|i| (i * 8, 8, i < 39)).collect::<Vec<_>>());
        put("tiny_reversed", &(0..40).rev().map(|i| (i * 8, 8, i < 39)).collect::<Vec<_>>());
        let late = |cut, seconds| behind(seconds, &frame(cut, 7));
        let input = [late(THREE[0], 0), late(THREE[1], 29), late(THREE[2], 1)].concat();
        add(&mut seeds, format!("{family}_too_late"), input);
        let input = (0..80).flat_map(|id| behind(0, &frame(THREE[0], id))).collect();
        add(&mut seeds, format!("{family}_flood"), input);
        let mut cut = behind(0, &frame(THREE[0], 7));
        cut.truncate(40);
        add(&mut seeds, format!("{family}_truncated"), cut);
        let again = [late(THREE[0], 0), behind(0, &frame(THREE[2], 8)), late(THREE[2], 0)].concat();
        add(&mut seeds, format!("{family}_identifications"), again);
    }
    let nested = [FRAGMENT, 0, 0, 0, 0, 0, 0, 1].repeat(30);
    add(
        &mut seeds,
        "v6_nested",
        behind(0, &to_gateway(0x86dd, &ipv6(FRAGMENT, REMOTE_V6, &nested))),
    );
    seeds
}

/// A frame as the target takes it.
fn behind(seconds: u8, frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u16).to_be_bytes()[..], &[seconds], frame].concat()
}

fn bytes((offset, len, _): Cut) -> Vec<u8> {
    (offset..offset + len).map(|i| i as u8).collect()
}

fn v4(cut: Cut, id: u16) -> Vec<u8> {
    let mut packet = ipv4(UDP, REMOTE, &bytes(cut));
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    let more = if cut.2 { 0x2000 } else { 0 };
    packet[6..8].copy_from_slice(&((cut.0 / 8) as u16 | more).to_be_bytes());
    refresh_ipv4(&mut packet);
    to_gateway(0x0800, &packet)
}

fn v6(cut: Cut, id: u16) -> Vec<u8> {
    let field = (cut.0 as u16 & !7) | u16::from(cut.2);
    let mut body = vec![UDP, 0];
    body.extend(field.to_be_bytes());
    body.extend(u32::from(id).to_be_bytes());
    body.extend(bytes(cut));
    to_gateway(0x86dd, &ipv6(FRAGMENT, REMOTE_V6, &body))
}

use proptest::prelude::*;
use smoltcp::wire::{IpProtocol, Ipv4Packet};

use super::*;
use crate::gateway::testing::*;

const SERVER: [u8; 4] = [203, 0, 113, 9];

/// A fragment of a packet of the guest: `len` bytes of the payload's pattern from `offset` on.
#[derive(Clone, Copy, Debug)]
struct Cut {
    ipv6: bool,
    id: u16,
    offset: usize,
    len: usize,
    more: bool,
    salt: u8,
}

const CUT: Cut = Cut { ipv6: false, id: 7, offset: 0, len: 8, more: true, salt: 0 };

fn payload(from: usize, len: usize, salt: u8) -> Vec<u8> {
    (from..from + len).map(|i| (i * 3 + i / 256) as u8 ^ salt).collect()
}

impl Cut {
    fn frame(&self) -> Vec<u8> {
        let body = payload(self.offset, self.len, self.salt);
        let units = (self.offset / 8) as u16;
        if self.ipv6 {
            let field = units << 3 | u16::from(self.more);
            let mut extension = vec![17, 0];
            extension.extend_from_slice(&field.to_be_bytes());
            extension.extend_from_slice(&u32::from(self.id).to_be_bytes());
            let to = "2001:db9::9".parse().unwrap();
            let body = [extension, body].concat();
            return ipv6_packet(GUEST_V6, to, IpProtocol::Ipv6Frag, 64, &body);
        }
        let total = 20 + body.len();
        let mut frame = [&GATEWAY_MAC[..], &GUEST_MAC, &[8, 0]].concat();
        let flags = units | if self.more { 0x2000 } else { 0 };
        frame.extend_from_slice(&[0x45, 0]);
        frame.extend_from_slice(&(total as u16).to_be_bytes());
        frame.extend_from_slice(&self.id.to_be_bytes());
        frame.extend_from_slice(&flags.to_be_bytes());
        frame.extend_from_slice(&[64, 17, 0, 0]);
        frame.extend_from_slice(&GUEST.octets());
        frame.extend_from_slice(&SERVER);
        Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
        frame.extend_from_slice(&body);
        frame
    }
}

/// A reassembly and what it counted.
struct Surroundings {
    reassembly: Reassembly,
    counters: Counters,
    now: Instant,
}

impl Default for Surroundings {
    fn default() -> Self {
        let (reassembly, counters) = (Reassembly::default(), Counters::default());
        Self { reassembly, counters, now: Instant::ZERO }
    }
}

impl Surroundings {
    fn take(&mut self, cut: Cut) -> Result<Option<Vec<u8>>, DropReason> {
        let frame = cut.frame();
        let fragment = Fragment::parse(&frame)?;
        self.reassembly.take(&frame, &fragment, self.now, &self.counters)
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.counters.snapshot().dropped(reason)
    }
}

/// The payload of a whole packet, whose headers are checked.
#[track_caller]
fn payload_of(frame: &[u8], ipv6: bool) -> Vec<u8> {
    if ipv6 {
        assert_eq!(frame[20], 17);
        assert_eq!(usize::from(u16::from_be_bytes([frame[18], frame[19]])), frame.len() - 54);
        return frame[54..].to_vec();
    }
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    assert!(ip.verify_checksum() && !ip.more_frags() && ip.frag_offset() == 0);
    assert_eq!(usize::from(ip.total_len()), frame.len() - 14);
    frame[34..].to_vec()
}

/// Three fragments of 24, 16 and 5 bytes.
fn three(ipv6: bool) -> [Cut; 3] {
    [
        Cut { ipv6, len: 24, ..CUT },
        Cut { ipv6, offset: 24, len: 16, ..CUT },
        Cut { ipv6, offset: 40, len: 5, more: false, ..CUT },
    ]
}

#[test]
fn rfc_4787_req_14_fragments_in_every_order_make_the_packet() {
    for ipv6 in [false, true] {
        let cuts = three(ipv6);
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut surroundings = Surroundings::default();
            let results = order.map(|i| surroundings.take(cuts[i]).unwrap());
            assert!(results[0].is_none() && results[1].is_none());
            let whole = results[2].as_ref().unwrap();
            assert_eq!(payload_of(whole, ipv6), payload(0, 45, 0), "{order:?}");
            assert_eq!(surroundings.reassembly.next_deadline(), None);
            assert_eq!(surroundings.reassembly.bytes, 0);
        }
    }
}

#[test]
fn duplicates_are_tolerated() {
    let cuts = three(true);
    let mut surroundings = Surroundings::default();
    for i in [2, 2, 0, 0, 2] {
        assert_eq!(surroundings.take(cuts[i]), Ok(None));
    }
    assert!(surroundings.take(cuts[1]).unwrap().is_some());
}

#[test]
fn rfc_5722_overlaps_make_the_packet_void_for_good() {
    for ipv6 in [false, true] {
        // Teardrop, a last fragment within the first, one byte more, and the same bytes changed.
        for second in [
            Cut { ipv6, offset: 16, len: 16, ..CUT },
            Cut { ipv6, offset: 8, len: 4, more: false, ..CUT },
            Cut { ipv6, offset: 0, len: 32, ..CUT },
            Cut { ipv6, offset: 0, len: 8, ..CUT },
            Cut { ipv6, offset: 0, len: 24, salt: 1, ..CUT },
        ] {
            let mut surroundings = Surroundings::default();
            assert_eq!(surroundings.take(three(ipv6)[0]), Ok(None));
            assert_eq!(surroundings.take(second), Err(DropReason::Fragment), "{second:?}");
            for cut in three(ipv6) {
                assert_eq!(surroundings.take(cut), Err(DropReason::Fragment));
            }
            surroundings.now += TIME;
            assert_eq!(
                surroundings.reassembly.expire(surroundings.now, &surroundings.counters),
                Some(vec![])
            );
            let results = three(ipv6).map(|cut| surroundings.take(cut).unwrap());
            assert!(results[2].is_some(), "the identification is free again");
        }
    }
}

#[test]
fn two_ends_or_bytes_behind_the_end_make_the_packet_void() {
    let end = Cut { offset: 16, len: 8, more: false, ..CUT };
    for other in [
        Cut { offset: 32, len: 8, more: false, ..CUT },
        Cut { offset: 8, len: 8, more: false, ..CUT },
        Cut { offset: 24, len: 8, ..CUT },
    ] {
        for order in [[end, other], [other, end]] {
            let mut surroundings = Surroundings::default();
            assert_eq!(surroundings.take(order[0]), Ok(None));
            assert_eq!(surroundings.take(order[1]), Err(DropReason::Fragment), "{order:?}");
        }
    }
}

#[test]
fn the_ping_of_death_is_refused() {
    let mut surroundings = Surroundings::default();
    let last = Cut { offset: 65_528, len: 800, more: false, ..CUT };
    assert_eq!(surroundings.take(last), Err(DropReason::Fragment));
    assert_eq!(surroundings.take(Cut { ipv6: true, ..last }), Err(DropReason::Fragment));
    let exact = Cut { ipv6: true, offset: 65_528, len: 7, more: false, ..CUT };
    assert_eq!(surroundings.take(exact), Ok(None));
    assert_eq!(surroundings.take(Cut { len: 8, ..exact }), Err(DropReason::Fragment));
    // The header counts in IPv4.
    assert_eq!(surroundings.take(Cut { ipv6: false, ..exact }), Err(DropReason::Fragment));
    let exact = Cut { offset: 65_512, len: 3, more: false, ..CUT };
    assert_eq!(surroundings.take(exact), Ok(None));
    assert_eq!(surroundings.take(Cut { len: 4, ..exact }), Err(DropReason::Fragment));
}

#[test]
fn sizes_that_no_fragment_has_are_refused() {
    let mut surroundings = Surroundings::default();
    for ipv6 in [false, true] {
        for len in [0, 1, 7, 9, 23] {
            assert_eq!(
                surroundings.take(Cut { ipv6, len, ..CUT }),
                Err(DropReason::Fragment),
                "{len}"
            );
        }
        let empty = Cut { ipv6, offset: 8, len: 0, more: false, ..CUT };
        assert_eq!(surroundings.take(empty), Err(DropReason::Fragment));
    }
    assert_eq!(surroundings.reassembly.next_deadline(), None);
}

#[test]
fn the_smallest_fragments_make_the_largest_packet() {
    for ipv6 in [false, true] {
        let len = if ipv6 { 65_535 } else { 65_515 };
        let mut surroundings = Surroundings::default();
        let mut whole = None;
        for offset in (0..len).step_by(8).rev() {
            let part = 8.min(len - offset);
            let cut = Cut { ipv6, offset, len: part, more: offset + part < len, ..CUT };
            whole = surroundings.take(cut).unwrap();
        }
        assert!(payload_of(&whole.unwrap(), ipv6) == payload(0, len, 0));
    }
}

#[test]
fn rfc_6946_an_atomic_fragment_is_whole_by_itself() {
    let mut surroundings = Surroundings::default();
    surroundings.take(three(true)[0]).unwrap();
    for len in [0, 3, 800] {
        let atomic = Cut { ipv6: true, len, more: false, salt: 9, ..CUT };
        let whole = surroundings.take(atomic).unwrap().unwrap();
        assert_eq!(payload_of(&whole, true), payload(0, len, 9));
    }
    surroundings.take(three(true)[1]).unwrap();
    assert!(surroundings.take(three(true)[2]).unwrap().is_some());
}

#[test]
fn a_fragment_within_a_fragment_is_refused() {
    let mut frame = Cut { ipv6: true, more: false, ..CUT }.frame();
    frame[54] = 44;
    assert_eq!(Fragment::parse(&frame), Err(DropReason::ExtensionHeader));
}

#[test]
fn packets_of_other_identifications_addresses_and_protocols_are_others() {
    let mut surroundings = Surroundings::default();
    surroundings.take(three(false)[0]).unwrap();
    for change in [18, 23, 33] {
        let mut frame = three(false)[1].frame();
        frame[change] ^= 1;
        let fragment = Fragment::parse(&frame).unwrap();
        surroundings
            .reassembly
            .take(&frame, &fragment, surroundings.now, &surroundings.counters)
            .unwrap();
    }
    surroundings.take(three(true)[1]).unwrap();
    assert_eq!(surroundings.take(three(false)[2]), Ok(None));
    assert_eq!(surroundings.reassembly.partials.len(), 5);
    assert!(surroundings.take(three(false)[1]).unwrap().is_some());
}

#[test]
fn the_time_of_a_packet_runs_from_its_first_fragment() {
    let mut surroundings = Surroundings::default();
    let start = surroundings.now;
    surroundings.take(three(false)[0]).unwrap();
    surroundings.now += Duration::from_secs(20);
    surroundings.take(three(false)[1]).unwrap();
    assert_eq!(surroundings.reassembly.next_deadline(), Some(start + TIME));
    assert_eq!(surroundings.reassembly.expire(surroundings.now, &surroundings.counters), None);
    surroundings.now = start + TIME;
    let first = surroundings.reassembly.expire(surroundings.now, &surroundings.counters);
    assert_eq!(first, Some(three(false)[0].frame()), "what a time exceeded message quotes");
    assert_eq!(surroundings.dropped(DropReason::FragmentTimeout), 1);
    assert_eq!(surroundings.reassembly.expire(surroundings.now, &surroundings.counters), None);
    surroundings.take(three(false)[2]).unwrap();
    surroundings.now += TIME;
    let nothing_to_quote = surroundings.reassembly.expire(surroundings.now, &surroundings.counters);
    assert_eq!(nothing_to_quote, Some(vec![]));
}

#[test]
fn rfc_4787_req_14a_a_flood_of_first_fragments_stays_within_its_bounds() {
    let mut surroundings = Surroundings::default();
    for id in 0..10_000 {
        let first = Cut { id, len: 1480, ..CUT };
        assert_eq!(surroundings.take(first), Ok(None));
        assert!(surroundings.reassembly.partials.len() <= PACKETS);
        assert!(surroundings.reassembly.bytes <= BYTES);
        // An honest packet in the midst of it.
        if id % 100 == 0 {
            let honest = three(true).map(|cut| surroundings.take(Cut { id, ..cut }).unwrap());
            assert!(honest[2].is_some());
        }
    }
    assert_eq!(surroundings.dropped(DropReason::FragmentLimit), 10_000 - PACKETS as u64);
}

#[test]
fn large_packets_that_never_end_stay_within_their_bytes() {
    let mut surroundings = Surroundings::default();
    for id in 0..200 {
        for offset in (0..64_000).step_by(1600) {
            surroundings.take(Cut { id, offset, len: 1600, ..CUT }).unwrap();
            assert!(surroundings.reassembly.bytes <= BYTES);
        }
    }
    let held: usize = surroundings.reassembly.partials.iter().map(Partial::cost).sum();
    assert_eq!(held, surroundings.reassembly.bytes);
    assert!(held > BYTES / 2);
}

#[test]
fn truncated_fragments_are_refused() {
    for ipv6 in [false, true] {
        let frame = Cut { ipv6, ..CUT }.frame();
        for len in 0..frame.len() {
            assert!(Fragment::parse(&frame[..len]).is_err(), "{len} bytes");
        }
        assert!(Fragment::parse(&frame).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A random cut in random order with duplicates, mixed with a second packet cut in its own way.
    #[test]
    fn any_cut_in_any_order_makes_the_packet(
        ipv6: bool,
        cuts in proptest::collection::btree_set(1usize..400, 1..12),
        rest in 1usize..9,
        order in proptest::collection::vec((any::<proptest::sample::Index>(), 0u16..2), 0..60),
    ) {
        let ends: Vec<usize> = cuts.iter().map(|cut| cut * 8).collect();
        let len = ends[ends.len() - 1] + rest;
        let starts: Vec<usize> = std::iter::once(0).chain(ends.iter().copied()).collect();
        let pieces: Vec<Cut> = starts
            .iter()
            .zip(ends.iter().copied().chain([len]))
            .map(|(from, to)| Cut { ipv6, offset: *from, len: to - from, more: to < len, ..CUT })
            .collect();
        let mut surroundings = Surroundings::default();
        // The oracle: which pieces of which packet are there since it was whole last.
        let mut there = [vec![false; pieces.len()], vec![false; pieces.len()]];
        let in_order = (0..pieces.len()).flat_map(|i| [(i, 0), (i, 1)]);
        let random = order.iter().map(|(index, id)| (index.index(pieces.len()), *id));
        for (piece, id) in random.chain(in_order) {
            let cut = Cut { id, salt: id as u8, ..pieces[piece] };
            let seen = &mut there[usize::from(id)];
            seen[piece] = true;
            let whole = surroundings.take(cut).unwrap();
            prop_assert_eq!(whole.is_some(), seen.iter().all(|seen| *seen));
            if let Some(whole) = whole {
                seen.fill(false);
                prop_assert_eq!(payload_of(&whole, ipv6), payload(0, len, id as u8));
            }
        }
    }

    /// Whatever fragments come: no panic, no byte that is not where it was sent, and the books balance.
    #[test]
    fn any_fragments_make_only_what_was_sent(
        cuts in proptest::collection::vec(
            (0usize..12, 0usize..5, any::<bool>(), any::<bool>(), 0u16..3),
            1..200,
        ),
    ) {
        let mut surroundings = Surroundings::default();
        for (offset, units, more, ipv6, id) in cuts {
            let cut = Cut { ipv6, id, offset: offset * 8, len: units * 8, more, salt: id as u8 };
            if let Ok(Some(whole)) = surroundings.take(cut) {
                let whole = payload_of(&whole, ipv6);
                prop_assert_eq!(&whole, &payload(0, whole.len(), id as u8));
            }
            let held: usize = surroundings.reassembly.partials.iter().map(Partial::cost).sum();
            prop_assert_eq!(held, surroundings.reassembly.bytes);
        }
    }
}

//! The maximum segment size option (RFC 9293 section 3.7.1), in both directions.

use super::link::Link;
use crate::wire::{self, flag};

/// The TCP payload that the largest IP packet holds without options.
const LARGEST_V4: u16 = 65_535 - 40;
const LARGEST_V6: u16 = 65_535 - 60;

/// The option's kind.
const MSS: u8 = 2;

/// The MSS of a peer that names none (RFC 9293 section 3.7.1).
const DEFAULT_MSS: u16 = 536;

/// Rewrites the MSS option in the guest's SYN to what smoltcp may send at once, and returns what the
/// guest takes as one segment.
///
/// Where the writer cuts, that is a super-segment: as many full segments as an IP packet holds. A guest
/// that asks for less than its MTU allows gets its own size, cut by nobody.
pub(crate) fn tell_mss(syn: &mut [u8], link: &Link) -> usize {
    let mut mss = DEFAULT_MSS;
    if let Some(layout) = wire::tcp_layout(syn) {
        let full = link.mss(layout.ipv6);
        let largest = if layout.ipv6 { LARGEST_V6 } else { LARGEST_V4 };
        let slow = u16::try_from(link.super_segment).unwrap_or(u16::MAX);
        let largest = largest.min(slow.max(full));
        if let Some(tcp) = syn.get_mut(layout.tcp..layout.end) {
            for_each_mss(tcp, |offered| {
                mss = offered.min(full);
                if link.cuts && offered >= full { largest / full * full } else { mss }
            });
        }
    }
    usize::from(mss)
}

/// Lowers the MSS option of a SYN to `most`. smoltcp derives its own from the size of the largest
/// super-segment.
pub(crate) fn clamp_mss(segment: &mut [u8], most: u16) {
    if segment.get(13).is_none_or(|flags| flags & flag::SYN == 0) {
        return;
    }
    for_each_mss(segment, |offered| offered.min(most));
}

/// Replaces the value of each MSS option of a segment. A hostile SYN has more than one, and smoltcp
/// goes by the last.
fn for_each_mss(segment: &mut [u8], mut replace: impl FnMut(u16) -> u16) {
    wire::for_each_option(segment, |kind, value| {
        if let (MSS, [high, low]) = (kind, value) {
            [*high, *low] = replace(u16::from_be_bytes([*high, *low])).to_be_bytes();
        }
    });
}

#[cfg(test)]
mod tests;

//! The internet checksum (RFC 1071), as partial sums that can be added up.
//!
//! A partial sum is a plain number: sums of pieces are added with `+`, as long as every piece but
//! the last has an even length. The words are added in the machine's byte order, which the one's
//! complement sum allows (RFC 1071, 2(B)); [`fold`] turns the result round once.

/// The sum of the bytes as 16-bit words; an odd last byte counts as if a zero followed.
///
/// Two 32-bit halves go into one 64-bit lane, so no addition carries out of a lane for anything
/// below 16 GiB, and the loop has no branch and no carry: the compiler makes vector code of it.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; 4];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            let word = u64::from_ne_bytes(*word);
            *lane += (word & 0xffff_ffff) + (word >> 32);
        }
    }
    let (pairs, odd) = rest.as_chunks::<2>();
    let short: u64 = pairs.iter().map(|pair| u64::from(u16::from_ne_bytes(*pair))).sum();
    let last = odd.first().map_or(0, |byte| u64::from(u16::from_ne_bytes([*byte, 0])));
    lanes.iter().sum::<u64>() + short + last
}

/// The one's complement sum of a partial sum, as the number that the wire's two bytes mean: the
/// checksum field is its complement, and over data that hold a right checksum it is 0xffff.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::from_be(sum as u16)
}

/// The partial sum of the pseudo-header of IPv4 (RFC 9293, 3.1) or IPv6 (RFC 8200, 8.1), which add
/// up to the same: addresses, protocol, and the length of the upper layer's header and data.
pub(crate) fn pseudo_header(source: &[u8], destination: &[u8], protocol: u8, len: usize) -> u64 {
    let len = (len as u32).to_be_bytes();
    sum(source) + sum(destination) + sum(&[0, protocol]) + sum(&len)
}

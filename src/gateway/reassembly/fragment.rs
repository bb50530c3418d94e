//! One fragment: where its bytes belong, and the header that the whole packet gets.

use std::net::IpAddr;
use std::ops::Range;

use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6FragmentHeader, Ipv6Packet,
};

use crate::metrics::DropReason;
use crate::wire::{ETHERNET, put16};

const IPV6_HEADER: usize = 40;
const FRAGMENT_HEADER: usize = 8;
/// The largest IPv4 packet, and the largest payload of an IPv6 packet.
const LARGEST: usize = 65_535;

/// What makes two fragments parts of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    source: IpAddr,
    destination: IpAddr,
    protocol: IpProtocol,
    identification: u32,
}

/// A fragment that some packet may contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(super) key: Key,
    /// Where its payload belongs in the packet's payload, in bytes.
    pub(super) offset: usize,
    pub(super) more: bool,
    /// Its payload in the frame.
    pub(super) payload: Range<usize>,
}

impl Fragment {
    /// Parses a frame that is an IP fragment. In IPv6 the fragment header must be the first extension
    /// header.
    ///
    /// # Errors
    /// [`DropReason::Fragment`] for one that is cut where none can be cut or that reaches beyond the
    /// largest packet, [`DropReason::ExtensionHeader`] for a fragment within a fragment,
    /// [`DropReason::Malformed`] for what is no fragment.
    pub(crate) fn parse(frame: &[u8]) -> Result<Self, DropReason> {
        let malformed = |_| DropReason::Malformed;
        let ethernet = EthernetFrame::new_checked(frame).map_err(malformed)?;
        let fragment = match ethernet.ethertype() {
            EthernetProtocol::Ipv4 => {
                let ip = Ipv4Packet::new_checked(ethernet.payload()).map_err(malformed)?;
                let key = Key {
                    source: ip.src_addr().into(),
                    destination: ip.dst_addr().into(),
                    protocol: ip.next_header(),
                    identification: ip.ident().into(),
                };
                let header = usize::from(ip.header_len());
                Self {
                    key,
                    offset: ip.frag_offset().into(),
                    more: ip.more_frags(),
                    payload: ETHERNET + header..ETHERNET + usize::from(ip.total_len()),
                }
            }
            EthernetProtocol::Ipv6 => {
                let ip = Ipv6Packet::new_checked(ethernet.payload()).map_err(malformed)?;
                let (extension, _) = ip
                    .payload()
                    .split_first_chunk::<FRAGMENT_HEADER>()
                    .filter(|_| ip.next_header() == IpProtocol::Ipv6Frag)
                    .ok_or(DropReason::Malformed)?;
                let [protocol, _, fields @ ..] = extension;
                // Fragments within fragments would cost a pass for each eight bytes.
                if IpProtocol::from(*protocol) == IpProtocol::Ipv6Frag {
                    return Err(DropReason::ExtensionHeader);
                }
                let fields = Ipv6FragmentHeader::new_unchecked(&fields[..]);
                let key = Key {
                    source: ip.src_addr().into(),
                    destination: ip.dst_addr().into(),
                    protocol: (*protocol).into(),
                    identification: fields.ident(),
                };
                let start = ETHERNET + IPV6_HEADER + FRAGMENT_HEADER;
                Self {
                    key,
                    offset: usize::from(fields.frag_offset()) * 8,
                    more: fields.more_frags(),
                    payload: start..ETHERNET + ip.total_len(),
                }
            }
            _ => return Err(DropReason::Malformed),
        };
        fragment.check()
    }

    fn check(self) -> Result<Self, DropReason> {
        let len = self.payload.len();
        let header = match self.key.source {
            IpAddr::V4(_) => self.payload.start - ETHERNET,
            IpAddr::V6(_) => 0,
        };
        let is_atomic = self.offset == 0 && !self.more;
        let fits = self.offset + len + header <= LARGEST;
        if !fits || (len == 0 && !is_atomic) || (self.more && !len.is_multiple_of(8)) {
            return Err(DropReason::Fragment);
        }
        Ok(self)
    }
}

/// The frame of a whole packet: `head` is what stands before the first fragment's payload. `None` if the
/// header of the first fragment is longer than those of the others and the whole too long for it.
pub(super) fn whole<'p>(
    head: &[u8],
    key: &Key,
    pieces: impl Iterator<Item = &'p [u8]> + Clone,
) -> Option<Vec<u8>> {
    let ipv6 = key.source.is_ipv6();
    let header = if ipv6 { head.get(..head.len().checked_sub(FRAGMENT_HEADER)?)? } else { head };
    let len = header.len() + pieces.clone().map(<[u8]>::len).sum::<usize>();
    let mut frame = Vec::with_capacity(len);
    frame.extend_from_slice(header);
    pieces.for_each(|piece| frame.extend_from_slice(piece));
    if ipv6 {
        let payload = u16::try_from(len.checked_sub(ETHERNET + IPV6_HEADER)?).ok()?;
        put16(&mut frame, ETHERNET + 4, payload);
        *frame.get_mut(ETHERNET + 6)? = key.protocol.into();
        return Some(frame);
    }
    let total = u16::try_from(len.checked_sub(ETHERNET)?).ok()?;
    let mut ip = Ipv4Packet::new_unchecked(frame.get_mut(ETHERNET..)?);
    ip.set_total_len(total);
    ip.set_more_frags(false);
    ip.set_frag_offset(0);
    ip.fill_checksum();
    Some(frame)
}

//! IP packets made and read by hand, for what no socket of the guest's stack can do or see.

use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, Icmpv4Repr, Icmpv6Message,
    Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpControl,
    TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};

use super::Fault;

/// The hop limit of an ordinary packet.
const HOP_LIMIT: u8 = 64;

/// A whole packet of the gateway's whose checksums are right.
pub(in crate::demo) struct Packet {
    pub(in crate::demo) from: IpAddr,
    pub(in crate::demo) to: IpAddr,
    pub(in crate::demo) protocol: IpProtocol,
    pub(in crate::demo) payload: Vec<u8>,
    /// In how many fragments it came.
    pub(in crate::demo) fragments: usize,
}

/// An ICMP error that says that a destination cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::demo) enum Unreachable {
    /// Nobody listens at the port.
    Port,
    /// It is prohibited.
    Prohibited,
    /// Anything else.
    Other(u8),
}

impl Packet {
    /// The packet in a frame. A fragment gives it when it is the last; they come in order on this link.
    pub(super) fn parse(frame: &[u8], fragments: &mut Fragments) -> Option<Self> {
        let frame = EthernetFrame::new_checked(frame).ok()?;
        let packet = match frame.ethertype() {
            EthernetProtocol::Ipv4 => {
                let ip = Ipv4Packet::new_checked(frame.payload()).ok()?;
                if !ip.verify_checksum() {
                    return None;
                }
                let (payload, count) = match (ip.frag_offset(), ip.more_frags()) {
                    (0, false) => (ip.payload().to_vec(), 1),
                    (offset, more) => {
                        fragments.add(ip.ident(), offset.into(), more, ip.payload())?
                    }
                };
                Self {
                    from: ip.src_addr().into(),
                    to: ip.dst_addr().into(),
                    protocol: ip.next_header(),
                    payload,
                    fragments: count,
                }
            }
            EthernetProtocol::Ipv6 => {
                let ip = Ipv6Packet::new_checked(frame.payload()).ok()?;
                Self {
                    from: ip.src_addr().into(),
                    to: ip.dst_addr().into(),
                    protocol: ip.next_header(),
                    payload: ip.payload().to_vec(),
                    fragments: 1,
                }
            }
            _ => return None,
        };
        packet.is_sound().then_some(packet)
    }

    fn is_sound(&self) -> bool {
        let (from, to) = (self.from.into(), self.to.into());
        let bytes = self.payload.as_slice();
        match (self.protocol, self.from, self.to) {
            (IpProtocol::Udp, ..) => {
                UdpPacket::new_checked(bytes).is_ok_and(|udp| udp.verify_checksum(&from, &to))
            }
            (IpProtocol::Tcp, ..) => {
                TcpPacket::new_checked(bytes).is_ok_and(|tcp| tcp.verify_checksum(&from, &to))
            }
            (IpProtocol::Icmp, ..) => {
                Icmpv4Packet::new_checked(bytes).is_ok_and(|icmp| icmp.verify_checksum())
            }
            (IpProtocol::Icmpv6, IpAddr::V6(from), IpAddr::V6(to)) => {
                Icmpv6Packet::new_checked(bytes).is_ok_and(|icmp| icmp.verify_checksum(&from, &to))
            }
            _ => false,
        }
    }

    /// Where a datagram comes from, the guest's port, and what it carries.
    pub(in crate::demo) fn datagram(&self) -> Option<(SocketAddr, u16, &[u8])> {
        if self.protocol != IpProtocol::Udp {
            return None;
        }
        let udp = UdpPacket::new_checked(self.payload.as_slice()).ok()?;
        Some((SocketAddr::new(self.from, udp.src_port()), udp.dst_port(), udp.payload()))
    }

    /// The segment, if it asks for a connection: where it comes from, and the guest's port.
    pub(in crate::demo) fn connect(&self) -> Option<(SocketAddr, u16, TcpSeqNumber)> {
        if self.protocol != IpProtocol::Tcp {
            return None;
        }
        let tcp = TcpPacket::new_checked(self.payload.as_slice()).ok()?;
        let is_first = tcp.syn() && !tcp.ack();
        let from = SocketAddr::new(self.from, tcp.src_port());
        is_first.then(|| (from, tcp.dst_port(), tcp.seq_number()))
    }

    /// The error, if it is about a packet of this source port to this destination.
    pub(in crate::demo) fn unreachable(&self, port: u16, to: SocketAddr) -> Option<Unreachable> {
        let code = *self.payload.get(1)?;
        let (error, quote) = (self.payload.first()?, self.payload.get(8..)?);
        let (error, destination, upper) = match self.protocol {
            IpProtocol::Icmp if *error == u8::from(Icmpv4Message::DstUnreachable) => {
                let error = match code {
                    3 => Unreachable::Port,
                    13 => Unreachable::Prohibited,
                    code => Unreachable::Other(code),
                };
                let ip = Ipv4Packet::new_unchecked(quote);
                (error, IpAddr::from(<[u8; 4]>::try_from(quote.get(16..20)?).ok()?), {
                    quote.get(usize::from(ip.header_len())..)?
                })
            }
            IpProtocol::Icmpv6 if *error == u8::from(Icmpv6Message::DstUnreachable) => {
                let error = match code {
                    4 => Unreachable::Port,
                    1 => Unreachable::Prohibited,
                    code => Unreachable::Other(code),
                };
                let address = <[u8; 16]>::try_from(quote.get(24..40)?).ok()?;
                (error, IpAddr::from(address), quote.get(40..)?)
            }
            _ => return None,
        };
        // Both ports of TCP and UDP. An echo has none, but its identifier in another place.
        let is_ours = match to.port() {
            0 => upper.get(4..6)? == port.to_be_bytes(),
            _ => upper.get(..4)? == [port.to_be_bytes(), to.port().to_be_bytes()].concat(),
        };
        (is_ours && destination == to.ip()).then_some(error)
    }
}

/// A packet that comes in fragments.
#[derive(Default)]
pub(super) struct Fragments {
    id: u16,
    count: usize,
    bytes: Vec<u8>,
}

impl Fragments {
    fn add(&mut self, id: u16, at: usize, more: bool, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
        if at == 0 {
            *self = Self { id, ..Self::default() };
        }
        if id != self.id || at != self.bytes.len() {
            return None;
        }
        self.count += 1;
        self.bytes.extend_from_slice(bytes);
        (!more).then(|| (std::mem::take(&mut self.bytes), self.count))
    }
}

/// An IP packet.
pub(in crate::demo) fn ip(
    from: IpAddr,
    to: IpAddr,
    next_header: IpProtocol,
    payload: &[u8],
) -> Result<Vec<u8>, Fault> {
    ip_with_hop_limit(from, to, next_header, HOP_LIMIT, payload)
}

/// As [`ip`], with a hop limit of the caller's.
pub(in crate::demo) fn ip_with_hop_limit(
    from: IpAddr,
    to: IpAddr,
    next_header: IpProtocol,
    hop_limit: u8,
    payload: &[u8],
) -> Result<Vec<u8>, Fault> {
    let payload_len = payload.len();
    let mut bytes;
    match (from, to) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let repr = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit };
            bytes = vec![0; repr.buffer_len() + payload_len];
            let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
            repr.emit(&mut packet, &ChecksumCapabilities::default());
            packet.payload_mut().copy_from_slice(payload);
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            let repr = Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit };
            bytes = vec![0; repr.buffer_len() + payload_len];
            let mut packet = Ipv6Packet::new_unchecked(&mut bytes);
            repr.emit(&mut packet);
            packet.payload_mut().copy_from_slice(payload);
        }
        _ => return Err("a packet within one family only".into()),
    }
    Ok(bytes)
}

/// An IPv4 packet in fragments of `size` bytes, a multiple of 8.
pub(in crate::demo) fn fragments(packet: &[u8], size: usize) -> Result<Vec<Vec<u8>>, Fault> {
    const ID: u16 = 0x6667;
    let whole = Ipv4Packet::new_checked(packet)?;
    let (from, to) = (whole.src_addr().into(), whole.dst_addr().into());
    let last = whole.payload().len().div_ceil(size);
    let mut all = Vec::new();
    for (i, part) in whole.payload().chunks(size).enumerate() {
        let mut bytes = ip(from, to, whole.next_header(), part)?;
        let mut fragment = Ipv4Packet::new_unchecked(&mut bytes);
        fragment.set_ident(ID);
        fragment.set_dont_frag(false);
        fragment.set_more_frags(i + 1 < last);
        fragment.set_frag_offset(u16::try_from(i * size)?);
        fragment.fill_checksum();
        all.push(bytes);
    }
    Ok(all)
}

/// A datagram, as an IP packet.
pub(in crate::demo) fn udp(
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
) -> Result<Vec<u8>, Fault> {
    let repr = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let mut bytes = vec![0; repr.header_len() + payload.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut bytes),
        &from.ip().into(),
        &to.ip().into(),
        payload.len(),
        |place| place.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    ip(from.ip(), to.ip(), IpProtocol::Udp, &bytes)
}

/// A TCP segment that asks for a connection, or with `refuses` the one that refuses what has this
/// number, as an IP packet.
pub(in crate::demo) fn tcp(
    from: SocketAddr,
    to: SocketAddr,
    refuses: Option<TcpSeqNumber>,
) -> Result<Vec<u8>, Fault> {
    let repr = TcpRepr {
        src_port: from.port(),
        dst_port: to.port(),
        control: if refuses.is_some() { TcpControl::Rst } else { TcpControl::Syn },
        seq_number: TcpSeqNumber(0),
        ack_number: refuses.map(|number| number + 1),
        window_len: 65_535,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(
        &mut TcpPacket::new_unchecked(&mut bytes),
        &from.ip().into(),
        &to.ip().into(),
        &ChecksumCapabilities::default(),
    );
    ip(from.ip(), to.ip(), IpProtocol::Tcp, &bytes)
}

/// An ICMP or ICMPv6 echo request, or the reply to it.
pub(in crate::demo) fn echo(
    from: IpAddr,
    to: IpAddr,
    request: bool,
    ident: u16,
    seq_no: u16,
    data: &[u8],
) -> Result<Vec<u8>, Fault> {
    let checksums = ChecksumCapabilities::default();
    let mut message = vec![0; 8 + data.len()];
    match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let repr = match request {
                true => Icmpv4Repr::EchoRequest { ident, seq_no, data },
                false => Icmpv4Repr::EchoReply { ident, seq_no, data },
            };
            repr.emit(&mut Icmpv4Packet::new_unchecked(&mut message), &checksums);
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let repr = match request {
                true => Icmpv6Repr::EchoRequest { ident, seq_no, data },
                false => Icmpv6Repr::EchoReply { ident, seq_no, data },
            };
            let mut packet = Icmpv6Packet::new_unchecked(message.as_mut_slice());
            repr.emit(&from, &to, &mut packet, &checksums);
        }
        _ => return Err("an echo within one family only".into()),
    }
    Ok(message)
}

//! Datagrams, echo requests and fragments made by hand, and what comes back.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use framegate::{Builder, Runtime};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv6Packet, IpProtocol, Ipv4Packet,
    Ipv6Packet, UdpPacket,
};

use super::raw::{arp_request, ip_frame};
use super::wire::{Wire, start};
use super::{PATIENCE, check, guest_address};

/// What the gateway sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Udp {
        from: SocketAddr,
        to_port: u16,
        payload: Vec<u8>,
    },
    EchoReply {
        from: IpAddr,
        identifier: u16,
        sequence: u16,
        data: Vec<u8>,
    },
    /// Another ICMP message; `rest` is the field behind the checksum, `quote` what follows.
    Icmp {
        from: IpAddr,
        kind: u8,
        code: u8,
        rest: u32,
        quote: Vec<u8>,
    },
    Other,
}

/// A datagram of the guest.
#[derive(Clone, Copy)]
pub(crate) struct Datagram<'a> {
    pub(crate) from: u16,
    pub(crate) to: SocketAddr,
    pub(crate) payload: &'a [u8],
    pub(crate) hop_limit: u8,
    pub(crate) dont_fragment: bool,
}

impl<'a> Datagram<'a> {
    pub(crate) fn new(from: u16, to: SocketAddr, payload: &'a [u8]) -> Self {
        Self { from, to, payload, hop_limit: 64, dont_fragment: true }
    }

    /// The UDP header and the payload, with a right checksum.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut bytes = vec![0; 8 + self.payload.len()];
        bytes[8..].copy_from_slice(self.payload);
        let mut udp = UdpPacket::new_unchecked(&mut bytes[..]);
        udp.set_src_port(self.from);
        udp.set_dst_port(self.to.port());
        udp.set_len((8 + self.payload.len()) as u16);
        let guest = guest_address(self.to.ip());
        udp.fill_checksum(&guest.into(), &self.to.ip().into());
        bytes
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let guest = guest_address(self.to.ip());
        let mut frame = ip_frame(guest, self.to.ip(), IpProtocol::Udp, &self.body());
        set_hop_limit(&mut frame, self.hop_limit);
        if frame[12] == 8 {
            let mut ip = Ipv4Packet::new_unchecked(&mut frame[14..]);
            ip.set_dont_frag(self.dont_fragment);
            ip.fill_checksum();
        }
        frame
    }

    /// The datagram in fragments of `piece` bytes.
    pub(crate) fn fragments(&self, id: u16, piece: usize) -> Vec<Vec<u8>> {
        fragments(self.to.ip(), IpProtocol::Udp, &self.body(), id, piece)
    }
}

/// An IP packet of the guest in fragments of `piece` bytes.
pub(crate) fn fragments(
    to: IpAddr,
    protocol: IpProtocol,
    body: &[u8],
    id: u16,
    piece: usize,
) -> Vec<Vec<u8>> {
    let guest = guest_address(to);
    let count = body.len().div_ceil(piece);
    let pieces = body.chunks(piece).enumerate();
    pieces
        .map(|(i, part)| {
            let (offset, more) = (i * piece, i + 1 < count);
            if to.is_ipv4() {
                let mut frame = ip_frame(guest, to, protocol, part);
                let mut ip = Ipv4Packet::new_unchecked(&mut frame[14..]);
                ip.set_ident(id);
                ip.set_dont_frag(false);
                ip.set_more_frags(more);
                ip.set_frag_offset(offset as u16);
                ip.fill_checksum();
                return frame;
            }
            let mut bytes = vec![protocol.into(), 0];
            bytes.extend_from_slice(&(offset as u16 | u16::from(more)).to_be_bytes());
            bytes.extend_from_slice(&u32::from(id).to_be_bytes());
            bytes.extend_from_slice(part);
            ip_frame(guest, to, IpProtocol::Ipv6Frag, &bytes)
        })
        .collect()
}

pub(crate) fn set_hop_limit(frame: &mut [u8], hop_limit: u8) {
    if frame[12] == 8 {
        let mut ip = Ipv4Packet::new_unchecked(&mut frame[14..]);
        ip.set_hop_limit(hop_limit);
        ip.fill_checksum();
    } else {
        frame[21] = hop_limit;
    }
}

/// An ICMP message of the guest: type and code, the four bytes behind the checksum, the rest.
pub(crate) fn icmp_body(to: IpAddr, kind: u8, code: u8, rest: u32, data: &[u8]) -> Vec<u8> {
    let mut body = vec![kind, code, 0, 0];
    body.extend_from_slice(&rest.to_be_bytes());
    body.extend_from_slice(data);
    match (guest_address(to), to) {
        (IpAddr::V6(guest), IpAddr::V6(to)) => {
            Icmpv6Packet::new_unchecked(&mut body[..]).fill_checksum(&guest, &to);
        }
        _ => Icmpv4Packet::new_unchecked(&mut body[..]).fill_checksum(),
    }
    body
}

pub(crate) fn icmp(to: IpAddr, kind: u8, code: u8, rest: u32, data: &[u8]) -> Vec<u8> {
    let protocol = if to.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
    ip_frame(guest_address(to), to, protocol, &icmp_body(to, kind, code, rest, data))
}

/// An echo request.
pub(crate) fn echo(to: IpAddr, identifier: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    icmp(to, kind, 0, u32::from(identifier) << 16 | u32::from(sequence), data)
}

/// A guest that speaks datagrams.
pub(crate) struct Peer {
    pub(crate) wire: Wire,
    pub(crate) mtu: usize,
    partial: HashMap<u32, Vec<u8>>,
    /// Fragments that came.
    pub(crate) fragments: usize,
}

impl Peer {
    pub(crate) fn start(builder: Builder) -> (Runtime, Self) {
        let (runtime, wire) = start(builder);
        (runtime, Self { wire, mtu: 1500, partial: HashMap::new(), fragments: 0 })
    }

    pub(crate) fn send(&self, from: u16, to: SocketAddr, payload: &[u8]) {
        self.wire.send(&Datagram::new(from, to, payload).frame());
    }

    /// The next packet, whole.
    pub(crate) fn receive(&mut self, limit: Duration) -> Option<Seen> {
        let until = Instant::now() + limit;
        loop {
            let frame = self.wire.receive(until.saturating_duration_since(Instant::now()))?;
            check::frame(&frame, self.mtu);
            if let Some(seen) = self.parse(&frame) {
                return Some(seen);
            }
        }
    }

    fn parse(&mut self, frame: &[u8]) -> Option<Seen> {
        let ethernet = EthernetFrame::new_unchecked(frame);
        let packet = ethernet.payload();
        let (from, to, protocol, offset, more, id, payload): (IpAddr, IpAddr, _, _, _, _, _) =
            match ethernet.ethertype() {
                EthernetProtocol::Ipv4 => {
                    let ip = Ipv4Packet::new_unchecked(packet);
                    let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
                    let (offset, more) = (usize::from(ip.frag_offset()), ip.more_frags());
                    let id = u32::from(ip.ident());
                    (from, to, ip.next_header(), offset, more, id, ip.payload())
                }
                EthernetProtocol::Ipv6 => {
                    let ip = Ipv6Packet::new_unchecked(packet);
                    let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
                    if ip.next_header() == IpProtocol::Ipv6Frag {
                        let (head, rest) = ip.payload().split_at(8);
                        let field = u16::from_be_bytes([head[2], head[3]]);
                        let id = u32::from_be_bytes(head[4..8].try_into().unwrap());
                        let (offset, more) = (usize::from(field & !7), field & 1 != 0);
                        (from, to, head[0].into(), offset, more, id, rest)
                    } else {
                        (from, to, ip.next_header(), 0, false, 0, ip.payload())
                    }
                }
                _ => return Some(Seen::Other),
            };
        if offset == 0 && !more {
            return Some(message(from, to, protocol, payload));
        }
        self.fragments += 1;
        let partial = self.partial.entry(id).or_default();
        assert_eq!(partial.len(), offset, "fragments come in order");
        partial.extend_from_slice(payload);
        if more {
            return None;
        }
        let whole = self.partial.remove(&id).unwrap();
        Some(message(from, to, protocol, &whole))
    }

    /// The next packet but ARP.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Seen {
        loop {
            match self.receive(PATIENCE).expect("a packet") {
                Seen::Other => {}
                seen => return seen,
            }
        }
    }

    /// The next datagram.
    #[track_caller]
    pub(crate) fn datagram(&mut self) -> (SocketAddr, u16, Vec<u8>) {
        match self.next() {
            Seen::Udp { from, to_port, payload } => (from, to_port, payload),
            other => panic!("no datagram: {other:?}"),
        }
    }

    /// What came until the gateway had handled everything that was sent so far.
    pub(crate) fn barrier(&mut self) -> Vec<Seen> {
        let mut all = Vec::new();
        for _ in 0..3 {
            self.wire.send(&arp_request());
            loop {
                match self.receive(PATIENCE).expect("ARP is answered") {
                    Seen::Other => break,
                    seen => all.push(seen),
                }
            }
        }
        all
    }

    /// Waits until the counters are as `wanted`.
    #[track_caller]
    pub(crate) fn until(&mut self, runtime: &Runtime, wanted: impl Fn(&framegate::Stats) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !wanted(&runtime.stats()) {
            assert!(Instant::now() < until, "it never came: {}", runtime.stats());
            let _ = self.receive(Duration::from_millis(1));
        }
    }
}

fn message(from: IpAddr, to: IpAddr, protocol: IpProtocol, payload: &[u8]) -> Seen {
    match protocol {
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(payload).unwrap();
            assert!(udp.verify_checksum(&from.into(), &to.into()));
            Seen::Udp {
                from: SocketAddr::new(from, udp.src_port()),
                to_port: udp.dst_port(),
                payload: udp.payload().to_vec(),
            }
        }
        IpProtocol::Icmp | IpProtocol::Icmpv6 => {
            let rest = u32::from_be_bytes(payload[4..8].try_into().unwrap());
            if matches!((protocol, payload[0]), (IpProtocol::Icmp, 0) | (IpProtocol::Icmpv6, 129)) {
                return Seen::EchoReply {
                    from,
                    identifier: (rest >> 16) as u16,
                    sequence: rest as u16,
                    data: payload[8..].to_vec(),
                };
            }
            let (kind, code) = (payload[0], payload[1]);
            Seen::Icmp { from, kind, code, rest, quote: payload[8..].to_vec() }
        }
        _ => Seen::Other,
    }
}

/// Source and destination of a datagram that an error quotes, and its payload.
pub(crate) fn quoted(quote: &[u8]) -> (SocketAddr, SocketAddr, Vec<u8>) {
    let (source, destination, at): (IpAddr, IpAddr, _) = if quote[0] >> 4 == 4 {
        let address = |at: usize| <[u8; 4]>::try_from(&quote[at..at + 4]).unwrap();
        (Ipv4Addr::from(address(12)).into(), Ipv4Addr::from(address(16)).into(), 20)
    } else {
        let address = |at: usize| <[u8; 16]>::try_from(&quote[at..at + 16]).unwrap();
        (Ipv6Addr::from(address(8)).into(), Ipv6Addr::from(address(24)).into(), 40)
    };
    let port = |at: usize| u16::from_be_bytes([quote[at], quote[at + 1]]);
    (
        SocketAddr::new(source, port(at)),
        SocketAddr::new(destination, port(at + 2)),
        quote[at + 8..].to_vec(),
    )
}

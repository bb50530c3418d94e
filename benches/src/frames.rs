//! Frames of the guest.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const GUEST: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 96, 0, 2));
pub(crate) const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 96, 0, 1));
pub(crate) const GUEST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd53, 0x4d00, 0, 0, 0, 0, 0, 2));
pub(crate) const REMOTE: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));
pub(crate) const REMOTE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0, 1));

const GUEST_MAC: [u8; 6] = [0x02, 0x53, 0x4d, 0, 0, 2];
const GATEWAY_MAC: [u8; 6] = [0x02, 0x53, 0x4d, 0, 0, 1];

const TCP: u8 = 6;
const UDP: u8 = 17;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

/// What an ordinary segment carries at an MTU of 1500.
pub(crate) const MSS: usize = 1460;

/// A TCP segment.
#[derive(Clone, Copy)]
pub(crate) struct Tcp<'p> {
    pub(crate) ends: (IpAddr, IpAddr),
    pub(crate) ports: (u16, u16),
    pub(crate) sequence: u32,
    pub(crate) acknowledges: u32,
    pub(crate) flags: u8,
    pub(crate) options: &'p [u8],
    pub(crate) payload: &'p [u8],
}

impl Default for Tcp<'_> {
    fn default() -> Self {
        Self {
            ends: (GUEST, REMOTE),
            ports: (40_000, 443),
            sequence: 1,
            acknowledges: 1,
            flags: ACK,
            options: &[],
            payload: &[],
        }
    }
}

impl Tcp<'_> {
    /// The frame. Its TCP checksum is unset, as checksum offload leaves it: the gateway looks at none.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(20 + self.options.len() + self.payload.len());
        bytes.extend(self.ports.0.to_be_bytes());
        bytes.extend(self.ports.1.to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledges.to_be_bytes());
        let words = 5 + self.options.len() / 4;
        bytes.extend([(words << 4) as u8, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(self.options);
        bytes.extend(self.payload);
        packet(self.ends, TCP, &bytes)
    }
}

/// A UDP datagram, without a checksum as IPv4 allows.
pub(crate) fn udp(ends: (IpAddr, IpAddr), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 + payload.len());
    bytes.extend(ports.0.to_be_bytes());
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend(((8 + payload.len()) as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    packet(ends, UDP, &bytes)
}

fn packet(ends: (IpAddr, IpAddr), protocol: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(54 + body.len());
    frame.extend(GATEWAY_MAC);
    frame.extend(GUEST_MAC);
    match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([8, 0]);
            let mut header = [0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0]
                .into_iter()
                .chain(source.octets())
                .chain(destination.octets())
                .collect::<Vec<u8>>();
            header[2..4].copy_from_slice(&((20 + body.len()) as u16).to_be_bytes());
            let sum = !framegate::bench::checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((body.len() as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => panic!("two families"),
    }
    frame.extend(body);
    frame
}

/// Consecutive segments of one flow, full but for PSH on the last.
pub(crate) fn burst(first: Tcp<'_>, payload: &[u8], mss: usize) -> Vec<Vec<u8>> {
    let pieces = payload.chunks(mss).zip((0..).step_by(mss));
    pieces
        .map(|(piece, at)| {
            let is_last = at as usize + piece.len() == payload.len();
            let flags = first.flags | if is_last { PSH } else { 0 };
            let sequence = first.sequence.wrapping_add(at);
            Tcp { sequence, flags, payload: piece, ..first }.frame()
        })
        .collect()
}

/// The stream of these frames, as the VMM sends it.
pub(crate) fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend((frame.len() as u32).to_be_bytes());
        bytes.extend(frame);
    }
    bytes
}

//! UDP sockets with a limit on every wait, and IP packets that no socket would send.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::namespace::Namespace;
use super::pattern::Pattern;
use super::{sys, tcp};

/// What a socket that receives a burst may hold, in bytes.
const BUFFER: usize = 8 << 20;

/// The most that one datagram carries: over IPv4, and over IPv6 without a jumbo payload.
pub(crate) const MOST: [usize; 2] = [65_507, 65_527];

/// A socket inside with large buffers.
pub(crate) fn bind(inside: &Namespace, address: impl Into<SocketAddr>) -> UdpSocket {
    let address = address.into();
    let socket = inside
        .run(|| UdpSocket::bind(address))
        .unwrap_or_else(|error| panic!("{address}: {error}"));
    sys::force_receive_buffer(&socket, BUFFER).unwrap();
    SockRef::from(&socket).set_send_buffer_size(BUFFER).unwrap();
    socket.set_read_timeout(Some(tcp::LIMIT)).unwrap();
    socket
}

/// A socket in the calling thread's namespace that takes no IPv4 if its address is of IPv6.
pub(crate) fn bind_alone(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The address of the same family that stands for any.
pub(crate) fn unspecified(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The next datagram, and who sent it.
pub(crate) fn receive(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut buffer = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut buffer)?;
    buffer.truncate(length);
    Ok((buffer, from))
}

/// Sends it, waits for it at the other end, and compares every byte. Returns who sent it.
pub(crate) fn pass(from: &UdpSocket, to: SocketAddr, at: &UdpSocket, payload: &[u8]) -> SocketAddr {
    let sent = from.send_to(payload, to).unwrap_or_else(|error| panic!("to {to}: {error}"));
    assert_eq!(sent, payload.len());
    let (got, source) = receive(at).unwrap_or_else(|error| panic!("{sent} bytes to {to}: {error}"));
    assert!(got == payload, "sent {sent} bytes to {to}, and {} others came", got.len());
    source
}

/// As [`pass`], from a connected socket.
pub(crate) fn pass_connected(from: &UdpSocket, at: &UdpSocket, payload: &[u8]) -> SocketAddr {
    assert_eq!(from.send(payload).unwrap(), payload.len());
    let (got, source) = receive(at).unwrap();
    assert!(got == payload, "sent {} bytes, and {} others came", payload.len(), got.len());
    source
}

/// A socket that sends whole IP packets.
pub(crate) fn raw(inside: &Namespace, ip: IpAddr) -> Socket {
    let domain = Domain::for_address((ip, 0).into());
    // IPPROTO_RAW: the IP header comes from us, and nothing is received.
    let protocol = Protocol::from(libc::IPPROTO_RAW);
    inside.run(|| Socket::new(domain, Type::RAW, Some(protocol))).unwrap()
}

/// Sends an IP packet.
pub(crate) fn send_raw(raw: &Socket, packet: &[u8], to: IpAddr) {
    let sent = raw.send_to(packet, &SocketAddr::from((to, 0)).into()).unwrap();
    assert_eq!(sent, packet.len());
}

/// A UDP header and its payload, with the checksum.
pub(crate) fn datagram(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut datagram =
        [source.port(), destination.port(), length, 0].map(u16::to_be_bytes).concat();
    datagram.extend_from_slice(payload);
    let ends = [octets(source.ip()), octets(destination.ip())].concat();
    let pseudo = [&ends[..], &[0, 17], &length.to_be_bytes()].concat();
    let sum = ones_complement_sum(&[&pseudo[..], &datagram].concat());
    // Zero would mean that there is no checksum.
    let checksum = if sum == 0xffff { 0xffff } else { !sum };
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    datagram
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The IP packets that `datagram` makes when each carries `size` bytes of it, a multiple of 8.
pub(crate) fn fragments(
    (source, destination): (IpAddr, IpAddr),
    datagram: &[u8],
    size: usize,
    id: u16,
) -> Vec<Vec<u8>> {
    assert!(size > 0 && size.is_multiple_of(8));
    let last = (datagram.len() - 1) / size;
    let packet = |(index, part): (usize, &[u8])| {
        let (offset, more) = (index * size, index < last);
        let mut packet = match (source, destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                let length = u16::try_from(20 + part.len()).unwrap().to_be_bytes();
                let flags = (u16::from(more) << 13 | (offset / 8) as u16).to_be_bytes();
                // The kernel fills the checksum in.
                [&[0x45, 0][..], &length, &id.to_be_bytes(), &flags, &[64, 17, 0, 0]].concat()
            }
            _ => {
                let length = u16::try_from(8 + part.len()).unwrap().to_be_bytes();
                [&[0x60, 0, 0, 0][..], &length, &[44, 64]].concat()
            }
        };
        packet.extend(octets(source));
        packet.extend(octets(destination));
        if source.is_ipv6() {
            let flags = (offset as u16 | u16::from(more)).to_be_bytes();
            packet.extend([&[17, 0][..], &flags, &u32::from(id).to_be_bytes()].concat());
        }
        packet.extend(part);
        packet
    };
    datagram.chunks(size).enumerate().map(packet).collect()
}

/// Every order of 0 to `n` - 1.
pub(crate) fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let insert = |order: Vec<usize>| {
        (0..n).map(move |at| {
            let mut order = order.clone();
            order.insert(at, n - 1);
            order
        })
    };
    orders(n - 1).into_iter().flat_map(insert).collect()
}

/// An order of 0 to `n` - 1 that the seed determines.
pub(crate) fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let keys = Pattern::new(seed, 8 * n as u64).bytes();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|index| &keys[8 * index..8 * index + 8]);
    order
}

//! Datagrams to the host, and echo requests to somebody beyond the gateway.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Instant;

use framegate::{DropReason, LiveFlows, Policy};
use nix::ifaddrs::getifaddrs;
use smoltcp::wire::IpProtocol;
use socket2::{Domain, Protocol, Socket, Type};

use super::super::guest::Fault;
use super::super::guest::packets::{self, Unreachable, echo};
use super::super::servers;
use super::{LOOPBACK, LOOPBACK6, Lab, Short, listed};

/// Many datagrams at once, and back, none lost.
pub(super) fn burst(lab: &mut Lab) -> Result<String, Fault> {
    const DATAGRAMS: usize = 1_000;
    /// What a socket of the host holds that has the kernel's default buffer.
    const BURST: usize = 200;
    let server = servers::datagrams((LOOPBACK, 0).into())?;
    let guest = &mut lab.guest;
    let to = SocketAddr::new(guest.gateway(LOOPBACK), server.local_addr()?.port());
    let port = guest.port();
    let payload = |number: usize| -> Vec<u8> { (0..32).map(|i| (number + i) as u8).collect() };
    let began = Instant::now();
    for first in (0..DATAGRAMS).step_by(BURST) {
        let burst = first..first + BURST;
        for number in burst.clone() {
            guest.send_datagram(port, to, &payload(number))?;
        }
        let mut buffer = [0; 64];
        for number in burst.clone() {
            let (len, from) = server.recv_from(&mut buffer)?;
            let datagram = buffer.get(..len).unwrap_or_default();
            if datagram != payload(number) {
                return Err(format!("datagram {number} came as {datagram:02x?}").into());
            }
            server.send_to(datagram, from)?;
        }
        for number in burst {
            let (from, datagram) = guest.datagram(port)?;
            if (from, datagram.as_slice()) != (to, &payload(number)) {
                return Err(format!("datagram {number} came back as {datagram:02x?}").into());
            }
        }
    }
    let rate = DATAGRAMS as f64 / began.elapsed().as_secs_f64();
    Ok(format!("{DATAGRAMS} echoed in bursts of {BURST}, none lost, {rate:.0}/s"))
}

/// A datagram that is larger than the link's MTU, in fragments both ways.
pub(super) fn fragments(lab: &mut Lab) -> Result<String, Fault> {
    const SIZE: usize = 60_000;
    const FRAGMENT: usize = 1480;
    let server = servers::datagrams((LOOPBACK, 0).into())?;
    let guest = &mut lab.guest;
    let to = SocketAddr::new(guest.gateway(LOOPBACK), server.local_addr()?.port());
    let from = SocketAddr::new(guest.address(LOOPBACK), guest.port());
    let payload: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
    let began = Instant::now();
    let sent = packets::fragments(&packets::udp(from, to, &payload)?, FRAGMENT)?;
    for fragment in &sent {
        guest.send(fragment)?;
    }
    let mut buffer = vec![0; SIZE + 1];
    let (len, mapped) = server.recv_from(&mut buffer)?;
    if buffer.get(..len) != Some(&payload) {
        return Err(format!("{len} bytes of {SIZE} came, or others").into());
    }
    server.send_to(&payload, mapped)?;
    let received = guest.packets(|packet| {
        Ok(match packet.datagram() {
            Some((whom, port, back)) if (whom, port) == (to, from.port()) => {
                Some((back == payload).then_some(packet.fragments))
            }
            _ => None,
        })
    })?;
    let took = began.elapsed();
    let received = received.ok_or("other bytes came back")?;
    Ok(format!("{SIZE} bytes in {} fragments, and back in {received}, {}", sent.len(), Short(took)))
}

/// Where nobody listens, the guest is told so.
pub(super) fn refused(lab: &mut Lab) -> Result<String, Fault> {
    let guest = &mut lab.guest;
    let deserted = UdpSocket::bind((LOOPBACK, 0))?.local_addr()?.port();
    let to = SocketAddr::new(guest.gateway(LOOPBACK), deserted);
    let port = guest.port();
    let began = Instant::now();
    guest.send_datagram(port, to, b"is anybody there?")?;
    let error = guest.packets(|packet| Ok(packet.unreachable(port, to)))?;
    match error {
        Unreachable::Port => Ok(format!("port unreachable after {}", Short(began.elapsed()))),
        other => Err(format!("the guest was told {other:?}").into()),
    }
}

/// Echo requests to the host's own addresses, which the policy opens for this step: they leave by a ping
/// socket, and the kernel of the host answers them.
pub(super) fn ping_beyond(lab: &mut Lab) -> Result<String, Fault> {
    let addresses = host_addresses(lab);
    if addresses.is_empty() {
        return Ok("this host has no address but loopback's to ping".into());
    }
    let open = Policy::default().host_addresses(true);
    lab.handle.set_policy(&open, LiveFlows::Recheck)?;
    let began = Instant::now();
    let outcome = ping_all(lab, &addresses);
    let took = began.elapsed();
    lab.handle.set_policy(&Policy::default(), LiveFlows::Recheck)?;
    match outcome? {
        true => Ok(format!("{} of the host echoed, {}", listed(&addresses), Short(took))),
        false => Ok("the host forbids ping sockets, and the guest is told".into()),
    }
}

/// Whether all echo requests came back, or none (`false`), as the host permits.
fn ping_all(lab: &mut Lab, addresses: &[IpAddr]) -> Result<bool, Fault> {
    let mut echoed = 0;
    for address in addresses {
        let (replied, may) = (ping(lab, *address)?, may_ping(*address));
        if replied != may {
            let why = format!("{address}: a reply {replied}, and ping sockets permitted {may}");
            return Err(why.into());
        }
        echoed += usize::from(replied);
    }
    match echoed {
        0 => Ok(false),
        n if n == addresses.len() => Ok(true),
        n => Err(format!("{n} of {addresses:?} echoed").into()),
    }
}

/// Whether an echo request came back, or (`false`) the guest was told that it may not be sent.
fn ping(lab: &mut Lab, to: IpAddr) -> Result<bool, Fault> {
    let guest = &mut lab.guest;
    let (us, ident) = (guest.address(to), guest.port());
    let payload = b"who is beyond the gateway?";
    let protocol = if to.is_ipv4() { IpProtocol::Icmp } else { IpProtocol::Icmpv6 };
    let request = echo(us, to, true, ident, 1, payload)?;
    let reply = echo(to, us, false, ident, 1, payload)?;
    let forbidden = lab.handle.stats().dropped(DropReason::PingForbidden);
    guest.send(&packets::ip(us, to, protocol, &request)?)?;
    let replied = guest.packets(|packet| {
        if packet.from == to && packet.payload == reply {
            return Ok(Some(true));
        }
        match packet.unreachable(ident, SocketAddr::new(to, 0)) {
            Some(Unreachable::Prohibited) => Ok(Some(false)),
            Some(other) => Err(format!("the guest was told {other:?}").into()),
            None => Ok(None),
        }
    })?;
    let forbidden = lab.handle.stats().dropped(DropReason::PingForbidden) - forbidden;
    match forbidden == u64::from(!replied) {
        true => Ok(replied),
        false => Err(format!("replied: {replied}; {forbidden} counted as forbidden").into()),
    }
}

/// Whether the host lets this process have a ping socket.
fn may_ping(to: IpAddr) -> bool {
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    Socket::new(domain, Type::DGRAM, Some(protocol)).is_ok()
}

/// An address of the host for each family, if it has one that is not the same on every host.
fn host_addresses(lab: &Lab) -> Vec<IpAddr> {
    let all: Vec<IpAddr> = getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
        })
        .filter(|address| is_of_this_host_alone(*address))
        .filter(|address| {
            ![lab.guest.gateway(*address), lab.guest.address(*address)].contains(address)
        })
        // An address that is not in force yet cannot be bound.
        .filter(|address| UdpSocket::bind((*address, 0)).is_ok())
        .collect();
    let first = |family: IpAddr| all.iter().find(|it| it.is_ipv4() == family.is_ipv4()).copied();
    [LOOPBACK, LOOPBACK6].into_iter().filter_map(first).collect()
}

fn is_of_this_host_alone(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

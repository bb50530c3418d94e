//! Names: the gateway's own, and what its upstream says, over UDP and TCP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Instant;

use domain::base::Rtype;
use domain::base::iana::Rcode;
use smoltcp::socket::tcp;

use super::super::guest::{Fault, Guest, Next};
use super::super::upstream::{self, Answer};
use super::{LOOPBACK, LOOPBACK6, Lab, SMALL, Short};

const PORT: u16 = 53;

/// What the gateway's DNS says of a name, over UDP.
pub(super) fn resolve(
    guest: &mut Guest,
    family: IpAddr,
    name: &str,
    rtype: Rtype,
) -> Result<Answer, Fault> {
    let port = guest.port();
    let to = SocketAddr::new(guest.gateway(family), PORT);
    guest.send_datagram(port, to, &upstream::query(port, name, rtype)?)?;
    let (from, answer) = guest.datagram(port)?;
    if from != to {
        return Err(format!("{from} answered in place of {to}").into());
    }
    Answer::read(port, &answer)
}

/// The host has a name, which no upstream hears of.
pub(super) fn own_name(lab: &mut Lab) -> Result<String, Fault> {
    const HOST: &str = "host.framegate.internal";
    let before = lab.handle.stats().dns_local;
    let guest = &mut lab.guest;
    let began = Instant::now();
    let v4 = resolve(guest, LOOPBACK, HOST, Rtype::A)?.addresses;
    let v6 = resolve(guest, LOOPBACK6, HOST, Rtype::AAAA)?.addresses;
    let took = began.elapsed();
    if (v4, v6) != (vec![guest.gateway(LOOPBACK)], vec![guest.gateway(LOOPBACK6)]) {
        return Err(format!("{HOST} is not the gateway").into());
    }
    match lab.handle.stats().dns_local - before {
        2 => Ok(format!("{HOST}: A and AAAA in {}", Short(took))),
        n => Err(format!("the gateway itself answered {n} of 2 queries").into()),
    }
}

/// An answer of the upstream's, in a datagram.
pub(super) fn over_udp(lab: &mut Lab) -> Result<String, Fault> {
    let began = Instant::now();
    let answer = resolve(&mut lab.guest, LOOPBACK, upstream::ELSEWHERE, Rtype::A)?;
    let took = began.elapsed();
    let expected = upstream::ELSEWHERE_ADDRESS;
    match answer.addresses == [expected] {
        true => Ok(format!("{} is {expected}, {}", upstream::ELSEWHERE, Short(took))),
        false => Err(format!("{} is {:?}", upstream::ELSEWHERE, answer.addresses).into()),
    }
}

/// An answer that is too large for a datagram: truncated there, and whole over TCP.
pub(super) fn over_tcp(lab: &mut Lab) -> Result<String, Fault> {
    const ID: u16 = 0x6667;
    let guest = &mut lab.guest;
    let answer = resolve(guest, LOOPBACK, upstream::LARGE, Rtype::TXT)?;
    if !answer.is_truncated || answer.rcode != Rcode::NOERROR {
        return Err(format!("it should be truncated over UDP: {answer:?}").into());
    }
    let began = Instant::now();
    let query = upstream::query(ID, upstream::LARGE, Rtype::TXT)?;
    let query = [&u16::try_from(query.len())?.to_be_bytes(), query.as_slice()].concat();
    let socket = guest.open(SocketAddr::new(guest.gateway(LOOPBACK), PORT), SMALL)?;
    let mut is_sent = false;
    let mut bytes = Vec::new();
    let answer = guest.until(socket, |socket: &mut tcp::Socket<'_>| {
        if !is_sent {
            socket.send_slice(&query)?;
            is_sent = true;
        }
        let taken = bytes.len();
        socket.recv(|part| {
            bytes.extend_from_slice(part);
            (part.len(), ())
        })?;
        let Some((len, message)) = bytes.split_first_chunk() else { return Ok(Next::Wait) };
        Ok(match message.get(..u16::from_be_bytes(*len).into()) {
            Some(message) => Next::Done(Answer::read(ID, message)?),
            None if bytes.len() > taken => Next::Again,
            None => Next::Wait,
        })
    })?;
    let took = began.elapsed();
    guest.close(socket)?;
    match answer.text == upstream::large_text() {
        true => {
            Ok(format!("truncated over UDP, {} bytes over TCP, {}", answer.text.len(), Short(took)))
        }
        false => {
            Err(format!("{} bytes came, and not those of the upstream", answer.text.len()).into())
        }
    }
}

/// A name's IPv4 addresses.
pub(super) fn addresses(guest: &mut Guest, name: &str) -> Result<Vec<IpAddr>, Fault> {
    let answer = resolve(guest, Ipv4Addr::LOCALHOST.into(), name, Rtype::A)?;
    match answer.rcode {
        Rcode::NOERROR => Ok(answer.addresses),
        rcode => Err(format!("{name}: {rcode}").into()),
    }
}

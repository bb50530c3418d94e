//! What the demonstration shows: each step does one thing as a guest, checks it at both ends, and gives
//! the figure to print.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use framegate::MacAddress;
use sha2::{Digest, Sha256};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr};

use super::guest::{Fault, Guest, Next};
use super::servers::{self, Hash, Source};

/// The windows of a bulk transfer, and of a small exchange.
const LARGE: usize = 1 << 20;
const SMALL: usize = 4 << 10;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A step's name and what it does. The figure it gives is printed.
pub(super) type Step = (&'static str, fn(&mut Guest, Size) -> Result<String, Fault>);

/// How many MiB a bulk transfer has.
#[derive(Clone, Copy)]
pub(super) struct Size(pub(super) u32);

impl Size {
    fn bytes(self) -> u64 {
        u64::from(self.0) << 20
    }
}

/// All steps but the last, the shutdown, in their order.
pub(super) const STEPS: &[Step] = &[
    ("arp", |guest, _| arp(guest)),
    ("ping ipv4", |guest, _| ping(guest, LOOPBACK)),
    ("ping ipv6", |guest, _| ping(guest, LOOPBACK6)),
    ("tcp upload", upload),
    ("tcp download", download),
    ("tcp short", |guest, _| short(guest)),
    ("tcp refused", |guest, _| refused(guest)),
    ("tcp ipv6", |guest, _| one_over_ipv6(guest)),
];

/// The gateway has a MAC address, and says so.
fn arp(guest: &mut Guest) -> Result<String, Fault> {
    let began = Instant::now();
    let mac = guest.ask_for_gateway()?;
    Ok(format!("gateway is {} after {}", Mac(mac), Short(began.elapsed())))
}

/// The gateway answers echo requests, and with their payload.
fn ping(guest: &mut Guest, family: IpAddr) -> Result<String, Fault> {
    const REQUESTS: u16 = 5;
    const IDENT: u16 = 0x6667;
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4 << 10]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(IDENT))?;
    let socket = guest.add(socket);
    let (us, gateway) = (guest.address(family), guest.gateway(family));
    let mut times = Vec::new();
    for number in 0..REQUESTS {
        let payload: Vec<u8> = (0..56).map(|i| i + number as u8).collect();
        let request = echo(us, gateway, true, IDENT, number, &payload)?;
        let reply = echo(gateway, us, false, IDENT, number, &payload)?;
        let began = Instant::now();
        let mut sent = false;
        guest.until(socket, |socket: &mut icmp::Socket<'_>| {
            if !sent {
                socket.send_slice(&request, gateway.into())?;
                sent = true;
            }
            match socket.recv() {
                Ok((message, from)) if message == reply && from == gateway.into() => {
                    Ok(Next::Done(()))
                }
                Ok((message, from)) => Err(format!("{from} replied {message:02x?}").into()),
                Err(_) => Ok(Next::Wait),
            }
        })?;
        times.push(began.elapsed());
    }
    guest.remove(socket);
    times.sort_unstable();
    Ok(format!("{REQUESTS} of {REQUESTS} echoed, median {}", Short(at(&times, 50))))
}

/// An ICMP or ICMPv6 echo request, or the reply to it, with its checksum.
fn echo(
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

/// Bytes from the guest arrive, all of them; the guest closes its direction, and the server's answer
/// still comes through the other.
fn upload(guest: &mut Guest, size: Size) -> Result<String, Fault> {
    let server = servers::take_and_tell(LOOPBACK)?;
    let began = Instant::now();
    let socket = guest.open(SocketAddr::new(guest.gateway(LOOPBACK), server.port()), LARGE)?;
    let mut source = Source::new(size.bytes());
    while let Some(block) = source.next_block() {
        let mut left = block;
        guest.until(socket, |socket: &mut tcp::Socket<'_>| {
            if !socket.may_send() {
                return Err("the connection was reset".into());
            }
            let n = socket.send_slice(left)?;
            left = left.get(n..).unwrap_or_default();
            Ok(if left.is_empty() { Next::Done(()) } else { Next::Wait })
        })?;
    }
    guest.until(socket, |socket: &mut tcp::Socket<'_>| {
        socket.close();
        Ok(Next::Done(()))
    })?;
    let mut answer = Vec::new();
    guest.read_to_end(socket, |bytes| answer.extend_from_slice(bytes))?;
    let took = began.elapsed();
    guest.close(socket)?;
    server.finish()?;
    let hash = source.hash();
    let expected = [size.bytes().to_be_bytes().as_slice(), &hash].concat();
    match answer == expected {
        true => Ok(transferred(size, took, hash)),
        false => Err(format!("the server answered {answer:02x?}, not {expected:02x?}").into()),
    }
}

/// Bytes to the guest arrive, all of them, and the end of the stream behind them.
fn download(guest: &mut Guest, size: Size) -> Result<String, Fault> {
    let server = servers::give(LOOPBACK, size.bytes())?;
    let began = Instant::now();
    let socket = guest.open(SocketAddr::new(guest.gateway(LOOPBACK), server.port()), LARGE)?;
    let mut hash = Sha256::new();
    let mut count = 0;
    guest.read_to_end(socket, |bytes| {
        hash.update(bytes);
        count += bytes.len() as u64;
    })?;
    let took = began.elapsed();
    guest.close(socket)?;
    let (sent, received) = (server.finish()?, Hash::from(hash.finalize()));
    match count == size.bytes() && sent == received {
        true => Ok(transferred(size, took, received)),
        false => Err(format!(
            "{count} bytes of {} arrived, sha256 {}, not {}",
            size.bytes(),
            Start(received),
            Start(sent)
        )
        .into()),
    }
}

/// Connections one after another: open, a byte there and back, close.
fn short(guest: &mut Guest) -> Result<String, Fault> {
    const CONNECTIONS: usize = 200;
    let server = servers::echo(LOOPBACK, CONNECTIONS)?;
    let to = SocketAddr::new(guest.gateway(LOOPBACK), server.port());
    let began = Instant::now();
    let mut times = Vec::with_capacity(CONNECTIONS);
    for number in 0..CONNECTIONS {
        let began = Instant::now();
        exchange(guest, to, number as u8)?;
        times.push(began.elapsed());
    }
    let rate = CONNECTIONS as f64 / began.elapsed().as_secs_f64();
    server.finish()?;
    times.sort_unstable();
    let (median, worst) = (Short(at(&times, 50)), Short(at(&times, 99)));
    Ok(format!("{CONNECTIONS} connections, {rate:.0}/s, p50 {median}, p99 {worst}"))
}

/// Where nobody listens, the guest is told so: a reset, and not silence.
fn refused(guest: &mut Guest) -> Result<String, Fault> {
    let port = servers::deserted_port(LOOPBACK)?;
    let to = SocketAddr::new(guest.gateway(LOOPBACK), port);
    let began = Instant::now();
    let socket = guest.connect(to, SMALL)?;
    // smoltcp leaves SYN-SENT for CLOSED when a reset arrives, and for no other reason.
    if guest.is_accepted(socket)? {
        return Err(format!("{to} was accepted, and nobody listens there").into());
    }
    guest.remove(socket);
    Ok(format!("reset after {}", Short(began.elapsed())))
}

/// A small exchange over IPv6.
fn one_over_ipv6(guest: &mut Guest) -> Result<String, Fault> {
    let server = servers::echo(LOOPBACK6, 1)
        .map_err(|error| format!("this host cannot listen on its own ::1: {error}"))?;
    let to = SocketAddr::new(guest.gateway(LOOPBACK6), server.port());
    let began = Instant::now();
    exchange(guest, to, b'6')?;
    let took = began.elapsed();
    server.finish()?;
    Ok(format!("1 connection, {}", Short(took)))
}

/// One connection with one byte there and back.
fn exchange(guest: &mut Guest, to: SocketAddr, byte: u8) -> Result<(), Fault> {
    let socket = guest.open(to, SMALL)?;
    let mut sent = false;
    let back = guest.until(socket, |socket: &mut tcp::Socket<'_>| {
        if !sent {
            sent = socket.send_slice(&[byte])? == 1;
        }
        let mut back = [0];
        match socket.recv_slice(&mut back) {
            Ok(0) => Ok(Next::Wait),
            Ok(_) => Ok(Next::Done(back)),
            Err(error) => Err(format!("no byte came back: {error}").into()),
        }
    })?;
    guest.close(socket)?;
    match back == [byte] {
        true => Ok(()),
        false => Err(format!("sent {byte:#04x}, and {back:02x?} came back").into()),
    }
}

/// The value that `percent` of the sorted times do not exceed.
fn at(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

fn transferred(Size(mib): Size, took: Duration, hash: Hash) -> String {
    let seconds = took.as_secs_f64();
    let rate = Size(mib).bytes() as f64 * 8.0 / seconds / 1e9;
    format!("{mib} MiB in {seconds:.2} s, {rate:.2} Gb/s, sha256 {}", Start(hash))
}

/// A time of less than some seconds.
pub(super) struct Short(pub(super) Duration);

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_secs_f64() * 1e6 {
            micros if micros < 1000.0 => write!(f, "{micros:.0} µs"),
            micros => write!(f, "{:.1} ms", micros / 1e3),
        }
    }
}

/// A MAC address in the usual notation.
struct Mac(MacAddress);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The start of a hash, which is enough for the eye.
struct Start(Hash);

impl std::fmt::Display for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}…")
    }
}

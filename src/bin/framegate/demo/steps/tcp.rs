//! TCP to servers of the host.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

use super::super::guest::{Fault, Guest, Next};
use super::super::servers::{self, Hash, Source};
use super::{LARGE, LOOPBACK, LOOPBACK6, Lab, SMALL, Short, Size, at};

/// Bytes from the guest arrive, all of them; the guest closes its direction, and the server's answer
/// still comes through the other.
pub(super) fn upload(lab: &mut Lab) -> Result<String, Fault> {
    let (guest, size) = (&mut lab.guest, lab.size);
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
pub(super) fn download(lab: &mut Lab) -> Result<String, Fault> {
    let (took, hash) = fetch(&mut lab.guest, lab.size.bytes())?;
    Ok(transferred(lab.size, took, hash))
}

/// Downloads so many bytes: how long it took, and their hash.
pub(super) fn fetch(guest: &mut Guest, total: u64) -> Result<(Duration, Hash), Fault> {
    let server = servers::give(LOOPBACK, total)?;
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
    match count == total && sent == received {
        true => Ok((took, received)),
        false => Err(format!(
            "{count} bytes of {total} arrived, sha256 {}, not {}",
            Start(received),
            Start(sent)
        )
        .into()),
    }
}

/// Connections one after another: open, a byte there and back, close.
pub(super) fn short(lab: &mut Lab) -> Result<String, Fault> {
    const CONNECTIONS: usize = 200;
    let guest = &mut lab.guest;
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
pub(super) fn refused(lab: &mut Lab) -> Result<String, Fault> {
    let guest = &mut lab.guest;
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

/// A small exchange over IPv6, where the host has it.
pub(super) fn over_ipv6(lab: &mut Lab) -> Result<String, Fault> {
    let server = match servers::echo(LOOPBACK6, 1) {
        Ok(server) => server,
        Err(error) if is_without_ipv6(&error) => {
            return Ok("this host has no IPv6: there is nobody to connect to".into());
        }
        Err(error) => return Err(error.into()),
    };
    let to = SocketAddr::new(lab.guest.gateway(LOOPBACK6), server.port());
    let began = Instant::now();
    exchange(&mut lab.guest, to, b'6')?;
    let took = began.elapsed();
    server.finish()?;
    Ok(format!("1 connection to the host's ::1, {}", Short(took)))
}

/// Whether this is the error of a host that cannot listen at its own `::1`.
fn is_without_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let why = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(why, Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT))
}

/// One connection with one byte there and back.
pub(super) fn exchange(guest: &mut Guest, to: SocketAddr, byte: u8) -> Result<(), Fault> {
    let socket = guest.open(to, SMALL)?;
    there_and_back(guest, socket, byte)?;
    guest.close(socket)
}

/// A byte there and back, on a connection that is open.
pub(super) fn there_and_back(
    guest: &mut Guest,
    socket: SocketHandle,
    byte: u8,
) -> Result<(), Fault> {
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
    match back == [byte] {
        true => Ok(()),
        false => Err(format!("sent {byte:#04x}, and {back:02x?} came back").into()),
    }
}

fn transferred(Size(mib): Size, took: Duration, hash: Hash) -> String {
    let seconds = took.as_secs_f64();
    let rate = Size(mib).bytes() as f64 * 8.0 / seconds / 1e9;
    format!("{mib} MiB in {seconds:.2} s, {rate:.2} Gb/s, sha256 {}", Start(hash))
}

/// The start of a hash, which is enough for the eye.
struct Start(Hash);

impl std::fmt::Display for Start {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}…")
    }
}

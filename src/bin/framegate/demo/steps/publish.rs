//! Ports of the host that lead to the guest, added and removed while the network runs.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use framegate::{Publish, Published};
use smoltcp::socket::tcp;

use super::super::guest::{Fault, Guest, Next, packets};
use super::super::servers;
use super::{LOOPBACK, Lab, SMALL, Short};

/// The ports of the guest's servers.
const WEB: u16 = 80;
const ECHO: u16 = 7;
/// How long a client of the host waits.
const PATIENCE: Duration = Duration::from_secs(15);

/// A client of the host talks to a server in the guest; once that is gone, the next client is reset.
pub(super) fn tcp(lab: &mut Lab) -> Result<String, Fault> {
    const QUESTION: &[u8] = b"is the guest there?";
    let published = lab.handle.publish(&Publish::tcp((LOOPBACK, 0).into(), WEB))?;
    let host = first(&published)?;
    let guest = &mut lab.guest;
    let server = guest.listen(WEB, SMALL)?;
    let began = Instant::now();
    let client = thread::spawn(move || {
        let mut stream = connect(host)?;
        stream.write_all(QUESTION)?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    });
    let from = echo_to_end(guest, server)?;
    let answer = joined(client)?;
    let took = began.elapsed();
    guest.remove(server);
    if answer != QUESTION || from != Some(guest.gateway(LOOPBACK)) {
        return Err(format!("{answer:02x?} came back from the guest, called by {from:?}").into());
    }
    let began = Instant::now();
    let client = thread::spawn(move || {
        let ended = connect(host).and_then(|mut stream| stream.read(&mut [0]));
        Ok(ended.map_err(|error| error.kind()))
    });
    refuse(guest)?;
    let ended = joined(client)?;
    lab.handle.unpublish(published.id)?;
    match ended {
        Err(ErrorKind::ConnectionReset) => Ok(format!(
            "echoed by {host} in {}, reset after {}",
            Short(took),
            Short(began.elapsed())
        )),
        other => Err(format!("the guest refused, and the client saw {other:?}").into()),
    }
}

/// The guest's server: what one client sends goes back to it. Who called.
fn echo_to_end(
    guest: &mut Guest,
    socket: smoltcp::iface::SocketHandle,
) -> Result<Option<IpAddr>, Fault> {
    let mut from = None;
    guest.until(socket, |socket: &mut tcp::Socket<'_>| {
        from = from.or_else(|| socket.remote_endpoint().map(|remote| remote.addr.into()));
        let mut part = [0; SMALL];
        match socket.state() {
            tcp::State::Listen | tcp::State::SynReceived => return Ok(Next::Wait),
            tcp::State::Closed | tcp::State::TimeWait => return Ok(Next::Done(())),
            _ => {}
        }
        match socket.recv_slice(&mut part) {
            Ok(0) => Ok(Next::Wait),
            Ok(n) => {
                socket.send_slice(part.get(..n).unwrap_or_default())?;
                Ok(Next::Again)
            }
            Err(tcp::RecvError::Finished) => {
                socket.close();
                Ok(Next::Wait)
            }
            Err(error) => Err(error.into()),
        }
    })?;
    Ok(from)
}

/// Answers the next call as a stack does where nobody listens.
fn refuse(guest: &mut Guest) -> Result<(), Fault> {
    let (from, port, number) = guest.packets(|packet| Ok(packet.connect()))?;
    let us = SocketAddr::new(guest.address(from.ip()), port);
    guest.send(&packets::tcp(us, from, Some(number))?)
}

/// A datagram of the host's to the guest, and the answer to it.
pub(super) fn udp(lab: &mut Lab) -> Result<String, Fault> {
    let published = lab.handle.publish(&Publish::udp((LOOPBACK, 0).into(), ECHO))?;
    let host = first(&published)?;
    let client = servers::datagrams((LOOPBACK, 0).into())?;
    client.connect(host)?;
    let began = Instant::now();
    client.send(b"question")?;
    let guest = &mut lab.guest;
    let (from, question) = guest.datagram(ECHO)?;
    guest.send_datagram(ECHO, from, b"answer")?;
    let mut answer = [0; 64];
    let len = client.recv(&mut answer)?;
    let took = began.elapsed();
    lab.handle.unpublish(published.id)?;
    match (question.as_slice(), answer.get(..len)) {
        (b"question", Some(b"answer")) if from.ip() == lab.guest.gateway(LOOPBACK) => {
            Ok(format!("answered by {host}, {}", Short(took)))
        }
        other => Err(format!("{other:02x?}, from {from}").into()),
    }
}

/// A port that is published no more is closed, while what came through it stays.
pub(super) fn unpublish(lab: &mut Lab) -> Result<String, Fault> {
    let published = lab.handle.publish(&Publish::tcp((LOOPBACK, 0).into(), WEB))?;
    let host = first(&published)?;
    let server = lab.guest.listen(WEB, SMALL)?;
    let mut client = connect(host)?;
    lab.guest.until(server, |socket: &mut tcp::Socket<'_>| {
        Ok(if socket.may_send() { Next::Done(()) } else { Next::Wait })
    })?;
    let began = Instant::now();
    lab.handle.unpublish(published.id)?;
    let took = began.elapsed();
    match TcpStream::connect(host) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        other => return Err(format!("{host} is still there: {other:?}").into()),
    }
    client.write_all(b"still here")?;
    client.shutdown(Shutdown::Write)?;
    echo_to_end(&mut lab.guest, server)?;
    lab.guest.remove(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    match answer == b"still here" && lab.handle.published()?.is_empty() {
        true => Ok(format!("refused after {}, and its connection stays", Short(took))),
        false => Err(format!("{answer:02x?} came back after the port was closed").into()),
    }
}

fn first(published: &Published) -> Result<SocketAddr, Fault> {
    Ok(*published.addresses.first().ok_or("nothing was published")?)
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn joined<T>(client: JoinHandle<io::Result<T>>) -> Result<T, Fault> {
    Ok(client.join().map_err(|_| "the client panicked")??)
}

//! The DNS server that the gateway asks: a scripted one on the host's loopback, over UDP and TCP.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use domain::base::iana::{Class, Rcode};
use domain::base::{Message, MessageBuilder, Name, Rtype, Ttl};
use domain::rdata::{A, Txt};
use rustix::event::{PollFd, PollFlags};

use super::guest::Fault;

/// A name with an address somewhere else.
pub(super) const ELSEWHERE: &str = "www.demo.test";
/// The address of [`ELSEWHERE`].
pub(super) const ELSEWHERE_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// A name with the gateway's address, as a name of the host's would have.
pub(super) const ALLOWED: &str = "allowed.demo.test";
/// Another name with the same address.
pub(super) const DENIED: &str = "denied.demo.test";
/// A name with a text that no datagram to this guest holds.
pub(super) const LARGE: &str = "large.demo.test";

/// How long a client of the TCP port may be silent.
const PATIENCE: Duration = Duration::from_secs(5);
/// The text of [`LARGE`]: strings of so many bytes, so many of them.
const STRING: usize = 200;
const STRINGS: usize = 20;

/// The text of [`LARGE`], as the record holds it: each string behind its length.
pub(super) fn large_text() -> Vec<u8> {
    let strings = (0..STRINGS).map(|i| [b'a' + i as u8; STRING]);
    strings.flat_map(|string| [&[STRING as u8][..], &string].concat()).collect()
}

/// The server's thread, which ends when this is dropped.
pub(super) struct Upstream {
    address: SocketAddr,
    /// The other end of what the thread watches.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Upstream {
    /// Starts it; `gateway` is the address of the names that are the host's.
    pub(super) fn start(gateway: Ipv4Addr) -> io::Result<Self> {
        let (udp, tcp) = bind()?;
        let address = udp.local_addr()?;
        let (stop, stopped) = UnixStream::pair()?;
        let thread = std::thread::Builder::new().name("demo-dns".into());
        let thread = thread.spawn(move || serve(&udp, &tcp, &stopped, gateway))?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            tracing::warn!("the demo's DNS server: {error}");
        }
    }
}

/// One port that is free over UDP and over TCP.
fn bind() -> io::Result<(UdpSocket, TcpListener)> {
    const TRIES: usize = 100;
    let mut result = Err(io::ErrorKind::AddrInUse.into());
    for _ in 0..TRIES {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        match TcpListener::bind(udp.local_addr()?) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) => result = Err(error),
        }
    }
    result
}

fn serve(
    udp: &UdpSocket,
    tcp: &TcpListener,
    stopped: &UnixStream,
    gateway: Ipv4Addr,
) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let mut fds = [
            PollFd::new(stopped, PollFlags::IN),
            PollFd::new(udp, PollFlags::IN),
            PollFd::new(tcp, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [stopped, datagram, stream] = fds.map(|fd| !fd.revents().is_empty());
        if stopped {
            return Ok(());
        }
        if datagram {
            let (len, from) = udp.recv_from(&mut buffer)?;
            if let Some(answer) = buffer.get(..len).and_then(|it| answer(it, gateway, false)) {
                udp.send_to(&answer, from)?;
            }
        }
        if stream {
            serve_stream(tcp, gateway)?;
        }
    }
}

/// One query of one client.
fn serve_stream(tcp: &TcpListener, gateway: Ipv4Addr) -> io::Result<()> {
    let (mut stream, _) = tcp.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut query = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut query)?;
    let answer = answer(&query, gateway, true).unwrap_or_default();
    let len = u16::try_from(answer.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), answer.as_slice()].concat())
}

fn answer(query: &[u8], gateway: Ipv4Addr, is_stream: bool) -> Option<Vec<u8>> {
    let query = Message::from_slice(query).ok()?;
    let question = query.first_question()?;
    let name = question.qname().to_string();
    let text = large_text();
    let rcode = match name.as_str() {
        ELSEWHERE | ALLOWED | DENIED | LARGE => Rcode::NOERROR,
        _ => Rcode::NXDOMAIN,
    };
    let mut builder = MessageBuilder::new_vec().start_answer(query, rcode).ok()?;
    let ttl = Ttl::from_secs(60);
    let place = (question.qname(), Class::IN, ttl);
    match (name.as_str(), question.qtype()) {
        (ELSEWHERE, Rtype::A) => {
            builder.push((place.0, place.1, place.2, A::new(ELSEWHERE_ADDRESS))).ok()?
        }
        (ALLOWED | DENIED, Rtype::A) => {
            builder.push((place.0, place.1, place.2, A::new(gateway))).ok()?
        }
        (LARGE, Rtype::TXT) if is_stream => {
            builder.push((place.0, place.1, place.2, Txt::from_octets(text).ok()?)).ok()?;
        }
        (LARGE, Rtype::TXT) => builder.header_mut().set_tc(true),
        _ => {}
    }
    Some(builder.finish())
}

/// A query for a name.
pub(super) fn query(id: u16, name: &str, rtype: Rtype) -> Result<Vec<u8>, Fault> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((name.parse::<Name<Vec<u8>>>()?, rtype))?;
    Ok(builder.finish())
}

/// What an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) rcode: Rcode,
    pub(super) is_truncated: bool,
    pub(super) addresses: Vec<IpAddr>,
    /// The data of text records.
    pub(super) text: Vec<u8>,
}

impl Answer {
    /// Reads the answer to the query of this id.
    pub(super) fn read(id: u16, bytes: &[u8]) -> Result<Self, Fault> {
        let message = Message::from_slice(bytes)?;
        let header = message.header();
        if header.id() != id || !header.qr() {
            return Err(format!("no answer to the query: {bytes:02x?}").into());
        }
        let mut addresses = Vec::new();
        for record in message.answer()?.limit_to::<A>() {
            addresses.push(record?.data().addr().into());
        }
        for record in message.answer()?.limit_to::<domain::rdata::Aaaa>() {
            addresses.push(record?.data().addr().into());
        }
        let mut text = Vec::new();
        for record in message.answer()?.limit_to::<Txt<_>>() {
            for string in record?.data().iter() {
                text.push(u8::try_from(string.len())?);
                text.extend_from_slice(string);
            }
        }
        Ok(Self { rcode: header.rcode(), is_truncated: header.tc(), addresses, text })
    }
}

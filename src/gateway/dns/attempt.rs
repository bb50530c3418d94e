//! One query to one upstream, over a socket of its own.
//!
//! The kernel chooses the port at random and lets through what comes from that upstream alone; the id
//! is random too (RFC 5452 section 9.2). Nothing here blocks.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use smoltcp::time::Instant;
use socket2::{Domain, Protocol, Socket, Type};

use super::message::{self, Query, Verdict};

/// The largest message that there is, in bytes.
pub(crate) const LARGEST: usize = 65_535;
/// Datagrams that are no answer, after which the upstream is given up: somebody guesses.
const GUESSES: u32 = 64;

/// A query that was sent, or is being sent.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) owner: Owner,
    pub(crate) upstream: SocketAddr,
    pub(crate) sent: Instant,
    /// Whether it has waited so long that others were asked too.
    pub(crate) is_late: bool,
    /// Whether it is to find out that a dead upstream lives, whoever else answers the query.
    pub(crate) is_probe: bool,
    id: u16,
    channel: Channel,
}

/// Whom an answer is for.
#[derive(Clone, Debug)]
pub(crate) enum Owner {
    Query(usize),
    /// The query was answered by another upstream.
    Nobody(Query),
}

#[derive(Debug)]
enum Channel {
    Datagram { socket: Socket, guesses: u32 },
    Stream { socket: Socket, output: Vec<u8>, written: usize, input: Vec<u8> },
}

/// What has become of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Waits,
    Answered(Verdict, Vec<u8>),
    Failed,
}

impl Attempt {
    /// Sends `message` under another id.
    pub(crate) fn start(
        owner: Owner,
        (upstream, is_stream): (SocketAddr, bool),
        id: u16,
        mut message: Vec<u8>,
        (registry, token): (&Registry, Token),
        now: Instant,
    ) -> io::Result<Self> {
        message::set_id(&mut message, id);
        let kind = if is_stream { Type::STREAM } else { Type::DGRAM };
        let protocol = if is_stream { Protocol::TCP } else { Protocol::UDP };
        let domain = Domain::for_address(upstream);
        let socket = Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol))?;
        match socket.connect(&upstream.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let mut interest = Interest::READABLE;
        let channel = if is_stream {
            socket.set_tcp_nodelay(true)?;
            interest |= Interest::WRITABLE;
            let length = u16::try_from(message.len()).map_err(io::Error::other)?;
            let output = [&length.to_be_bytes()[..], &message].concat();
            Channel::Stream { socket, output, written: 0, input: Vec::new() }
        } else {
            send_datagram(&socket, &message)?;
            Channel::Datagram { socket, guesses: 0 }
        };
        registry.register(&mut SourceFd(&channel.socket().as_raw_fd()), token, interest)?;
        Ok(Self { owner, upstream, sent: now, is_late: false, is_probe: false, id, channel })
    }

    /// Sends the query once more, over the same socket and with the same id, so that a guess is no easier.
    /// TCP sees to that itself.
    pub(crate) fn repeat(&self, mut message: Vec<u8>) {
        if let Channel::Datagram { socket, .. } = &self.channel {
            message::set_id(&mut message, self.id);
            // An error of the socket is reported by the next receive.
            let _ = send_datagram(socket, &message);
        }
    }

    /// Does what the socket allows. `buffer` holds the largest message.
    pub(crate) fn proceed(&mut self, query: &Query, buffer: &mut [u8]) -> Progress {
        let id = self.id;
        match &mut self.channel {
            Channel::Datagram { socket, guesses } => loop {
                match (&*socket).read(buffer) {
                    Ok(n) => {
                        let bytes = buffer.get(..n).unwrap_or_default();
                        if let Some(verdict) = message::read_answer(bytes, id, query) {
                            return Progress::Answered(verdict, bytes.to_vec());
                        }
                        *guesses += 1;
                        if *guesses == GUESSES {
                            return Progress::Failed;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Waits,
                    Err(_) => return Progress::Failed,
                }
            },
            Channel::Stream { socket, output, written, input } => {
                match write(socket, output, written).and_then(|()| read(socket, input, buffer)) {
                    Ok(true) => {
                        let bytes = input.split_off(2);
                        match message::read_answer(&bytes, id, query) {
                            Some(verdict) => Progress::Answered(verdict, bytes),
                            None => Progress::Failed,
                        }
                    }
                    Ok(false) => Progress::Waits,
                    Err(_) => Progress::Failed,
                }
            }
        }
    }

    /// Datagrams that came and were no answer.
    pub(crate) fn guesses(&self) -> u32 {
        match &self.channel {
            Channel::Datagram { guesses, .. } => *guesses,
            Channel::Stream { .. } => 0,
        }
    }
}

impl Channel {
    fn socket(&self) -> &Socket {
        match self {
            Self::Datagram { socket, .. } | Self::Stream { socket, .. } => socket,
        }
    }
}

fn send_datagram(socket: &Socket, message: &[u8]) -> io::Result<()> {
    match socket.send(message) {
        // Lost, as it could be anywhere on its way: it will be repeated.
        Err(error)
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
                || error.raw_os_error() == Some(libc::ENOBUFS) =>
        {
            Ok(())
        }
        result => result.map(drop),
    }
}

fn write(socket: &Socket, output: &[u8], written: &mut usize) -> io::Result<()> {
    while let Some(rest) = output.get(*written..).filter(|rest| !rest.is_empty()) {
        match socket.send_with_flags(rest, libc::MSG_NOSIGNAL) {
            Ok(n) => *written += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the message, with its length before it, is complete.
fn read(mut socket: &Socket, input: &mut Vec<u8>, buffer: &mut [u8]) -> io::Result<bool> {
    loop {
        let wanted = match input.first_chunk() {
            Some(length) => 2 + usize::from(u16::from_be_bytes(*length)),
            None => 2,
        };
        if input.len() >= 2 && input.len() == wanted {
            return Ok(true);
        }
        let most = (wanted - input.len()).min(buffer.len());
        let room = buffer.get_mut(..most).unwrap_or_default();
        match socket.read(room) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => input.extend_from_slice(room.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

//! The host's side: servers on the loopback, and connections that never come about.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::{GATEWAY_V4, GATEWAY_V6, PATIENCE};

/// A server on the host's loopback.
pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    /// Where the guest finds it.
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::bound(Ipv4Addr::LOCALHOST.into(), None)
    }

    pub(crate) fn ipv6() -> Self {
        Self::bound(Ipv6Addr::LOCALHOST.into(), None)
    }

    /// Its connections take little more than `bytes` that nobody reads.
    pub(crate) fn small(bytes: usize) -> Self {
        Self::bound(Ipv4Addr::LOCALHOST.into(), Some(bytes))
    }

    fn bound(ip: std::net::IpAddr, buffer: Option<usize>) -> Self {
        let address = SocketAddr::new(ip, 0);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        if let Some(bytes) = buffer {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        socket.bind(&address.into()).unwrap();
        socket.listen(128).unwrap();
        let listener = TcpListener::from(socket);
        let port = listener.local_addr().unwrap().port();
        let gateway = if ip.is_ipv4() { GATEWAY_V4.into() } else { GATEWAY_V6.into() };
        Self { listener, address: SocketAddr::new(gateway, port) }
    }

    pub(crate) fn accept(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Whether a connection waits to be accepted.
    pub(crate) fn is_asked(&self) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        let asked = self.listener.accept().is_ok();
        self.listener.set_nonblocking(false).unwrap();
        asked
    }
}

/// Reads to the end.
#[track_caller]
pub(crate) fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Closes with RST.
pub(crate) fn reset(stream: TcpStream) {
    Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A listener whose backlog is full: the host answers no SYN to it.
pub(crate) struct Unanswering {
    listener: TcpListener,
    _waiting: Vec<TcpStream>,
    /// Where the guest finds it.
    pub(crate) address: SocketAddr,
}

impl Unanswering {
    pub(crate) fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0).into()).unwrap();
        socket.listen(0).unwrap();
        let listener = TcpListener::from(socket);
        let local = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&local, Duration::from_millis(50)) {
            waiting.push(stream);
            assert!(waiting.len() < 16, "the backlog never fills");
        }
        let address = SocketAddr::new(GATEWAY_V4.into(), local.port());
        Self { listener, _waiting: waiting, address }
    }

    /// Takes the connections that waited, so that the host's next SYN is answered, and then the next.
    pub(crate) fn accept(&self) -> TcpStream {
        for _ in &self._waiting {
            self.listener.accept().unwrap();
        }
        self.listener.accept().unwrap().0
    }
}

/// Descriptors of this process.
pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count() - 1
}

/// Descriptors of this process once those that are about to be closed are: a call of the poll loop's leaves
/// its eventfd with the poll loop for a moment after the answer. More than `wanted` is the answer only if
/// they stay.
pub(crate) fn descriptors_closed(wanted: usize) -> usize {
    let began = Instant::now();
    loop {
        let now = descriptors();
        if now <= wanted || began.elapsed() > Duration::from_secs(10) {
            return now;
        }
        std::thread::yield_now();
    }
}

/// Threads of this process.
pub(crate) fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

/// Threads of this process once those that were joined are off the kernel's list: the kernel wakes who
/// joins (`CLONE_CHILD_CLEARTID`) a moment before it takes the thread off, and tells nobody when it does.
/// More than `wanted` is the answer only if they stay.
pub(crate) fn threads_joined(wanted: usize) -> usize {
    let began = Instant::now();
    loop {
        let now = threads();
        if now <= wanted || began.elapsed() > Duration::from_secs(10) {
            return now;
        }
        std::thread::yield_now();
    }
}

/// Resident memory of this process, in KiB.
pub(crate) fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4
}

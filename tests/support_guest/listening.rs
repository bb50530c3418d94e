//! A guest that is called: a server on smoltcp, and the host's clients of published ports.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use framegate::{Publish, Published, Runtime};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use super::PATIENCE;
use super::guest::Guest;

impl Guest {
    /// Waits for one connection to this port, from whichever address.
    pub(crate) fn listen(&mut self, port: u16) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; self.buffer]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }

    /// Lives until the listener has its connection.
    #[track_caller]
    pub(crate) fn accept(&mut self, handle: SocketHandle) {
        self.until("a client", |guest| {
            !matches!(guest.state(handle), State::Listen | State::SynReceived)
        });
    }
}

/// Publishes one port of the guest at a port of the loopback that the kernel chooses.
pub(crate) fn publish(runtime: &Runtime, guest_port: u16) -> Published {
    runtime.handle().publish(&Publish::tcp_port(0, guest_port)).unwrap()
}

/// A client of a published port.
pub(crate) fn client(published: &Published) -> TcpStream {
    client_of(published.addresses[0])
}

pub(crate) fn client_of(mut address: SocketAddr) -> TcpStream {
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads to a reset, and returns what came before.
#[track_caller]
pub(crate) fn read_to_reset(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes);
    assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    bytes
}

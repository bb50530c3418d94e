//! TCP sockets with a limit on every wait, so that a test that fails ends too.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::pattern::{self, Moved};

/// How long any wait of a test may take before it counts as failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A listener in the calling thread's namespace.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket.into())
}

/// Connects from the calling thread's namespace.
pub(crate) fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    limited(TcpStream::connect_timeout(&to, LIMIT)?)
}

/// The next connection of `listener`.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    limited(listener.accept()?.0)
}

fn limited(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Closes with RST instead of FIN.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Sends `bytes` of the stream `seed` from one end, closes there, and reads all of it at the other
/// end. Returns what moved and how long it took.
pub(crate) fn transfer(from: TcpStream, to: TcpStream, seed: u64, bytes: u64) -> (Moved, Duration) {
    let started = Instant::now();
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(move || pattern::send(&from, seed, bytes).unwrap());
        let received = pattern::receive(to).unwrap();
        (sender.join().unwrap(), received)
    });
    assert_eq!(sent, received, "what arrived is not what was sent");
    (received, started.elapsed())
}

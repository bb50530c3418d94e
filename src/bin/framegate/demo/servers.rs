//! The host's side of the demonstration: ordinary blocking servers on loopback, one thread for each of
//! TCP's.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::guest::Fault;

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// How long a server waits for the guest's next byte.
const PATIENCE: Duration = Duration::from_secs(30);
const BLOCK: usize = 64 << 10;

/// A server thread, which ends by itself when the guest has been served.
pub(super) struct Server<T> {
    address: SocketAddr,
    thread: Option<JoinHandle<io::Result<T>>>,
}

impl<T: Send + 'static> Server<T> {
    fn start(
        loopback: IpAddr,
        serve: impl FnOnce(TcpListener) -> io::Result<T> + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((loopback, 0))?;
        let address = listener.local_addr()?;
        let thread = std::thread::Builder::new().name("demo-server".into());
        Ok(Self { address, thread: Some(thread.spawn(move || serve(listener))?) })
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Waits for the server's end: what it saw.
    pub(super) fn finish(mut self) -> Result<T, Fault> {
        let thread = self.thread.take().ok_or("the demo's server has ended before")?;
        let result = thread.join().map_err(|_| "the demo's server panicked")?;
        result.map_err(|error| format!("the demo's server: {error}").into())
    }
}

impl<T> Drop for Server<T> {
    /// A guest that failed will not come any more: a connection that ends at once takes its place, so that
    /// the thread leaves.
    fn drop(&mut self) {
        if self.thread.is_some() {
            let _ = TcpStream::connect(self.address);
        }
    }
}

/// Hashes what one guest sends until it closes its direction, and answers then with the count, in 8
/// bytes, and the hash.
pub(super) fn take_and_tell(loopback: IpAddr) -> io::Result<Server<()>> {
    Server::start(loopback, |listener| {
        let mut stream = accept(&listener)?;
        let mut hash = Sha256::new();
        let mut count = 0;
        let mut buffer = vec![0; BLOCK];
        loop {
            let n = stream.read(&mut buffer)?;
            if n == 0 {
                break;
            }
            hash.update(buffer.get(..n).unwrap_or_default());
            count += n as u64;
        }
        stream.write_all(&count.to_be_bytes())?;
        stream.write_all(&hash.finalize())
    })
}

/// Sends one guest `total` bytes, closes its direction and waits for the guest to close the other. The
/// result is the hash of what was sent.
pub(super) fn give(loopback: IpAddr, total: u64) -> io::Result<Server<Hash>> {
    Server::start(loopback, move |listener| {
        let mut stream = accept(&listener)?;
        let mut source = Source::new(total);
        while let Some(block) = source.next_block() {
            stream.write_all(block)?;
        }
        stream.shutdown(Shutdown::Write)?;
        expect_end(&mut stream)?;
        Ok(source.hash())
    })
}

/// Returns one byte to each of `guests` connections, one after another, until they close.
pub(super) fn echo(loopback: IpAddr, guests: usize) -> io::Result<Server<()>> {
    Server::start(loopback, move |listener| {
        for _ in 0..guests {
            let mut stream = accept(&listener)?;
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            stream.write_all(&byte)?;
            expect_end(&mut stream)?;
        }
        Ok(())
    })
}

/// Returns one byte, and waits for the connection to be reset.
pub(super) fn until_reset(loopback: IpAddr) -> io::Result<Server<()>> {
    Server::start(loopback, |listener| {
        let mut stream = accept(&listener)?;
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        stream.write_all(&byte)?;
        match stream.read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            other => Err(io::Error::other(format!("no reset: {other:?}"))),
        }
    })
}

/// A UDP socket for a conversation with the guest.
pub(super) fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// A port where nobody listens: the one that the system would give the next server.
pub(super) fn deserted_port(loopback: IpAddr) -> io::Result<u16> {
    Ok(TcpListener::bind((loopback, 0))?.local_addr()?.port())
}

fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn expect_end(stream: &mut TcpStream) -> io::Result<()> {
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("the guest sent more than it should have")),
    }
}

/// A stream of pseudo-random bytes and its hash. Random, so that no byte that is lost, doubled or
/// moved can go unseen.
pub(super) struct Source {
    left: u64,
    state: u64,
    block: Vec<u8>,
    hash: Sha256,
}

impl Source {
    pub(super) fn new(total: u64) -> Self {
        let state = 0x9e37_79b9_7f4a_7c15;
        Self { left: total, state, block: vec![0; BLOCK], hash: Sha256::new() }
    }

    /// The next bytes, hashed already; `None` at the end.
    pub(super) fn next_block(&mut self) -> Option<&[u8]> {
        let len = usize::try_from(self.left).unwrap_or(BLOCK).min(BLOCK);
        if len == 0 {
            return None;
        }
        for word in self.block.as_chunks_mut::<8>().0 {
            // xorshift64, by Marsaglia.
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            *word = self.state.to_le_bytes();
        }
        self.left -= len as u64;
        let block = self.block.get(..len)?;
        self.hash.update(block);
        Some(block)
    }

    /// The hash of all blocks so far.
    pub(super) fn hash(self) -> Hash {
        self.hash.finalize().into()
    }
}

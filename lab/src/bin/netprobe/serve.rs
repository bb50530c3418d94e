//! The server. The first byte of a connection says what it is for.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::bulk::CHUNK;

/// Everything is read; then the number of bytes and the longest gap in milliseconds are told.
pub const SINK: u8 = b'U';
/// Bytes without end.
pub const SOURCE: u8 = b'D';
pub const ECHO: u8 = b'E';

pub fn run(address: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    thread::spawn(move || echo_datagrams(&socket));
    for stream in TcpListener::bind(address)?.incoming() {
        let Ok(stream) = stream else {
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        // A peer that goes away ends its thread, and nothing else.
        let served = thread::Builder::new().stack_size(64 * 1024).spawn(|| serve(stream));
        if let Err(error) = served {
            eprintln!("netprobe: no thread for a connection: {error}");
        }
    }
    Ok(())
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut datagram = vec![0; 65_536];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..length], from);
        }
    }
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut purpose = [0];
    stream.read_exact(&mut purpose)?;
    match purpose[0] {
        SINK => sink(stream),
        SOURCE => source(stream),
        _ => echo(stream),
    }
}

fn sink(mut stream: TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut total = 0;
    let mut gaps = Gaps::new();
    loop {
        let length = stream.read(&mut chunk)?;
        gaps.progress();
        if length == 0 {
            break;
        }
        total += length as u64;
    }
    stream.write_all(&total.to_be_bytes())?;
    stream.write_all(&gaps.longest_ms().to_be_bytes())
}

fn source(mut stream: TcpStream) -> io::Result<()> {
    let chunk = vec![0x5a; CHUNK];
    loop {
        stream.write_all(&chunk)?;
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            length => stream.write_all(&chunk[..length])?,
        }
    }
}

/// How long a flow stood still.
pub struct Gaps {
    last: Instant,
    longest: Duration,
}

impl Gaps {
    pub fn new() -> Self {
        Self { last: Instant::now(), longest: Duration::ZERO }
    }

    pub fn progress(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
    }

    pub fn longest_ms(&self) -> u64 {
        self.longest.as_millis() as u64
    }
}

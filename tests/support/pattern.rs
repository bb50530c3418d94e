//! Streams of bytes that a seed determines (xorshift64), and the SHA-256 of what went or came.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use sha2::{Digest, Sha256};

const BLOCK: usize = 256 * 1024;

/// One mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// The stream of bytes of one seed.
pub(crate) struct Pattern {
    state: u64,
    left: u64,
}

impl Pattern {
    /// The first `bytes` bytes of the stream of `seed`.
    pub(crate) fn new(seed: u64, bytes: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, left: bytes }
    }

    /// Fills the next block, and returns the part of it that belongs to the stream: none at its end.
    pub(crate) fn next<'a>(&mut self, block: &'a mut [u8]) -> &'a [u8] {
        let (words, rest) = block.as_chunks_mut::<8>();
        assert!(rest.is_empty(), "blocks are whole words");
        for word in words {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            *word = self.state.to_le_bytes();
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(block.len());
        self.left -= length as u64;
        &block[..length]
    }

    /// The whole rest of it.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        let mut all = vec![0; usize::try_from(self.left).unwrap().next_multiple_of(8)];
        let length = self.next(&mut all).len();
        all.truncate(length);
        all
    }
}

/// How many bytes went or came, and their SHA-256.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

impl fmt::Debug for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, sha256 {}…", self.bytes, &self.sha256[..16])
    }
}

/// The sum of a stream while it goes by.
#[derive(Default)]
struct Sum(u64, Sha256);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.0 += bytes.len() as u64;
        self.1.update(bytes);
    }

    fn finish(self) -> Moved {
        let hex = self.1.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Moved { bytes: self.0, sha256: hex }
    }
}

/// What the stream of `seed` comes to.
pub(crate) fn sum(seed: u64, bytes: u64) -> Moved {
    write(io::sink(), seed, bytes).unwrap()
}

/// Writes `bytes` bytes of the stream of `seed`.
pub(crate) fn write(mut to: impl Write, seed: u64, bytes: u64) -> io::Result<Moved> {
    let (mut pattern, mut block, mut sum) =
        (Pattern::new(seed, bytes), vec![0; BLOCK], Sum::default());
    loop {
        let part = pattern.next(&mut block);
        if part.is_empty() {
            return Ok(sum.finish());
        }
        to.write_all(part)?;
        sum.add(part);
    }
}

/// As [`write`], then shuts the sending side of the connection.
pub(crate) fn send(to: &TcpStream, seed: u64, bytes: u64) -> io::Result<Moved> {
    let moved = write(to, seed, bytes)?;
    to.shutdown(Shutdown::Write)?;
    Ok(moved)
}

/// Reads to the end.
pub(crate) fn receive(mut from: impl Read) -> io::Result<Moved> {
    let (mut block, mut sum) = (vec![0; BLOCK], Sum::default());
    loop {
        match from.read(&mut block)? {
            0 => return Ok(sum.finish()),
            n => sum.add(&block[..n]),
        }
    }
}

/// Bits a second, in a unit that a person reads.
pub(crate) fn rate(bytes: u64, time: Duration) -> String {
    format!("{:.2} s, {:.2} Gb/s", time.as_secs_f64(), bytes as f64 * 8e-9 / time.as_secs_f64())
}

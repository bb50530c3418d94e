//! TCP streams that carry as much as they can.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crate::connect;
use crate::serve::{Gaps, SINK, SOURCE};

pub const CHUNK: usize = 128 * 1024;

#[derive(Clone, Copy)]
pub enum Direction {
    /// From the guest.
    Up,
    /// To the guest.
    Down,
}

pub struct Outcome {
    streams: u64,
    bytes: u64,
    elapsed: Duration,
    longest_gap_ms: u64,
    errors: u64,
}

impl Outcome {
    pub fn gbps(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.elapsed.as_secs_f64() / 1e9
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "streams={} bytes={} seconds={:.2} gbps={:.3} longest_gap_ms={} errors={}",
            self.streams,
            self.bytes,
            self.elapsed.as_secs_f64(),
            self.gbps(),
            self.longest_gap_ms,
            self.errors
        )
    }
}

pub fn run(direction: Direction, address: SocketAddr, time: Duration, streams: u64) -> Outcome {
    let begun = Instant::now();
    let one = move || match direction {
        Direction::Up => up(address, begun + time),
        Direction::Down => down(address, begun + time),
    };
    let threads: Vec<_> = (0..streams).map(|_| thread::spawn(one)).collect();
    let mut outcome =
        Outcome { streams, bytes: 0, elapsed: Duration::ZERO, longest_gap_ms: 0, errors: 0 };
    for thread in threads {
        match thread.join() {
            Ok(Ok((bytes, gap))) => {
                outcome.bytes += bytes;
                outcome.longest_gap_ms = outcome.longest_gap_ms.max(gap);
            }
            Ok(Err(error)) => {
                eprintln!("netprobe: {error}");
                outcome.errors += 1;
            }
            Err(_) => outcome.errors += 1,
        }
    }
    outcome.elapsed = begun.elapsed();
    outcome
}

/// What counts is what has arrived, by the server's word.
fn up(address: SocketAddr, until: Instant) -> io::Result<(u64, u64)> {
    let mut stream = connect(address)?;
    let chunk = vec![0x5a; CHUNK];
    stream.write_all(&[SINK])?;
    while Instant::now() < until {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut number = [0; 8];
    stream.read_exact(&mut number)?;
    let bytes = u64::from_be_bytes(number);
    stream.read_exact(&mut number)?;
    Ok((bytes, u64::from_be_bytes(number)))
}

fn down(address: SocketAddr, until: Instant) -> io::Result<(u64, u64)> {
    let mut stream = connect(address)?;
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    stream.write_all(&[SOURCE])?;
    let mut gaps = Gaps::new();
    while Instant::now() < until {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => bytes += length as u64,
        }
        gaps.progress();
    }
    Ok((bytes, gaps.longest_ms()))
}

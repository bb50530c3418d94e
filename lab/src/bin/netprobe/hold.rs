//! Many idle connections, and what they cost a busy one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::bulk::{self, Direction};
use crate::connect;
use crate::serve::ECHO;

/// After so many failures the rest would fail too.
const ENOUGH: u64 = 50;

pub fn run(address: SocketAddr, count: u64, time: Duration) -> String {
    let busy = |direction| bulk::run(direction, address, time, 1).gbps();
    let (lone_up, lone_down) = (busy(Direction::Up), busy(Direction::Down));

    let begun = Instant::now();
    let mut idle = Vec::new();
    let mut failed = 0;
    while (idle.len() as u64) < count && failed < ENOUGH {
        match open(address) {
            Ok(stream) => idle.push(stream),
            Err(_) => failed += 1,
        }
    }
    let opening = begun.elapsed().as_secs_f64();

    let (up, down) = (busy(Direction::Up), busy(Direction::Down));
    let alive = idle.iter_mut().filter_map(|stream| echo(stream).ok()).count();
    format!(
        "opened={} failed={failed} opening_s={opening:.2} alive={alive} \
         lone_up_gbps={lone_up:.3} up_gbps={up:.3} lone_down_gbps={lone_down:.3} down_gbps={down:.3}",
        idle.len()
    )
}

/// The echo shows that the server has it too.
fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(address)?;
    stream.write_all(&[ECHO])?;
    echo(&mut stream)?;
    Ok(stream)
}

fn echo(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"y")?;
    stream.read_exact(&mut [0])
}

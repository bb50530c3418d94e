//! netprobe: the traffic of a measurement, both ends of it. One line of `key=value` figures each.
//!
//! ```text
//! netprobe serve ADDRESS                 what the other modes talk to, TCP and UDP
//! netprobe http ADDRESS BYTES            a web server with one page of so many bytes
//! netprobe ready ADDRESS                 ends when `serve` can be reached
//! netprobe up|down ADDRESS SECONDS STREAMS
//! netprobe rr ADDRESS SECONDS            one byte there and back, over TCP
//! netprobe udprr ADDRESS SECONDS BYTES   a datagram there and back
//! netprobe crr ADDRESS SECONDS AT_ONCE   connect, one byte there and back, close
//! netprobe hold ADDRESS COUNT SECONDS    COUNT idle connections, and a busy flow without and with them
//! ```

mod bulk;
mod hold;
mod http;
mod latency;
mod serve;

use std::error::Error;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bulk::Direction;

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, address, numbers @ ..] = args.as_slice() else {
        return Err("usage: netprobe MODE ADDRESS [NUMBER]...".into());
    };
    let address: SocketAddr = address.parse()?;
    let number = |index: usize| -> Result<u64, Box<dyn Error>> {
        Ok(numbers.get(index).ok_or("a number is missing")?.parse()?)
    };
    let seconds = |index: usize| number(index).map(Duration::from_secs);
    match mode.as_str() {
        "serve" => serve::run(address)?,
        "http" => http::run(address, number(0)?)?,
        "ready" => ready(address)?,
        "up" => println!("{}", bulk::run(Direction::Up, address, seconds(0)?, number(1)?)),
        "down" => println!("{}", bulk::run(Direction::Down, address, seconds(0)?, number(1)?)),
        "rr" => println!("{}", latency::tcp(address, seconds(0)?)?),
        "udprr" => println!("{}", latency::udp(address, seconds(0)?, number(1)?)?),
        "crr" => println!("{}", latency::connections(address, seconds(0)?, number(1)?)),
        "hold" => println!("{}", hold::run(address, number(0)?, seconds(1)?)),
        other => return Err(format!("no such mode: {other}").into()),
    }
    Ok(())
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The gateway, the guest's addresses and the server come up in any order.
fn ready(address: SocketAddr) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
            Err(_) if begun.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(20)),
            outcome => return outcome.map(drop),
        }
    }
}

//! Round trips: how many, and how long they take.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::connect;
use crate::serve::ECHO;

/// A datagram that is not back by then is lost.
const LOST: Duration = Duration::from_millis(500);

pub fn tcp(address: SocketAddr, time: Duration) -> io::Result<String> {
    let mut stream = connect(address)?;
    stream.write_all(&[ECHO])?;
    let mut byte = [0];
    let mut trips = Trips::new();
    while trips.begun.elapsed() < time {
        trips.time(|| {
            stream.write_all(b"x")?;
            stream.read_exact(&mut byte)
        })?;
    }
    Ok(trips.to_string())
}

pub fn udp(address: SocketAddr, time: Duration, size: u64) -> io::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(LOST))?;
    let datagram = vec![7; size as usize];
    let mut answer = vec![0; datagram.len()];
    let mut lost = 0;
    let mut trips = Trips::new();
    while trips.begun.elapsed() < time {
        let trip = trips.time(|| {
            socket.send(&datagram)?;
            socket.recv(&mut answer).map(drop)
        });
        lost += u64::from(trip.is_err());
    }
    Ok(format!("{trips} lost={lost}"))
}

pub fn connections(address: SocketAddr, time: Duration, at_once: u64) -> String {
    let begun = Instant::now();
    let one = move || {
        let mut trips = Trips::new();
        let mut errors = 0;
        while begun.elapsed() < time {
            let trip = trips.time(|| {
                let mut stream = connect(address)?;
                stream.write_all(&[ECHO, b'x'])?;
                stream.read_exact(&mut [0])
            });
            errors += u64::from(trip.is_err());
        }
        (trips, errors)
    };
    let threads: Vec<_> = (0..at_once).map(|_| thread::spawn(one)).collect();
    let mut all = Trips::new();
    all.begun = begun;
    let mut errors = 0;
    for thread in threads {
        match thread.join() {
            Ok((trips, failed)) => {
                all.nanoseconds.extend(trips.nanoseconds);
                errors += failed;
            }
            Err(_) => errors += 1,
        }
    }
    format!("{all} at_once={at_once} errors={errors}")
}

struct Trips {
    begun: Instant,
    nanoseconds: Vec<u64>,
}

impl Trips {
    fn new() -> Self {
        Self { begun: Instant::now(), nanoseconds: Vec::new() }
    }

    fn time(&mut self, trip: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let begun = Instant::now();
        trip()?;
        self.nanoseconds.push(begun.elapsed().as_nanos() as u64);
        Ok(())
    }
}

impl std::fmt::Display for Trips {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let elapsed = self.begun.elapsed().as_secs_f64();
        let mut sorted = self.nanoseconds.clone();
        sorted.sort_unstable();
        let microseconds = |permille: usize| {
            let index = sorted.len().saturating_sub(1) * permille / 1000;
            sorted.get(index).map_or(f64::NAN, |&nanoseconds| nanoseconds as f64 / 1000.0)
        };
        write!(
            f,
            "count={} per_s={:.0} p50_us={:.1} p99_us={:.1} max_us={:.1}",
            sorted.len(),
            sorted.len() as f64 / elapsed,
            microseconds(500),
            microseconds(990),
            microseconds(1000)
        )
    }
}

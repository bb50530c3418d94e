//! A metadata service for one guest, in the process that runs its network.
//!
//! `cargo run --example metadata -- /run/user/1000/vm.sock` waits for a VMM on that socket; then, in the
//! guest: `curl http://169.254.169.254/instance-id`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;

use framegate::{RelayStream, Runtime};

/// Longest request that is read, in bytes: the guest is not trusted.
const REQUEST: u64 = 8 * 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: metadata SOCKET")?;
    let listener = UnixListener::bind(&path)?;
    let (stream, _) = listener.accept()?;
    std::fs::remove_file(&path)?;
    let mut runtime = Runtime::builder()
        .service(([169, 254, 169, 254], 80).into(), |stream| {
            if let Err(error) = answer(&stream) {
                eprintln!("{}: {error}", stream.peer_addr());
            }
        })
        .start(stream)?;
    println!("the network stopped: {}", runtime.wait());
    Ok(())
}

/// One request and its answer, as HTTP/1.0 has it: the end of the stream ends the body.
fn answer(stream: &RelayStream) -> io::Result<()> {
    let mut request = BufReader::new(stream.take(REQUEST));
    let mut first = String::new();
    request.read_line(&mut first)?;
    let mut header = String::new();
    while request.read_line(&mut header)? > 2 {
        header.clear();
    }
    let mut words = first.split_whitespace();
    let (status, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/")) => ("200 OK", "hostname\ninstance-id\n"),
        (Some("GET"), Some("/hostname")) => ("200 OK", "guest\n"),
        (Some("GET"), Some("/instance-id")) => ("200 OK", "vm-1\n"),
        (Some("GET"), Some(_)) => ("404 Not Found", ""),
        _ => ("400 Bad Request", ""),
    };
    let length = body.len();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.0 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

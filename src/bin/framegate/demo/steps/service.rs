//! A service for the guest, in this process.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Instant;

use framegate::RelayStream;
use smoltcp::socket::tcp;

use super::super::guest::{Fault, Next};
use super::{Lab, SMALL, Short};

/// Where clouds have their metadata services.
pub(in crate::demo) const ADDRESS: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(169, 254, 169, 254), 80));

const BODY: &str = "vm-demo\n";

/// Answers one HTTP/1.0 request. It runs on a thread of the library's.
pub(in crate::demo) fn serve(stream: RelayStream) {
    if let Err(error) = answer(&stream) {
        tracing::warn!("the demo's metadata service: {error}");
    }
}

fn answer(mut stream: &RelayStream) -> io::Result<()> {
    const LONGEST: u64 = 4096;
    let mut request = BufReader::new(stream.take(LONGEST));
    let mut first = String::new();
    request.read_line(&mut first)?;
    let mut header = String::new();
    while request.read_line(&mut header)? > 2 {
        header.clear();
    }
    let (status, body) = match first.starts_with("GET /instance-id ") {
        true => ("200 OK", BODY),
        false => ("404 Not Found", ""),
    };
    write!(stream, "HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The guest asks it for its name.
pub(super) fn metadata(lab: &mut Lab) -> Result<String, Fault> {
    const REQUEST: &[u8] = b"GET /instance-id HTTP/1.0\r\n\r\n";
    let guest = &mut lab.guest;
    let began = Instant::now();
    let socket = guest.open(ADDRESS, SMALL)?;
    guest.until(socket, |socket: &mut tcp::Socket<'_>| {
        socket.send_slice(REQUEST)?;
        Ok(Next::Done(()))
    })?;
    let mut bytes = Vec::new();
    guest.read_to_end(socket, |part| bytes.extend_from_slice(part))?;
    let took = began.elapsed();
    guest.close(socket)?;
    let response = String::from_utf8(bytes)?;
    match response.starts_with("HTTP/1.0 200 ") && response.ends_with(&format!("\r\n\r\n{BODY}")) {
        true => {
            Ok(format!("http://{}/instance-id is {}, {}", ADDRESS.ip(), BODY.trim(), Short(took)))
        }
        false => Err(format!("the service answered {response:?}").into()),
    }
}

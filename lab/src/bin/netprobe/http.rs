//! A web server for wrk: one page, keep-alive or not, a thread for each connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

const END: &[u8] = b"\r\n\r\n";
const CLOSE: &[u8] = b"connection: close";

pub fn run(address: SocketAddr, size: u64) -> io::Result<()> {
    let pages = Arc::new(Pages { keep: page(size, "keep-alive"), close: page(size, "close") });
    for stream in TcpListener::bind(address)?.incoming() {
        let (stream, pages) = (stream?, Arc::clone(&pages));
        thread::Builder::new().stack_size(64 * 1024).spawn(move || answer(stream, &pages))?;
    }
    Ok(())
}

struct Pages {
    keep: Vec<u8>,
    close: Vec<u8>,
}

fn page(size: u64, connection: &str) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\nConnection: {connection}\r\nContent-Length: {size}\r\n\r\n");
    let mut page = head.into_bytes();
    page.resize(page.len() + size as usize, b'x');
    page
}

fn answer(mut stream: TcpStream, pages: &Pages) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            length => requests.extend_from_slice(&chunk[..length]),
        }
        while let Some(end) = requests.windows(END.len()).position(|bytes| bytes == END) {
            let request: Vec<u8> = requests.drain(..end + END.len()).collect();
            if request.windows(CLOSE.len()).any(|bytes| bytes.eq_ignore_ascii_case(CLOSE)) {
                stream.write_all(&pages.close)?;
                return stream.shutdown(Shutdown::Write);
            }
            stream.write_all(&pages.keep)?;
        }
    }
}

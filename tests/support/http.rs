//! A small HTTP/1.1 server: `GET /N` answers with N bytes of the stream of seed N; `POST` and `PUT`
//! answer with the SHA-256 of the body. Connections are kept alive.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use socket2::SockRef;

use super::namespace::Namespace;
use super::{pattern, tcp};

/// A running server; dropping it stops it.
pub(crate) struct HttpServer {
    listener: TcpListener,
    acceptor: Option<JoinHandle<()>>,
}

impl HttpServer {
    pub(crate) fn start(at: &Namespace, address: impl Into<SocketAddr>) -> Self {
        let listener = at.listen(address);
        // No limit: it ends by the shutdown below.
        SockRef::from(&listener).set_read_timeout(None).unwrap();
        let accepting = listener.try_clone().unwrap();
        let acceptor = thread::spawn(move || {
            while let Ok(connection) = tcp::accept(&accepting) {
                // An error here is the client's to report.
                thread::spawn(move || serve(&connection));
            }
        });
        Self { listener, acceptor: Some(acceptor) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    pub(crate) fn url(&self, path: impl std::fmt::Display) -> String {
        format!("http://{}/{path}", self.address())
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        // On Linux this makes accept(2) fail.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

struct Request {
    method: String,
    path: String,
    length: u64,
    expects_continue: bool,
    close: bool,
}

fn serve(connection: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut writer = connection;
    while let Some(request) = read_head(&mut reader)? {
        if request.method == "GET" {
            let bytes = request.path.trim_start_matches('/').parse::<u64>().unwrap_or(0);
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")?;
            pattern::write(writer, bytes, bytes)?;
        } else {
            if request.expects_continue {
                writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let sum = pattern::receive((&mut reader).take(request.length))?.sha256;
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{sum}", sum.len())?;
        }
        if request.close {
            break;
        }
    }
    connection.shutdown(Shutdown::Write)
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let close = words.next().as_deref() == Some("HTTP/1.0");
    let mut request = Request { method, path, length: 0, expects_continue: false, close };
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let lower = line.trim().to_ascii_lowercase();
        match lower.split_once(": ") {
            None => return Ok(Some(request)),
            Some(("content-length", value)) => request.length = value.parse().unwrap_or(0),
            Some(("expect", _)) => request.expects_continue = true,
            Some(("connection", "close")) => request.close = true,
            Some(_) => {}
        }
    }
}

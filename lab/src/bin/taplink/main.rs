//! `taplink TAP SOCKET [--offload] [--libkrun] [--loss PERMILLE] [--seed N]`
//!
//! Carries Ethernet frames between a tap device, which is the NIC of a Linux guest in a network
//! namespace, and a gateway's Unix stream socket, in the framing of libkrun, QEMU and passt: the length
//! of the frame as 4 bytes, big-endian, and the frame.
//!
//! * `--offload`: the guest hands over TSO-sized segments with partial checksums and takes frames
//!   unverified, as with libkrun's offload features. The virtio-net header stays here.
//! * `--libkrun`: the system calls of libkrun's worker, one send and two receives for each frame, and
//!   no batches.
//! * `--loss`: this many frames in a thousand are lost each way, by a seeded generator.

mod loss;
mod tap;

use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use loss::Loss;

const PREFIX: usize = 4;
/// More than any frame with its header.
const FRAME: usize = 70_000;
/// Bytes of one batch towards the gateway.
const BATCH: usize = 256 * 1024;
const STREAM_BUFFER: usize = 1 << 20;
/// How long the gateway may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a guest's NIC behaves.
#[derive(Clone, Copy)]
struct Mode {
    offload: bool,
    libkrun: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [tap, socket, options @ ..] = args.as_slice() else {
        return Err(
            "usage: taplink TAP SOCKET [--offload] [--libkrun] [--loss N] [--seed N]".into()
        );
    };
    let mut mode = Mode { offload: false, libkrun: false };
    let (mut permille, mut seed) = (0, 1);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut number = || -> Result<u64, Box<dyn Error>> {
            Ok(options.next().ok_or("a number is missing")?.parse()?)
        };
        match option.as_str() {
            "--offload" => mode.offload = true,
            "--libkrun" => mode.libkrun = true,
            "--loss" => permille = number()?,
            "--seed" => seed = number()?,
            other => return Err(format!("no such option: {other}").into()),
        }
    }

    let tap = tap::open(tap, mode.offload)?;
    let stream = connect(Path::new(socket))?;
    tap::enlarge_buffers(&stream);
    let (up_tap, up_stream) = (tap.try_clone()?, stream.try_clone()?);
    thread::spawn(move || {
        end(tap_to_stream(&up_tap, &up_stream, mode, Loss::new(permille, seed)));
    });
    end(stream_to_tap(&stream, &tap, mode, Loss::new(permille, !seed)));
}

/// Whichever direction ends first ends the link.
fn end(outcome: io::Result<()>) -> ! {
    match outcome {
        Ok(()) => eprintln!("taplink: the gateway has closed the stream"),
        Err(error) => eprintln!("taplink: {error}"),
    }
    std::process::exit(0)
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let begun = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Err(_) if begun.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(10)),
            outcome => return outcome,
        }
    }
}

fn tap_to_stream(
    mut tap: &File,
    mut stream: &UnixStream,
    mode: Mode,
    mut loss: Loss,
) -> io::Result<()> {
    let mut header = vec![0; if mode.offload { tap::HEADER } else { 0 }];
    let mut batch = vec![0; BATCH + FRAME];
    loop {
        let mut used = 0;
        while used < BATCH {
            let frame = used + PREFIX;
            let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(&mut batch[frame..])];
            let length = match tap.read_vectored(&mut parts) {
                Ok(length) => length - header.len(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if loss.strikes() {
                continue;
            }
            batch[used..frame].copy_from_slice(&(length as u32).to_be_bytes());
            used = frame + length;
            if mode.libkrun {
                break;
            }
        }
        if used == 0 {
            tap::wait_readable(tap);
        } else {
            stream.write_all(&batch[..used])?;
        }
    }
}

fn stream_to_tap(
    mut stream: &UnixStream,
    tap: &File,
    mode: Mode,
    mut loss: Loss,
) -> io::Result<()> {
    let header: &[u8] = if mode.offload { &tap::CHECKSUM_VALID } else { &[] };
    let mut buffer = vec![0; STREAM_BUFFER];
    let (mut from, mut to) = (0, 0);
    loop {
        while let Some(frame) = first_frame(&buffer[from..to]) {
            if !loss.strikes() {
                write_frame(tap, header, frame)?;
            }
            from += PREFIX + frame.len();
        }
        if from == to || buffer.len() - to < FRAME {
            buffer.copy_within(from..to, 0);
            (from, to) = (0, to - from);
        }
        let most = if mode.libkrun { missing(&buffer[from..to]) } else { buffer.len() - to };
        match stream.read(&mut buffer[to..to + most])? {
            0 => return Ok(()),
            count => to += count,
        }
    }
}

fn length(bytes: &[u8]) -> Option<usize> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?) as usize)
}

fn first_frame(bytes: &[u8]) -> Option<&[u8]> {
    bytes.get(PREFIX..PREFIX + length(bytes)?)
}

/// How many bytes the prefix, or the frame that it begins, still lacks.
fn missing(bytes: &[u8]) -> usize {
    length(bytes).map_or(PREFIX, |length| PREFIX + length) - bytes.len()
}

fn write_frame(mut tap: &File, header: &[u8], frame: &[u8]) -> io::Result<()> {
    loop {
        match tap.write_vectored(&[IoSlice::new(header), IoSlice::new(frame)]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::yield_now(),
            // What the guest's kernel refuses is the gateway's fault, and is to be seen.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                eprintln!("taplink: a frame of {} bytes: {error}", frame.len());
                return Ok(());
            }
            outcome => return outcome.map(drop),
        }
    }
}

//! The system calls of libkrun's virtio-net worker, in its order: one thread for both directions, one
//! send for each frame, two receives for each frame, and blocking reads for the rest of a frame that
//! has begun.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use libc::{MSG_DONTWAIT, MSG_WAITALL, POLLERR, POLLHUP, POLLIN, POLLOUT};
use socket2::SockRef;

use super::pump::{Longest, MAX_FRAME, Tap};
use super::sys;

/// What of one guest frame is not sent yet, with its length prefix.
struct Unsent {
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

pub(crate) fn worker(tap: &Tap, stream: &UnixStream) -> io::Result<Longest> {
    let (mut frame, mut longest) = (vec![0; MAX_FRAME], Longest::default());
    let mut unsent = Unsent { buffer: vec![0; 4 + MAX_FRAME], from: 0, to: 0 };
    loop {
        // A guest frame that waits for room in the stream holds back the ones behind it.
        let waits = unsent.from < unsent.to;
        let (from_guest, to_stream) = if waits { (0, POLLOUT) } else { (POLLIN, 0) };
        let ready = sys::poll([(tap.as_fd(), from_guest), (stream.as_fd(), POLLIN | to_stream)])?;
        let goes_on = ready[1] & POLLIN == 0 || receive(tap, stream, &mut frame, &mut longest)?;
        if !goes_on || ready[1] & (POLLHUP | POLLERR) != 0 {
            return Ok(longest);
        }
        transmit(tap, stream, &mut unsent, &mut longest)?;
    }
}

/// Gives the guest all frames that have arrived. False at the end of the stream.
fn receive(
    tap: &Tap,
    stream: &UnixStream,
    frame: &mut [u8],
    longest: &mut Longest,
) -> io::Result<bool> {
    loop {
        let mut prefix = [0; 4];
        match receive_all(stream, &mut prefix) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
        let frame = &mut frame[..u32::from_be_bytes(prefix) as usize];
        // A body that is not there yet blocks the worker, and with it the guest's transmissions.
        if sys::receive(stream, frame, MSG_WAITALL)? < frame.len() {
            return Ok(false);
        }
        tap.write_frame(frame)?;
        longest.to_guest = longest.to_guest.max(frame.len());
    }
}

/// Fills `buffer`: WouldBlock if not even its first byte is there, else waiting for the rest.
fn receive_all(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<bool> {
    let n = sys::receive(stream, buffer, MSG_DONTWAIT)?;
    let rest = &mut buffer[n..];
    Ok(n > 0 && (rest.is_empty() || sys::receive(stream, rest, MSG_WAITALL)? == rest.len()))
}

/// Sends the guest's frames until there are no more or the stream has no room. At the stream's end
/// there is nowhere to send to; the next wait reports that.
fn transmit(
    tap: &Tap,
    stream: &UnixStream,
    unsent: &mut Unsent,
    longest: &mut Longest,
) -> io::Result<()> {
    loop {
        if unsent.from == unsent.to {
            let Some(length) = tap.read_frame(&mut unsent.buffer[4..])? else { return Ok(()) };
            unsent.buffer[..4].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
            (unsent.from, unsent.to) = (0, 4 + length);
            longest.from_guest = longest.from_guest.max(length);
        }
        let bytes = &unsent.buffer[unsent.from..unsent.to];
        match SockRef::from(stream).send_with_flags(bytes, MSG_DONTWAIT | libc::MSG_NOSIGNAL) {
            Ok(n) => unsent.from += n,
            Err(error) => {
                let ends = [io::ErrorKind::WouldBlock, io::ErrorKind::BrokenPipe];
                return if ends.contains(&error.kind()) { Ok(()) } else { Err(error) };
            }
        }
    }
}

//! The VMM's part: carries Ethernet frames between a tap device, behind which a real Linux TCP/IP
//! stack is the guest, and the gateway's stream socket (4-byte big-endian length before each frame).

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use libc::{POLLERR, POLLHUP, POLLIN};
use socket2::SockRef;

use super::libkrun;
use super::namespace::Namespace;
use super::sys::{self, VNET_HEADER};

/// The largest frame that anybody sends: a 64 KiB super-segment behind its headers.
pub(crate) const MAX_FRAME: usize = 65_550;
const BATCH: usize = 256 * 1024;

/// How the guest's NIC behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Whole checksums, no super-frames; many frames in one call.
    Plain,
    /// As after negotiating CSUM and HOST_TSO: super-frames with partial checksums from the guest.
    Vnet,
    /// The system calls of libkrun's one worker thread, frame by frame.
    Libkrun,
}

/// The guest's end of the NIC: the device `tap0` in its namespace.
pub(crate) struct Tap {
    file: File,
    mode: Mode,
}

impl Tap {
    pub(crate) fn open(guest: &Namespace, mode: Mode) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = guest.run(|| options.open("/dev/net/tun"))?;
        sys::attach_tap(&file, "tap0", mode == Mode::Vnet)?;
        Ok(Self { file, mode })
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, mode: self.mode })
    }

    fn header(&self) -> usize {
        if self.mode == Mode::Vnet { VNET_HEADER } else { 0 }
    }

    /// The length of the next frame that the guest sends, without its virtio-net header; `None` if it
    /// has sent none.
    pub(crate) fn read_frame(&self, frame: &mut [u8]) -> io::Result<Option<usize>> {
        let (mut header, skipped) = ([0; VNET_HEADER], self.header());
        let mut parts = [IoSliceMut::new(&mut header[..skipped]), IoSliceMut::new(frame)];
        match (&self.file).read_vectored(&mut parts) {
            Ok(n) => Ok(Some(n - skipped)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives the guest a frame. The virtio-net header says nothing, as libkrun's does, so that the
    /// guest verifies every checksum.
    pub(crate) fn write_frame(&self, frame: &[u8]) -> io::Result<()> {
        let header = [0; VNET_HEADER];
        let parts = [IoSlice::new(&header[..self.header()]), IoSlice::new(frame)];
        (&self.file).write_vectored(&parts).map(drop)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The longest frames that have crossed the link, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Longest {
    pub(crate) from_guest: usize,
    pub(crate) to_guest: usize,
}

/// A running pump. Dropping it closes the stream, as the end of a VM does.
pub(crate) struct Pump {
    stream: UnixStream,
    threads: Vec<JoinHandle<io::Result<Longest>>>,
}

impl Pump {
    pub(crate) fn start(tap: &Tap, stream: UnixStream) -> io::Result<Self> {
        SockRef::from(&stream).set_send_buffer_size(4 << 20)?;
        let mut threads = Vec::new();
        let (guest, link) = (tap.try_clone()?, stream.try_clone()?);
        if tap.mode == Mode::Libkrun {
            threads.push(thread::spawn(move || libkrun::worker(&guest, &link)));
        } else {
            threads.push(thread::spawn(move || guest_to_stream(&guest, &link)));
            let (guest, link) = (tap.try_clone()?, stream.try_clone()?);
            threads.push(thread::spawn(move || stream_to_guest(&guest, &link)));
        }
        Ok(Self { stream, threads })
    }
}

impl Pump {
    /// Closes the stream, and says how long the frames were.
    pub(crate) fn unplug(mut self) -> Longest {
        self.stop().into_iter().fold(Longest::default(), |all, ended| {
            let one = ended.expect("no thread of the pump failed");
            Longest {
                from_guest: all.from_guest.max(one.from_guest),
                to_guest: all.to_guest.max(one.to_guest),
            }
        })
    }

    fn stop(&mut self) -> Vec<io::Result<Longest>> {
        // Wakes the threads from every wait; the gateway may have closed first.
        let _ = self.stream.shutdown(Shutdown::Both);
        let panicked = |_| Err(io::Error::other("panicked"));
        self.threads.drain(..).map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let ended = self.stop();
        if thread::panicking() {
            eprintln!("the pump ended: {ended:?}");
        }
    }
}

fn guest_to_stream(tap: &Tap, mut stream: &UnixStream) -> io::Result<Longest> {
    let (mut batch, mut longest) = (vec![0; BATCH + 4 + MAX_FRAME], Longest::default());
    loop {
        let mut used = 0;
        while used < BATCH {
            let (prefix, frame) = batch[used..].split_at_mut(4);
            let Some(length) = tap.read_frame(&mut frame[..MAX_FRAME])? else { break };
            prefix.copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
            used += 4 + length;
            longest.from_guest = longest.from_guest.max(length);
        }
        if used > 0 {
            if stream.write_all(&batch[..used]).is_err() {
                return Ok(longest);
            }
            continue;
        }
        let [_, stream_has] = sys::poll([(tap.as_fd(), POLLIN), (stream.as_fd(), 0)])?;
        if stream_has & (POLLHUP | POLLERR) != 0 {
            return Ok(longest);
        }
    }
}

fn stream_to_guest(tap: &Tap, mut stream: &UnixStream) -> io::Result<Longest> {
    let mut buffer = vec![0; BATCH + 4 + MAX_FRAME];
    let (mut filled, mut longest) = (0, Longest::default());
    loop {
        let n = stream.read(&mut buffer[filled..])?;
        if n == 0 {
            return Ok(longest);
        }
        filled += n;
        let mut start = 0;
        while let Some((prefix, rest)) = buffer[start..filled].split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*prefix) as usize;
            assert!(length <= MAX_FRAME, "the gateway sent a length of {length}");
            let Some(frame) = rest.get(..length) else { break };
            tap.write_frame(frame)?;
            longest.to_guest = longest.to_guest.max(length);
            start += 4 + length;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
    }
}

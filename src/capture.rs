//! A pcap file of the guest's link, written by a thread of its own.
//!
//! # Theory of operation
//!
//! The poll loop makes a whole record of each frame (a header of 16 bytes, then as much of the frame as is
//! asked for) and pushes it into a bounded queue; the thread pops and writes. The queue, its byte bound and its
//! bell are those that frames cross ([`queues`](crate::queues)), with one difference: nobody waits for
//! room. A record that a full queue refuses is lost, and counted.
//!
//! The thread writes what there is, flushes when there is no more, and sleeps on its bell. So a record
//! is in the destination soon after its frame, with no timer. The poll loop's end shuts the bell down when
//! it is dropped, however the poll loop left; the thread drains, flushes and is joined with the others.
//!
//! The format is pcap with timestamps in nanoseconds: a header of 24 bytes and records, all written here.
//! There is nothing to parse, so no crate is needed for it.

use std::fmt;
use std::fs::{OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::warn;

use crate::metrics::Counters;
use crate::pool::FramePool;
use crate::queues::{Batch, Drain, Room};
use crate::sync::{Arc, ArrayQueue, AtomicU32, Ordering};
use crate::wake::WakePipe;

#[cfg(test)]
mod tests;

/// The bound of the queue to the thread, in records and in bytes.
const QUEUE_RECORDS: usize = 4096;
const QUEUE_BYTES: usize = 8 << 20;

/// The largest frame there is fits.
const WHOLE: u32 = 262_144;

/// A capture of the guest's link, for [`Builder::capture`](crate::Builder::capture): a pcap file with
/// timestamps in nanoseconds, which tcpdump and Wireshark read.
///
/// It has the frames that the gateway handles. From the guest those are the frames as the poll loop takes
/// them, also such as are refused, where TCP segments that continue each other are one, as on a host
/// with GRO. To the guest they are the frames before the bridge cuts them, so a large TCP segment is one
/// frame and has no checksum yet, as on a host with TSO. A frame for which there was no room, or no
/// rate, is not there.
///
/// The poll loop never waits for the destination: up to 8 MiB wait in between, and what is more is lost
/// and counted, as [`Stats::capture_lost`](crate::Stats::capture_lost). So is everything after the
/// destination has failed. A capture costs the poll loop one more copy of each frame, up to the snap
/// length.
///
/// The shutdown waits until the destination has taken what was captured.
#[derive(Clone)]
pub struct Capture {
    destination: Destination,
    snap_len: u32,
    max_bytes: u64,
}

#[derive(Clone)]
enum Destination {
    File(PathBuf),
    /// Taken by the first gateway that is started with it.
    Writer(Arc<ArrayQueue<Box<dyn Write + Send>>>),
}

impl Capture {
    /// Captures to a file, which is made anew, for this user alone, when the gateway starts.
    pub fn to_file(path: impl Into<PathBuf>) -> Self {
        Self::new(Destination::File(path.into()))
    }

    /// Captures to a writer. It may block; it is called by a thread of its own. Only one gateway can be
    /// started with it, also if the builder is cloned.
    pub fn to_writer(writer: impl Write + Send + 'static) -> Self {
        let place = ArrayQueue::new(1);
        // Its only place is empty.
        let _ = place.push(Box::new(writer) as Box<dyn Write + Send>);
        Self::new(Destination::Writer(Arc::new(place)))
    }

    fn new(destination: Destination) -> Self {
        Self { destination, snap_len: WHOLE, max_bytes: u64::MAX }
    }

    /// How much of each frame is captured, in bytes. Default: all of it.
    #[must_use]
    pub fn snap_len(mut self, bytes: u32) -> Self {
        self.snap_len = bytes.clamp(1, WHOLE);
        self
    }

    /// How large the file may become, in bytes: with the first record that would make it larger the
    /// capture ends, and the network goes on. Default: no bound.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Opens the destination.
    pub(crate) fn start(&self, counters: Arc<Counters>) -> io::Result<(Tap, Scribe)> {
        let writer: Box<dyn Write + Send> = match &self.destination {
            Destination::File(path) => {
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(true).mode(0o600);
                let file = options.open(path)?;
                // One that was there has the mode that it had.
                if file.metadata()?.is_file() {
                    file.set_permissions(Permissions::from_mode(0o600))?;
                }
                Box::new(file)
            }
            Destination::Writer(place) => place.pop().ok_or_else(|| {
                io::Error::new(io::ErrorKind::AlreadyExists, "another gateway writes to it")
            })?,
        };
        let link = Arc::new(Link {
            records: ArrayQueue::new(QUEUE_RECORDS),
            room: Room::new(QUEUE_BYTES),
            bell: WakePipe::try_new()?,
            pool: FramePool::for_queues(QUEUE_RECORDS, QUEUE_BYTES),
            failed: AtomicU32::new(0),
        });
        let left = self.max_bytes.saturating_sub(FILE_HEADER as u64);
        let has_header = self.max_bytes >= FILE_HEADER as u64;
        let tap = Tap {
            link: Arc::clone(&link),
            snap_len: self.snap_len,
            left,
            counters: Arc::clone(&counters),
        };
        let writer = BufWriter::with_capacity(128 * 1024, writer);
        let header = has_header.then(|| file_header(self.snap_len));
        Ok((tap, Scribe { link, writer, header, unflushed: 0, counters }))
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = match &self.destination {
            Destination::File(path) => Some(path),
            Destination::Writer(_) => None,
        };
        f.debug_struct("Capture")
            .field("file", &file)
            .field("snap_len", &self.snap_len)
            .field("max_bytes", &self.max_bytes)
            .finish()
    }
}

/// What lies between the poll loop and the thread.
#[derive(Debug)]
struct Link {
    records: ArrayQueue<Vec<u8>>,
    room: Room,
    bell: WakePipe,
    pool: FramePool,
    /// 1 once the destination has failed.
    failed: AtomicU32,
}

/// The poll loop's end.
#[derive(Debug)]
pub(crate) struct Tap {
    link: Arc<Link>,
    snap_len: u32,
    /// Bytes that the file may still grow by; 0 once one record did not fit.
    left: u64,
    counters: Arc<Counters>,
}

impl Tap {
    /// Captures for the length of a turn: the thread is rung once for it.
    pub(crate) fn recorder(&mut self) -> Recorder<'_> {
        let Self { link, snap_len, left, counters } = self;
        let batch = Batch::new(&link.records, &link.room, &link.bell);
        Recorder { link, batch, snap_len: *snap_len, left, counters }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.link.bell.shut_down();
    }
}

/// Captures frames; rings the thread when it is dropped.
#[derive(Debug)]
pub(crate) struct Recorder<'t> {
    link: &'t Link,
    batch: Batch<'t>,
    snap_len: u32,
    left: &'t mut u64,
    counters: &'t Counters,
}

impl Recorder<'_> {
    /// Captures a frame.
    pub(crate) fn frame(&mut self, frame: &[u8]) {
        if let Some(record) = self.record(frame) {
            self.keep(record);
        }
    }

    /// The record of a frame, to be kept if the frame goes its way. `None` once the capture has ended.
    pub(crate) fn record(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        if *self.left == 0 {
            return None;
        }
        let snap = usize::try_from(self.snap_len).unwrap_or(usize::MAX).min(frame.len());
        let len = RECORD_HEADER + snap;
        if len as u64 > *self.left {
            *self.left = 0;
            return None;
        }
        let mut record = self.link.pool.take(len);
        record.extend_from_slice(&record_header(SystemTime::now(), snap, frame.len()));
        record.extend(frame.iter().take(snap));
        Some(record)
    }

    /// Hands a record to the thread.
    pub(crate) fn keep(&mut self, record: Vec<u8>) {
        let len = record.len() as u64;
        let refused = match self.link.failed.load(Ordering::Relaxed) {
            0 => self.batch.try_push(record).err(),
            _ => Some(record),
        };
        match refused {
            None => *self.left -= len,
            Some(record) => {
                self.counters.capture_lost.add(1);
                self.link.pool.give(record);
            }
        }
    }
}

/// The thread's end.
pub(crate) struct Scribe {
    link: Arc<Link>,
    writer: BufWriter<Box<dyn Write + Send>>,
    header: Option<[u8; FILE_HEADER]>,
    /// Records that were taken from the queue since the last flush.
    unflushed: u64,
    counters: Arc<Counters>,
}

impl Scribe {
    /// Writes until the poll loop has left, or the destination fails.
    pub(crate) fn run(mut self) {
        if let Err(error) = self.write() {
            warn!("the capture has ended: {error}");
            self.link.failed.fetch_or(1, Ordering::Relaxed);
            // What was captured and not written is lost.
            self.counters.capture_lost.add(self.unflushed);
            let mut drain = Drain::new(&self.link.records, &self.link.room, &self.link.bell);
            while drain.pop().is_some() {
                self.counters.capture_lost.add(1);
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let Self { link, writer, header, unflushed, counters } = self;
        if let Some(header) = header {
            writer.write_all(header)?;
        }
        loop {
            let wakes = link.bell.take();
            // Nobody waits for the room that this makes, so it rings for nobody.
            let mut drain = Drain::new(&link.records, &link.room, &link.bell);
            while let Some(record) = drain.pop() {
                *unflushed += 1;
                writer.write_all(&record)?;
                link.pool.give(record);
            }
            drop(drain);
            writer.flush()?;
            counters.capture_frames.add(std::mem::take(unflushed));
            if wakes.is_down() {
                return Ok(());
            }
            if link.bell.arm() {
                link.bell.wait();
            }
        }
    }
}

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// The header of a pcap file: magic of nanoseconds, version 2.4, and LINKTYPE_ETHERNET.
fn file_header(snap_len: u32) -> [u8; FILE_HEADER] {
    join([0xa1b2_3c4d, 2 | 4 << 16, 0, 0, snap_len, 1])
}

/// The header of a record of `captured` bytes of a frame of `len`.
fn record_header(time: SystemTime, captured: usize, len: usize) -> [u8; RECORD_HEADER] {
    let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    // The format ends in 2106.
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    join([seconds, time.subsec_nanos(), word(captured), word(len)])
}

/// Words as the file has them; the magic tells readers which end comes first.
fn join<const WORDS: usize, const BYTES: usize>(words: [u32; WORDS]) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

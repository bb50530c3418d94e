use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::*;

/// A destination that hands on what was written with each flush.
struct Pages {
    page: Vec<u8>,
    flushed: mpsc::Sender<Vec<u8>>,
}

impl Write for Pages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.page.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // The test may have ended.
        let _ = self.flushed.send(std::mem::take(&mut self.page));
        Ok(())
    }
}

/// A capture whose thread runs, and what it has flushed so far.
struct Rig {
    tap: Option<Tap>,
    counters: Arc<Counters>,
    thread: JoinHandle<()>,
    flushed: mpsc::Receiver<Vec<u8>>,
    bytes: Vec<u8>,
}

impl Rig {
    fn new(change: impl FnOnce(Capture) -> Capture) -> Self {
        let (tell, flushed) = mpsc::channel();
        let capture = change(Capture::to_writer(Pages { page: Vec::new(), flushed: tell }));
        let counters = Arc::new(Counters::default());
        let (tap, scribe) = capture.start(Arc::clone(&counters)).unwrap();
        let thread = thread::spawn(move || scribe.run());
        Self { tap: Some(tap), counters, thread, flushed, bytes: Vec::new() }
    }

    fn turn(&mut self, frames: &[&[u8]]) {
        let mut recorder = self.tap.as_mut().unwrap().recorder();
        frames.iter().for_each(|frame| recorder.frame(frame));
    }

    /// Until the destination has so many bytes, while the poll loop runs on.
    fn await_bytes(&mut self, len: usize) {
        while self.bytes.len() < len {
            let page = self.flushed.recv_timeout(Duration::from_secs(10));
            self.bytes.extend(page.expect("what was captured is flushed"));
        }
        assert_eq!(self.bytes.len(), len);
    }

    fn end(mut self) -> (Vec<u8>, Arc<Counters>) {
        self.tap = None;
        self.thread.join().unwrap();
        self.bytes.extend(self.flushed.try_iter().flatten());
        (self.bytes, self.counters)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The records of a file: length on the wire, bytes captured.
fn records(file: &[u8]) -> Vec<(u32, &[u8])> {
    let mut all = Vec::new();
    let mut at = FILE_HEADER;
    while at < file.len() {
        let captured = word(file, at + 8) as usize;
        assert!(word(file, at + 4) < 1_000_000_000, "nanoseconds");
        let start = at + RECORD_HEADER;
        all.push((word(file, at + 12), &file[start..start + captured]));
        at = start + captured;
    }
    all
}

#[test]
fn the_file_byte_by_byte() {
    let header = file_header(0x40000);
    let expected =
        [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    assert_eq!(header, expected);
    let time = UNIX_EPOCH + Duration::new(0x0102_0304, 999_999_999);
    let expected = [4, 3, 2, 1, 0xff, 0xc9, 0x9a, 0x3b, 60, 0, 0, 0, 0xea, 5, 0, 0];
    assert_eq!(record_header(time, 60, 1514), expected);
}

#[test]
fn frames_are_flushed_while_the_capture_is_idle() {
    let mut rig = Rig::new(|capture| capture);
    rig.await_bytes(24);
    for n in 1..=20_u8 {
        rig.turn(&[&[n; 60]]);
        rig.await_bytes(24 + usize::from(n) * (16 + 60));
    }
    let (file, counters) = rig.end();
    let seen = records(&file);
    assert_eq!(seen.len(), 20);
    for (n, (len, bytes)) in (1..).zip(seen) {
        assert_eq!((len, bytes), (60, &[n; 60][..]));
    }
    assert_eq!(counters.snapshot().capture_frames, 20);
}

#[test]
fn frames_before_the_end_are_written() {
    let mut rig = Rig::new(|capture| capture);
    let frame = [7; 1514];
    rig.turn(&[&frame[..]; 1000]);
    let (file, counters) = rig.end();
    let stats = counters.snapshot();
    assert_eq!((stats.capture_frames, stats.capture_lost), (1000, 0));
    assert_eq!(records(&file).len(), 1000);
}

#[test]
fn the_snap_length_cuts_and_tells_the_whole_length() {
    let mut rig = Rig::new(|capture| capture.snap_len(54));
    rig.turn(&[&[1; 1514], &[2; 54], &[3; 14]]);
    let (file, _) = rig.end();
    assert_eq!(word(&file, 16), 54);
    let lengths: Vec<_> = records(&file).iter().map(|(len, b)| (*len, b.len())).collect();
    assert_eq!(lengths, [(1514, 54), (54, 54), (14, 14)]);
}

#[test]
fn the_size_limit_ends_the_capture_with_a_whole_record() {
    let mut rig = Rig::new(|capture| capture.max_bytes(24 + 2 * (16 + 100) + 50));
    rig.turn(&[&[1; 100], &[2; 100], &[3; 100], &[4; 14]]);
    let (file, counters) = rig.end();
    assert_eq!(file.len(), 24 + 2 * (16 + 100));
    let stats = counters.snapshot();
    assert_eq!((stats.capture_frames, stats.capture_lost), (2, 0), "ended, not lost");
    let (file, _) = Rig::new(|capture| capture.max_bytes(23)).end();
    assert!(file.is_empty(), "not even the header fits");
}

#[test]
fn a_full_queue_loses_records_and_counts_them() {
    let counters = Arc::new(Counters::default());
    let (mut tap, scribe) = Capture::to_writer(io::sink()).start(Arc::clone(&counters)).unwrap();
    // The thread does not run yet: nothing is taken from the queue.
    for _ in 0..QUEUE_RECORDS + 10 {
        tap.recorder().frame(&[0; 60]);
    }
    let stats = counters.snapshot();
    assert_eq!((stats.capture_frames, stats.capture_lost), (0, 10));
    drop(tap);
    scribe.run();
    assert_eq!(counters.snapshot().capture_frames, QUEUE_RECORDS as u64);
}

#[test]
fn large_frames_are_bounded_by_bytes() {
    let counters = Arc::new(Counters::default());
    let (mut tap, _scribe) = Capture::to_writer(io::sink()).start(Arc::clone(&counters)).unwrap();
    for _ in 0..200 {
        tap.recorder().frame(&[0; 65_550]);
    }
    let held: usize = tap.link.records.len();
    assert!(held * 65_550 <= QUEUE_BYTES, "{held} records");
    assert_eq!(counters.snapshot().capture_lost, 200 - held as u64);
}

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_destination_that_fails_loses_records_and_nothing_else() {
    let counters = Arc::new(Counters::default());
    let (mut tap, scribe) = Capture::to_writer(Full).start(Arc::clone(&counters)).unwrap();
    tap.recorder().frame(&[0; 60]);
    scribe.run();
    for _ in 0..10 {
        tap.recorder().frame(&[0; 60]);
    }
    let stats = counters.snapshot();
    assert_eq!((stats.capture_frames, stats.capture_lost), (0, 11));
    assert!(tap.link.records.is_empty());
}

#[test]
fn a_writer_serves_one_gateway() {
    let capture = Capture::to_writer(io::sink());
    let _first = capture.clone().start(Arc::default()).unwrap();
    let error = capture.start(Arc::default()).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn a_file_that_cannot_be_made_is_an_error_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let capture = Capture::to_file(directory.path().join("no/such/directory.pcap"));
    assert_eq!(capture.start(Arc::default()).err().unwrap().kind(), io::ErrorKind::NotFound);
}

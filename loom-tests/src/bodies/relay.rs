//! A relay: two byte pipes between the poll loop, which has one bell for both, and a service's thread, which
//! has one for each, as in `src/relay.rs`.

use framegate::{BytePipe, NetworkFrameQueues, PipeRead, WakePipe};

use super::{Ledger, frame};
use crate::threads::{Arc, Portable, spawn};
use crate::waiter::{Waiter, serve};

/// Both directions of one relay.
#[derive(Debug)]
pub struct Relay {
    /// The poll loop's bell is `relay_wake`.
    pub queues: Arc<NetworkFrameQueues>,
    /// From the poll loop.
    pub to_service: BytePipe,
    /// To the poll loop.
    pub to_guest: BytePipe,
    /// Rings for whoever reads from `to_service`.
    pub readable: WakePipe,
    /// Rings for whoever writes to `to_guest`.
    pub writable: WakePipe,
}

impl Relay {
    /// A relay whose pipes hold `capacity` chunks each.
    ///
    /// # Panics
    /// If there is no descriptor.
    pub fn new(capacity: usize) -> Arc<Self> {
        let queues = NetworkFrameQueues::shared(1);
        let (readable, writable) = (WakePipe::try_new().unwrap(), WakePipe::try_new().unwrap());
        let poll_loop = &queues.relay_wake;
        let pipe = |data: &WakePipe, space: &WakePipe| {
            BytePipe::new(capacity, usize::MAX, data.clone(), space.clone())
        };
        Arc::new(Self {
            to_service: pipe(&readable, poll_loop),
            to_guest: pipe(poll_loop, &writable),
            readable,
            writable,
            queues,
        })
    }

    /// As `RelayStream` reads: waits for a chunk; `None` at the end.
    ///
    /// # Errors
    /// The relay was reset.
    pub fn read(&self) -> Result<Option<Vec<u8>>, Reset> {
        let mut found = Err(Reset);
        serve(&self.readable, |_| {
            found = match self.to_service.read() {
                PipeRead::Chunk(chunk) => Ok(Some(chunk)),
                PipeRead::End => Ok(None),
                PipeRead::Reset => Err(Reset),
                PipeRead::Empty => return true,
            };
            false
        });
        found
    }

    /// Reads to the end.
    ///
    /// # Panics
    /// If that comes before the last of so many chunks, or a chunk is lost.
    fn read_all(&self, chunks: usize) {
        let mut got = Ledger::new(1);
        while let Some(chunk) = self.read().unwrap() {
            got.enter(&chunk);
        }
        assert_eq!(got.len(), chunks, "the end came before the last byte");
    }

    /// As `RelayStream` writes: waits for room.
    ///
    /// # Errors
    /// The relay was reset.
    pub fn write(&self, chunk: Vec<u8>) -> Result<(), Reset> {
        let mut chunk = Some(chunk);
        let mut result = Ok(());
        serve(&self.writable, |_| {
            if self.to_guest.is_reset() {
                result = Err(Reset);
                return false;
            }
            chunk = chunk.take().and_then(|chunk| self.to_guest.write(chunk).err());
            chunk.is_some()
        });
        result
    }
}

/// The relay was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset;

/// How one of the transfers below went, for the poll loop.
#[derive(Debug)]
pub struct Relayed {
    /// The poll loop's side.
    pub poll_loop: Waiter,
    /// The relay.
    pub relay: Arc<Relay>,
}

/// What the poll loop has still to write and to read.
struct PollLoop {
    relay: Arc<Relay>,
    chunks: usize,
    written: usize,
    got: Ledger,
}

impl PollLoop {
    /// Writes what there is room for, then ends the stream; `false` once that is done.
    fn write(&mut self) -> bool {
        while self.written < self.chunks {
            if self.relay.to_service.write(frame(0, self.written)).is_err() {
                return true;
            }
            self.written += 1;
        }
        if self.written == self.chunks {
            self.written += 1;
            self.relay.to_service.finish();
        }
        false
    }

    /// Reads what there is; `false` after the end.
    fn read(&mut self) -> bool {
        loop {
            match self.relay.to_guest.read() {
                PipeRead::Chunk(chunk) => self.got.enter(&chunk),
                PipeRead::Empty => return true,
                PipeRead::End => {
                    assert_eq!(self.got.len(), self.chunks, "the end came before the last byte");
                    return false;
                }
                PipeRead::Reset => panic!("nobody reset the relay"),
            }
        }
    }

    /// Both, whatever comes of the first; `false` once both are done.
    fn write_and_read(&mut self) -> bool {
        let (writes, reads) = (self.write(), self.read());
        writes || reads
    }
}

fn relay(
    chunks: usize,
    service: impl FnOnce(&Relay) + Portable + 'static,
    mut turn: impl FnMut(&mut PollLoop) -> bool,
) -> Relayed {
    let relay = Relay::new(1);
    let theirs = Arc::clone(&relay);
    let thread = spawn(move || service(&theirs));
    let got = Ledger::new(1);
    let mut end = PollLoop { relay: Arc::clone(&relay), chunks, written: 0, got };
    let poll_loop = Waiter::serve(&relay.queues.relay_wake, |_| turn(&mut end));
    thread.join().unwrap();
    Relayed { poll_loop, relay }
}

/// The service sends back what it gets, chunk by chunk, and ends its stream when the guest's ends.
///
/// # Panics
/// If a chunk is lost, or either end comes before its last byte.
pub fn echo(chunks: usize) -> Relayed {
    let service = move |relay: &Relay| {
        let mut got = Ledger::new(1);
        while let Some(chunk) = relay.read().unwrap() {
            got.enter(&chunk);
            relay.write(chunk).unwrap();
        }
        assert_eq!(got.len(), chunks, "the end came before the last byte");
        relay.to_guest.finish();
    };
    relay(chunks, service, PollLoop::write_and_read)
}

/// The guest's stream ends first, and the service's goes on after that.
///
/// # Panics
/// If a chunk is lost, or either end comes before its last byte.
pub fn guest_ends_first(chunks: usize) -> Relayed {
    let service = move |relay: &Relay| {
        relay.read_all(chunks);
        (0..chunks).for_each(|number| relay.write(frame(0, number)).unwrap());
        relay.to_guest.finish();
    };
    relay(chunks, service, PollLoop::write_and_read)
}

/// The service's stream ends first, and the guest's goes on after that.
///
/// # Panics
/// If a chunk is lost, or either end comes before its last byte.
pub fn service_ends_first(chunks: usize) -> Relayed {
    let service = move |relay: &Relay| {
        (0..chunks).for_each(|number| relay.write(frame(0, number)).unwrap());
        relay.to_guest.finish();
        relay.read_all(chunks);
    };
    relay(chunks, service, |end| end.read() || end.write())
}

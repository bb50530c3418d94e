//! The poll loop's part in the bridge: the ends of the stream that it holds, and when it lends them out.
//! Why that is sound stands in [`hand_over`](crate::hand_over).

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::bridge::{HandOver, Received, Receiver, Sender};
use crate::error::StopReason;
use crate::hand_over::Progress;
use crate::sync::Arc;

/// How much the VMM has to receive yet when the poll loop takes its time: more than even frames of 64 KiB
/// bring it in [`PAUSE`](super::PAUSE).
const AHEAD: usize = 512 * 1024;

/// The halves that the poll loop holds at the moment.
#[derive(Debug)]
pub(crate) struct Halves {
    receiver: Option<Receiver>,
    sender: Option<Sender>,
    hand_over: Arc<HandOver>,
    /// The stream may have bytes: an edge has come since a receive found nothing, or less than it had
    /// room for.
    is_readable: bool,
    /// The VMM sends no more than what the stream has.
    is_hung_up: bool,
}

impl Halves {
    pub(crate) fn new(receiver: Receiver, sender: Sender, hand_over: Arc<HandOver>) -> Self {
        Self {
            receiver: Some(receiver),
            sender: Some(sender),
            hand_over,
            is_readable: true,
            is_hung_up: false,
        }
    }

    /// Has the poll loop wait for the stream while it holds the receive half.
    pub(crate) fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
        match &self.receiver {
            Some(receiver) => registry.register(
                &mut SourceFd(&receiver.stream().as_raw_fd()),
                token,
                Interest::READABLE,
            ),
            None => Ok(()),
        }
    }

    /// Takes back what was lent and is free again.
    pub(crate) fn reclaim(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if let Some(receiver) = self.hand_over.reclaim_receiver() {
            self.receiver = Some(receiver);
            self.is_readable = true;
            self.watch(registry, token)?;
        }
        if let Some(sender) = self.hand_over.reclaim_sender() {
            self.sender = Some(sender);
        }
        Ok(())
    }

    /// In the last turn: takes the send half back if it was lent and nobody has borrowed it. The writer may
    /// have left before it was lent.
    pub(crate) fn take_back(&mut self) {
        if self.sender.is_none() {
            self.sender = self.hand_over.take_back_sender();
        }
    }

    /// The kernel says that the stream has become readable.
    pub(crate) fn readable(&mut self, event: &Event) {
        self.is_readable = true;
        self.is_hung_up |= event.is_read_closed();
    }

    /// Whether the VMM is known to have closed its end.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.is_hung_up
    }

    /// Whether a receive is due before the poll loop may sleep.
    pub(crate) fn may_receive(&self) -> bool {
        self.is_readable && self.receiver.is_some()
    }

    /// Whether there is a frame that was received and not taken.
    pub(crate) fn has_frame(&mut self) -> bool {
        self.receiver.as_mut().is_some_and(Receiver::has_frame)
    }

    /// The receive buffer; empty if somebody else reads the stream.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.receiver.as_mut().map_or(&mut [], Receiver::bytes)
    }

    /// Takes the next frame of what was received, and says where it lies in the receive buffer. `None` if
    /// there is no whole one, or if somebody else reads the stream.
    ///
    /// # Errors
    /// The reason to end the link.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Range<usize>>, StopReason> {
        match &mut self.receiver {
            Some(receiver) => receiver.next_frame(),
            None => Ok(None),
        }
    }

    /// Receives, once what was received is taken. Nothing while the stream is empty or somebody else reads it.
    ///
    /// # Errors
    /// The reason to end the link.
    pub(crate) fn receive(&mut self) -> Result<Received, StopReason> {
        let Some(receiver) = self.receiver.as_mut().filter(|_| self.is_readable) else {
            return Ok(Received::Nothing);
        };
        let received = receiver.receive()?;
        // A short receive has emptied the stream: the next byte brings an edge. (Descriptors and out-of-band
        // bytes would end a receive early, and the framing has neither.) The end brings none, if its edge
        // came with these bytes.
        let may_have_more = receiver.is_behind() || self.is_hung_up;
        self.is_readable = received == Received::Bytes && may_have_more;
        Ok(received)
    }

    /// Counts the frames that were taken.
    pub(crate) fn count(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            receiver.count();
        }
    }

    /// The guest sends faster than the poll loop takes: lends the receive half out.
    pub(crate) fn lend_receiver(&mut self, registry: &Registry) -> io::Result<()> {
        let Some(receiver) = self.receiver.take() else { return Ok(()) };
        let unwatched = registry.deregister(&mut SourceFd(&receiver.stream().as_raw_fd()));
        self.hand_over.lend_receiver(receiver);
        unwatched
    }

    /// Whether the VMM has much to receive yet: nothing that the poll loop might send now would get to the
    /// guest soon.
    pub(crate) fn is_ahead(&mut self) -> bool {
        self.sender.as_mut().is_none_or(|sender| sender.is_ahead_by(AHEAD))
    }

    pub(crate) fn has_sender(&self) -> bool {
        self.sender.is_some()
    }

    /// Sends what is queued, if it holds the send half; lends it out when the stream is full.
    ///
    /// # Errors
    /// The reason to end the link.
    pub(crate) fn send(&mut self) -> Result<(), StopReason> {
        let Some(sender) = &mut self.sender else { return Ok(()) };
        if sender.send()? == Progress::Blocked
            && let Some(sender) = self.sender.take()
        {
            self.hand_over.lend_sender(sender);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::config::Offload;
    use crate::queues::NetworkFrameQueues;

    /// The VMM's end of a stream, and the poll loop's part in ours.
    fn link() -> (UnixStream, Arc<NetworkFrameQueues>, Halves) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        crate::bridge::prepare(&ours, Offload::None).unwrap();
        let stream = Arc::new(ours);
        let queues = NetworkFrameQueues::try_shared(1024).unwrap();
        let receiver = Receiver::new(Arc::clone(&stream), Offload::None, Arc::default());
        let sender = Sender::new(stream, Arc::clone(&queues), 1514, Arc::default());
        let halves = Halves::new(receiver, sender, HandOver::new(Arc::clone(&queues)));
        (theirs, queues, halves)
    }

    #[test]
    fn a_half_that_no_writer_has_borrowed_is_taken_back() {
        let (mut theirs, queues, mut halves) = link();
        let mut pushed = 0;
        while halves.has_sender() {
            pushed += 1;
            queues.push_to_guest().push(vec![0; 1514]).unwrap();
            halves.send().unwrap();
        }
        let mut received = vec![0; (pushed - 1) * 1518];
        theirs.read_exact(&mut received).unwrap();
        halves.take_back();
        halves.send().unwrap();
        received.truncate(1518);
        theirs.read_exact(&mut received).unwrap();

        halves.sender = None;
        halves.take_back();
        assert!(!halves.has_sender(), "there was none to take");
    }

    #[test]
    fn the_poll_loop_is_ahead_while_the_vmm_has_much_to_receive() {
        let (mut theirs, queues, mut halves) = link();
        let push = |frames| {
            let mut batch = queues.push_to_guest();
            (0..frames).for_each(|_| batch.push(vec![0; 1514]).unwrap());
        };
        push(10);
        halves.send().unwrap();
        assert!(!halves.is_ahead());
        push(400);
        halves.send().unwrap();
        assert!(halves.is_ahead());
        let mut received = vec![0; 410 * 1518];
        theirs.read_exact(&mut received).unwrap();
        assert!(!halves.is_ahead());
        while halves.has_sender() {
            push(100);
            halves.send().unwrap();
        }
        assert!(halves.is_ahead());
    }
}

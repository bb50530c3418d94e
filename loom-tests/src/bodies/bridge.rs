//! The whole way of frames between the VMM's stream and the poll loop, which runs both ends of the stream
//! and lends them to the bridge's threads. The threads' loops are the shipped ones
//! (`HandOver::run_reader`, `HandOver::run_writer`). What the reader does in a turn mirrors
//! `src/bridge/reader.rs`, the turn of the poll loop `src/gateway.rs`, `src/gateway/intake.rs` and
//! `src/gateway/halves.rs`.

use framegate::hand_over::{HandOver, Progress, Want};
use framegate::{NetworkFrameQueues, WakePipe, Wakes};

use super::stream::{ReceiveHalf, SendHalf, Stream};
use super::{Ledger, frame};
use crate::threads::{Arc, Counter, JoinHandle, spawn};

/// Frames that a turn of the poll loop takes from the queue, and from the stream.
const BUDGET: usize = 1;

/// The hand-over of these halves.
type Halves = HandOver<ReceiveHalf, SendHalf>;

/// Everything that the threads of one NIC share.
#[derive(Clone, Debug)]
pub struct Nic {
    /// The queues.
    pub queues: Arc<NetworkFrameQueues>,
    /// Where the halves change hands.
    pub hand_over: Arc<Halves>,
    /// The VMM's stream.
    pub stream: Arc<Stream>,
    /// How often a half was lent or came back.
    hands: Arc<Hands>,
    /// Frames for each direction.
    up: usize,
    down: usize,
    /// Directions that are complete: the last one begins the shutdown.
    complete: Arc<Counter>,
}

/// How often a half changed hands, and why.
#[derive(Debug, Default)]
struct Hands {
    lent_receiver: Counter,
    lent_sender: Counter,
    reader_waited_for_room: Counter,
    writer_blocked: Counter,
    sent_by_writer: Counter,
}

impl Nic {
    /// Queues of one frame, and a stream with room for one write. `up` frames come from the guest, `down`
    /// go to it.
    pub fn new(up: usize, down: usize) -> Self {
        Self::with_room(up, down, 1, 1)
    }

    /// As [`new`](Self::new), with queues of this many frames and room in the stream for this many writes.
    pub fn with_room(up: usize, down: usize, frames: usize, writes: usize) -> Self {
        let queues = NetworkFrameQueues::shared(frames);
        let hand_over = HandOver::new(Arc::clone(&queues));
        let stream = Stream::new(writes);
        let complete = Counter::default();
        complete.add(usize::from(up == 0) + usize::from(down == 0));
        let (hands, complete) = (Arc::default(), Arc::new(complete));
        Self { queues, hand_over, stream, hands, up, down, complete }
    }

    /// Runs the reader's thread.
    pub fn spawn_reader(&self) -> JoinHandle<()> {
        let nic = self.clone();
        spawn(move || {
            let mut refused = None;
            let turn = |half: &mut ReceiveHalf| nic.reader_turn(half, &mut refused);
            nic.hand_over.run_reader((), turn);
        })
    }

    /// Runs the writer's thread.
    pub fn spawn_writer(&self) -> JoinHandle<()> {
        let nic = self.clone();
        spawn(move || {
            let send = |half: &mut SendHalf| {
                let before = half.frames();
                let progress = nic.send(half);
                nic.hands.sent_by_writer.add(half.frames() - before);
                Ok(progress)
            };
            let wait = |bell: &WakePipe, _: &SendHalf| {
                nic.hands.writer_blocked.add(1);
                wait_for_room(bell);
                Ok(())
            };
            nic.hand_over.run_writer((), send, wait);
        })
    }

    /// Runs the VMM: it sends its frames and makes room for ours.
    pub fn spawn_vmm(&self) -> JoinHandle<()> {
        let nic = self.clone();
        spawn(move || {
            for number in 0..nic.up.max(nic.down) {
                if number < nic.up {
                    nic.vmm_sends();
                }
                if number < nic.down {
                    nic.stream.make_room(2);
                    writable(&nic.queues);
                }
            }
        })
    }

    /// The VMM sends a frame.
    pub fn vmm_sends(&self) {
        self.stream.send();
        readable(&self.queues);
    }

    /// Deliver, receive, deliver, … until the stream is empty or the queue full.
    fn reader_turn(
        &self,
        half: &mut ReceiveHalf,
        refused: &mut Option<Vec<u8>>,
    ) -> Result<Want, ()> {
        loop {
            let mut batch = self.queues.push_from_guest();
            while let Some(frame) = refused.take().or_else(|| half.next_frame()) {
                if let Err(frame) = batch.push(frame) {
                    *refused = Some(frame);
                    self.hands.reader_waited_for_room.add(1);
                    return Ok(Want::Room);
                }
            }
            drop(batch);
            if self.queues.is_shutting_down() {
                return Err(());
            }
            if !half.receive() {
                return Ok(Want::Bytes);
            }
        }
    }

    fn send(&self, half: &mut SendHalf) -> Progress {
        let before = half.frames();
        let progress = half.send();
        if before < self.down && half.frames() == self.down {
            self.completed();
        }
        progress
    }

    /// A direction is complete.
    fn completed(&self) {
        self.complete.add(1);
        if self.complete.get() == 2 {
            self.queues.begin_shutdown();
        }
    }

    /// How often the poll loop lent the receive half and the send half.
    pub fn lent(&self) -> (usize, usize) {
        (self.hands.lent_receiver.get(), self.hands.lent_sender.get())
    }

    /// How often the reader waited for room in its queue.
    pub fn reader_waited_for_room(&self) -> usize {
        self.hands.reader_waited_for_room.get()
    }

    /// How many frames the writer sent.
    pub fn sent_by_writer(&self) -> usize {
        self.hands.sent_by_writer.get()
    }

    /// How often the writer waited for room in the stream.
    pub fn writer_blocked(&self) -> usize {
        self.hands.writer_blocked.get()
    }
}

/// The stream has become readable. A poll loop that does not watch it is woken for nothing. Without loom
/// there is no stream in the poll set, and a note stands for it.
fn readable(queues: &NetworkFrameQueues) {
    #[cfg(loom)]
    queues.guest_wake.event().make_other_ready();
    #[cfg(not(loom))]
    queues.relay_wake.wake();
}

/// The poll loop's wait: `true` if the stream is readable.
fn wait_for_news(bell: &WakePipe) -> bool {
    #[cfg(loom)]
    return bell.wait_with_other();
    #[cfg(not(loom))]
    {
        bell.wait();
        false
    }
}

/// The stream has become writable.
fn writable(queues: &NetworkFrameQueues) {
    #[cfg(loom)]
    queues.host_wake.event().make_other_ready();
    #[cfg(not(loom))]
    let _ = queues; // The writer looks again and again.
}

/// As `poll_writable`: until the stream is writable or the bell's token is there.
fn wait_for_room(bell: &WakePipe) {
    #[cfg(loom)]
    bell.wait_with_other();
    #[cfg(not(loom))]
    let _ = bell;
    #[cfg(not(loom))]
    std::thread::yield_now();
}

/// The poll loop's part.
#[derive(Debug)]
pub struct PollLoop {
    nic: Nic,
    receiver: Option<ReceiveHalf>,
    sender: Option<SendHalf>,
    is_readable: bool,
    got: Ledger,
    pushed: usize,
}

impl PollLoop {
    /// Has both halves.
    pub fn new(nic: &Nic) -> Self {
        Self {
            receiver: Some(ReceiveHalf::new(&nic.stream)),
            sender: Some(SendHalf::new(&nic.stream, &nic.queues)),
            is_readable: true,
            got: Ledger::new(1),
            pushed: 0,
            nic: nic.clone(),
        }
    }

    /// Has lent the receive half to the reader.
    pub fn lend_receiver(&mut self) {
        if let Some(half) = self.receiver.take() {
            self.nic.hands.lent_receiver.add(1);
            self.nic.hand_over.lend_receiver(half);
        }
    }

    /// Has lent the send half to the writer.
    pub fn lend_sender(&mut self) {
        if let Some(half) = self.sender.take() {
            self.nic.hands.lent_sender.add(1);
            self.nic.hand_over.lend_sender(half);
        }
    }

    /// Goes round until the shutdown, and says how many frames it has from the guest. `after` is called at
    /// the end of each turn, with how many frames it has pushed.
    pub fn run(mut self, mut after: impl FnMut(&Nic, usize)) -> usize {
        let nic = self.nic.clone();
        let bell = &nic.queues.guest_wake;
        loop {
            let wakes = bell.take();
            let over_budget = self.turn(wakes);
            if wakes.is_down() {
                return self.got.len();
            }
            after(&nic, self.pushed);
            let has_frames = over_budget || (self.is_readable && self.receiver.is_some());
            if !has_frames && bell.arm() {
                self.is_readable |= wait_for_news(bell);
            }
        }
    }

    /// `true` if the budget ran out with frames in the queue.
    fn turn(&mut self, wakes: Wakes) -> bool {
        self.is_readable |= wakes.relay();
        if let Some(half) = self.nic.hand_over.reclaim_receiver() {
            self.receiver = Some(half);
            self.is_readable = true;
        }
        if let Some(half) = self.nic.hand_over.reclaim_sender() {
            assert!(half.is_idle(), "the writer gave the half back and had something to send");
            self.sender = Some(half);
        }
        if wakes.is_down() {
            self.sender = self.sender.take().or_else(|| self.nic.hand_over.take_back_sender());
        }
        let got = self.got.len();
        let drained = self.take_from_queue();
        if drained && !wakes.is_down() {
            self.take_from_stream();
        }
        if got < self.nic.up && self.got.len() == self.nic.up {
            self.nic.completed();
        }
        self.send_to_guest();
        !drained
    }

    /// Whether the queue is drained.
    fn take_from_queue(&mut self) -> bool {
        let mut drain = self.nic.queues.drain_from_guest();
        for _ in 0..BUDGET {
            if self.nic.queues.guest_to_host.is_empty() {
                return true;
            }
            let Some(frame) = drain.pop() else { return true };
            self.got.enter(&frame);
        }
        false
    }

    /// Takes what the stream has, if it has the receive half, and lends that out at the end of its budget.
    fn take_from_stream(&mut self) {
        let Some(half) = &mut self.receiver else { return };
        let mut frames = 0;
        while frames < BUDGET {
            while let Some(frame) = half.next_frame() {
                self.got.enter(&frame);
                frames += 1;
            }
            if frames == BUDGET {
                break;
            }
            if !self.is_readable {
                return;
            }
            let received = half.receive();
            self.is_readable = received && half.is_behind;
            if !received {
                return;
            }
        }
        self.lend_receiver();
    }

    /// Pushes what there is room for, then sends or rings the writer.
    fn send_to_guest(&mut self) {
        let mut batch = self.nic.queues.push_to_guest();
        while self.pushed < self.nic.down && batch.push(frame(0, self.pushed)).is_ok() {
            self.pushed += 1;
        }
        if self.sender.is_some() {
            batch.end_unheard();
        }
        drop(batch);
        if let Some(half) = &mut self.sender
            && self.nic.send(half) == Progress::Blocked
        {
            self.lend_sender();
        }
    }
}

//! One TCP flow: the guest's end in smoltcp, the host's end in a socket, and the bytes between them.
//!
//! # What each phase allows
//!
//! | phase | guest's end | host's end | left by |
//! |---|---|---|---|
//! | `Connecting` | the SYN, kept | connecting | connected, failed, timed out |
//! | `Open` | any smoltcp state | connected; `None` once both directions have ended | both closed, reset, idle |
//!
//! A client of a published port is connected already, so its flow begins as `Open`, in SYN-SENT.
//!
//! The directions are independent: a full window or a full socket in one stops nothing in the other.
//! End of stream passes in each direction after the last byte; a reset passes in each direction as a
//! reset, so a stream that was cut off never looks complete.

mod probe;
mod service;
mod splice;

use std::io;

use smoltcp::socket::tcp::{RecvError, State};
use smoltcp::time::{Duration, Instant};

use self::probe::Probe;
pub(crate) use self::service::{ingress, serve};
use self::splice::Splice;
pub(crate) use self::splice::{Rest, renumber};
use super::buffer_end::BufferEnd;
use super::classify::{FlowKey, Segment};
use super::end::End;
use super::windows::{Budget, Share};
use crate::handle::{FlowInfo, FlowState, Protocol};
use crate::publish::PublishId;
use crate::sys::pages::WindowedSocket;

/// A place in the flow table and how often it was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FlowId {
    pub(crate) index: usize,
    pub(crate) generation: u64,
}

/// A flow moves this many bytes in each direction before others have their turn.
const BUDGET: usize = 256 * 1024;

/// How long the acknowledgement of a small segment, or of a FIN, waits for data or our own FIN to ride on
/// (RFC 9293 section 3.8.6.3 allows half a second). Longer than a nearby server needs, shorter than anyone
/// notices.
const ACK_DELAY: Duration = Duration::from_millis(2);

/// What the edges have told of the host's socket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ready {
    /// Cleared by EAGAIN, or by a short receive.
    pub(crate) readable: bool,
    /// Cleared by EAGAIN.
    pub(crate) writable: bool,
    /// The peer has sent FIN or RST: a short receive is no sign that nothing follows.
    pub(crate) ended: bool,
    /// The peer has sent urgent data: nor is a short receive then, for it ends at their mark.
    pub(crate) urgent: bool,
    /// The kernel reports an error.
    pub(crate) failed: bool,
}

/// One flow of the guest.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) id: FlowId,
    pub(crate) key: FlowKey,
    pub(crate) phase: Phase,
    pub(crate) ready: Ready,
    /// In the list of flows to serve.
    pub(crate) is_queued: bool,
    /// In the list of flows that wait for room to the guest.
    pub(crate) is_starved: bool,
    /// Counted as half-open.
    pub(crate) is_half_open: bool,
    /// The poll loop itself is its far end.
    pub(crate) is_buffer: bool,
    /// In the list of flows in TIME-WAIT.
    pub(crate) is_in_time_wait: bool,
    /// The flow's entry among the timers.
    pub(crate) deadline: Option<Instant>,
    /// The published port that the client came through.
    pub(crate) published: Option<PublishId>,
    pub(crate) opened: Instant,
    pub(crate) last_activity: Instant,
}

impl Flow {
    /// The flow as the embedder sees it.
    pub(crate) fn info(&mut self, now: Instant) -> FlowInfo {
        let is_inbound = self.published.is_some();
        let (state, client, bytes_to_host, bytes_to_guest) = match &mut self.phase {
            Phase::Connecting { .. } => (FlowState::Opening, None, 0, 0),
            Phase::Open(open) => {
                let state = match () {
                    () if open.is_complete() => FlowState::Closing,
                    () if open.is_opening() => FlowState::Opening,
                    () => FlowState::Open,
                };
                let client = open.host.as_ref().filter(|_| is_inbound).and_then(End::peer);
                (state, client, open.to_host, open.to_guest)
            }
        };
        FlowInfo {
            protocol: Protocol::Tcp,
            guest: self.key.guest,
            remote: Some(self.key.remote),
            client,
            state,
            bytes_to_host,
            bytes_to_guest,
            age: (now - self.opened).into(),
        }
    }
}

#[derive(Debug)]
pub(crate) enum Phase {
    Connecting { host: Option<End>, syn: Vec<u8>, segment: Segment, until: Instant },
    Open(Box<Open>),
}

/// A flow whose host connection has come about.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) socket: WindowedSocket,
    pub(crate) host: Option<End>,
    pub(crate) share: Share,
    pub(crate) to_host: u64,
    pub(crate) to_guest: u64,
    /// The guest's FIN was passed on.
    guest_ended: bool,
    /// The host's FIN has come, after the last byte.
    host_ended: bool,
    /// The host's FIN was passed on.
    closed: bool,
    /// A send has found the host's connection broken, and taken the error with it: what the receive
    /// side calls the end is none.
    send_failed: bool,
    /// The host has reset the connection: so will we, once the guest has what came before.
    host_reset: bool,
    /// We have reset the guest's end.
    aborted: bool,
    /// The guest has reset its end. smoltcp is CLOSED then, as it is after an orderly end, when bytes of
    /// the guest may still wait for the host.
    guest_reset: bool,
    ack: AckOwed,
    mss: usize,
    probe: Probe,
    splice: Splice,
}

/// What we have received and not acknowledged.
#[derive(Clone, Copy, Debug, Default)]
struct AckOwed {
    since: Option<Instant>,
    bytes: usize,
    now: bool,
}

/// What a service of the flow left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Wait for an event or for this moment.
    Wait(Option<Instant>),
    /// There is more to do: serve the others first.
    Again,
    /// There is no room to the guest.
    Starved,
    /// Both ends are closed: TIME-WAIT until this moment.
    TimeWait(Option<Instant>),
    /// Over.
    Closed,
    /// Over by a reset.
    Reset,
}

/// How a direction of the relay stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    /// Nothing more can be moved at this time.
    Idle,
    /// The budget ran out.
    More,
    /// The host's connection is broken.
    Broken,
}

impl Open {
    pub(crate) fn new(mut socket: WindowedSocket, host: Option<End>, mss: usize) -> Self {
        let share = Share::of(&mut socket);
        Self {
            socket,
            host,
            share,
            to_host: 0,
            to_guest: 0,
            guest_ended: false,
            host_ended: false,
            closed: false,
            send_failed: false,
            host_reset: false,
            aborted: false,
            guest_reset: false,
            ack: AckOwed { now: true, ..AckOwed::default() },
            mss,
            probe: Probe::default(),
            splice: Splice::default(),
        }
    }

    /// A segment of the guest went into smoltcp.
    pub(crate) fn heard(&mut self, frame: &[u8], segment: &Segment, now: Instant) {
        if !(segment.syn || segment.rst) {
            self.probe.heard(frame);
        }
        // In SYN-RECEIVED smoltcp goes back to LISTEN for a reset.
        self.guest_reset |= segment.rst && matches!(self.state(), State::Closed | State::Listen);
        if segment.payload > 0 || segment.fin {
            self.owe(segment.payload, now);
        }
    }

    /// Bytes of the guest, or its FIN, are to be acknowledged.
    fn owe(&mut self, bytes: usize, now: Instant) {
        self.ack.since.get_or_insert(now);
        self.ack.bytes += bytes;
        self.ack.now |= self.ack.bytes >= 2 * self.mss;
    }

    /// Both ends are closed and nothing waits for the host, the guest's FIN included.
    pub(crate) fn is_in_time_wait(&mut self) -> bool {
        self.guest_ended && self.state() == State::TimeWait
    }

    pub(crate) fn is_reset_by_guest(&self) -> bool {
        self.guest_reset
    }

    /// The far end, if it is the poll loop's own.
    pub(crate) fn buffer(&mut self) -> Option<&mut BufferEnd> {
        match &mut self.host {
            Some(End::Buffer(end)) => Some(end),
            _ => None,
        }
    }

    pub(crate) fn state(&mut self) -> State {
        self.socket.socket(|socket| socket.state())
    }

    /// The handshake with the guest is not over, whoever began it.
    pub(crate) fn is_opening(&mut self) -> bool {
        matches!(self.state(), State::SynSent | State::SynReceived)
    }

    /// We have called the guest, which has not answered.
    pub(crate) fn is_calling(&mut self) -> bool {
        self.state() == State::SynSent
    }

    /// The handshake is over, at least one direction has not ended, and there is somebody at the far end.
    pub(crate) fn is_established(&mut self) -> bool {
        let is_abandoned = self.host.as_ref().is_some_and(End::is_abandoned);
        !self.is_complete() && !self.is_opening() && !is_abandoned
    }

    /// What the guest takes as one segment, as it says when it is called.
    pub(crate) fn set_mss(&mut self, mss: usize) {
        self.mss = mss;
    }

    /// The guest's end is over, but for bytes that the host has not taken yet, or for the FIN after
    /// them. smoltcp would forget both with the end of TIME-WAIT.
    fn is_held_in_time_wait(&mut self) -> bool {
        self.ack.since.is_none()
            && !self.ack.now
            && !self.guest_ended
            && self.state() == State::TimeWait
    }

    /// Both directions have ended in order.
    fn is_complete(&self) -> bool {
        self.guest_ended && self.host_ended
    }

    /// Resets both ends: the guest's with the next egress, the host's now.
    pub(crate) fn abort(&mut self) {
        self.aborted = true;
        self.socket.socket(|socket| socket.abort());
        if let Some(host) = self.host.take() {
            host.reset();
        }
    }

    /// Guest → host: from smoltcp's ring into the socket.
    fn relay_to_host(&mut self, writable: &mut bool) -> Moved {
        let Some(host) = &mut self.host else { return Moved::Idle };
        if !*writable || self.guest_ended {
            return Moved::Idle;
        }
        let mut moved = 0;
        loop {
            let sent = self.socket.socket(|socket| {
                socket.recv(|bytes| {
                    if bytes.is_empty() {
                        return (0, Ok(None));
                    }
                    match host.send(bytes) {
                        Ok(n) => (n, Ok(Some(n))),
                        Err(error) => (0, Err(error)),
                    }
                })
            });
            match sent {
                Ok(Ok(Some(n))) => {
                    moved += n;
                    self.splice.taken(n);
                    self.share.has_taken(n);
                    self.to_host += n as u64;
                    if moved >= BUDGET {
                        return Moved::More;
                    }
                }
                Ok(Ok(None)) => {
                    if !self.splice.has_beyond() {
                        self.share.renew(&mut self.socket);
                    }
                    return Moved::Idle;
                }
                Err(RecvError::InvalidState) => return Moved::Idle,
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    *writable = false;
                    return Moved::Idle;
                }
                // What could not be sent is lost with the connection. What the host has sent before it
                // broke is the guest's yet.
                Ok(Err(_)) => {
                    self.send_failed = true;
                    return Moved::Broken;
                }
                Err(RecvError::Finished) => {
                    host.finish();
                    self.guest_ended = true;
                    return Moved::Idle;
                }
            }
        }
    }

    /// Host → guest: from the socket into smoltcp's ring.
    fn relay_to_guest(
        &mut self,
        readable: &mut bool,
        stops_early: bool,
        budget: &mut Budget,
    ) -> Moved {
        let Some(host) = &mut self.host else { return Moved::Idle };
        if !*readable || self.host_ended || self.host_reset {
            return Moved::Idle;
        }
        enum Received {
            NoRoom,
            End,
            Bytes { n: usize, short: bool },
            Failed(io::Error),
        }
        let mut moved = 0;
        loop {
            let share = &mut self.share;
            let received = self.socket.socket(|socket| {
                let most = share.may_send(socket.send_queue(), budget);
                socket.send(|room| {
                    let (room, _) = room.split_at_mut(most.min(room.len()));
                    if room.is_empty() {
                        return (0, Received::NoRoom);
                    }
                    match host.receive(room) {
                        Ok(0) => (0, Received::End),
                        Ok(n) => (n, Received::Bytes { n, short: n < room.len() }),
                        Err(error) => (0, Received::Failed(error)),
                    }
                })
            });
            match received {
                // The handshake is not over, or the guest has reset.
                Err(_) | Ok(Received::NoRoom) => return Moved::Idle,
                Ok(Received::End) if self.send_failed => return Moved::Broken,
                Ok(Received::End) => {
                    self.host_ended = true;
                    return Moved::Idle;
                }
                Ok(Received::Bytes { n, short }) => {
                    moved += n;
                    self.share.has_sent(n);
                    self.to_guest += n as u64;
                    // A stream gives what it has: a short receive means that it is empty, and the
                    // next byte brings an edge. Unless the end came with these bytes and its edge too.
                    if short && !stops_early {
                        *readable = false;
                        return Moved::Idle;
                    }
                    if moved >= BUDGET {
                        return Moved::More;
                    }
                }
                Ok(Received::Failed(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    *readable = false;
                    return Moved::Idle;
                }
                Ok(Received::Failed(_)) => return Moved::Broken,
            }
        }
    }

    /// Passes the host's FIN on, after its last byte.
    ///
    /// In CLOSE-WAIT the last byte must be acknowledged first: smoltcp 0.14 ignores a window update in
    /// LAST-ACK, so a guest that had closed its window would have to wait for a probe.
    fn pass_end_on(&mut self) {
        if !self.host_ended || self.closed {
            return;
        }
        self.closed = self.socket.socket(|socket| {
            let can_close = socket.state() != State::CloseWait || socket.send_queue() == 0;
            if can_close {
                socket.close();
            }
            can_close
        });
    }

    /// Whether smoltcp must be asked now for what it has to send. If not, all there could be is the
    /// acknowledgement of a small segment, or of a FIN, which waits a moment for something to ride on.
    fn must_send(&mut self, now: Instant) -> bool {
        let due = self.ack.since.is_none_or(|since| now >= since + ACK_DELAY);
        let unsent = self.socket.socket(|socket| {
            let is_quiet = matches!(socket.state(), State::Established | State::CloseWait);
            socket.send_queue() > 0 || !is_quiet
        });
        self.ack.now || due || unsent
    }
}

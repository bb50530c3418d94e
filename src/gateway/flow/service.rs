//! One service of a flow: bytes both ways, ends and resets passed on, and what smoltcp has to send.

use smoltcp::iface::{Interface, PollResult};
use smoltcp::socket::tcp::State;

use super::{ACK_DELAY, AckOwed, Moved, Open, Outcome, Ready};
use crate::gateway::device::LinkDevice;
use crate::gateway::flows::Turn;
use crate::gateway::windows::Budget;
use crate::wire::ETHERNET;

/// What smoltcp did when it was asked for packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Egress {
    Done,
    More,
    NoRoom,
}

fn egress(open: &mut Open, interface: &mut Interface, turn: &mut Turn<'_, '_>) -> Egress {
    const PACKETS: usize = 8;
    for _ in 0..PACKETS {
        let mut device = LinkDevice::for_egress(turn.link, turn.outlet, open.splice.shift());
        let result = open.socket.with(|set, _| interface.poll_egress(turn.now, &mut device, set));
        let (is_exhausted, said) = (device.is_exhausted(), device.said());
        open.note(said);
        if is_exhausted {
            return Egress::NoRoom;
        }
        if result == PollResult::None {
            return acknowledge(open, interface, turn);
        }
        open.probe.sent(turn.now);
    }
    Egress::More
}

/// Has smoltcp acknowledge what it has not heard of.
fn acknowledge(open: &mut Open, interface: &mut Interface, turn: &mut Turn<'_, '_>) -> Egress {
    if !open.splice.is_owed() {
        return Egress::Done;
    }
    if !turn.outlet.has_room() {
        return Egress::NoRoom;
    }
    if let Some(frame) = open.repetition() {
        let packet = frame.get(ETHERNET..).unwrap_or_default();
        ingress(open, interface, packet, turn);
    }
    Egress::Done
}

/// Gives a packet to smoltcp.
pub(crate) fn ingress(
    open: &mut Open,
    interface: &mut Interface,
    packet: &[u8],
    turn: &mut Turn<'_, '_>,
) {
    let mut device = LinkDevice::for_ingress(turn.link, turn.outlet, packet, open.splice.shift());
    open.socket.with(|set, _| interface.poll_ingress_single(turn.now, &mut device, set));
    let said = device.said();
    open.note(said);
}

/// Has smoltcp retransmit if the guest has been silent for too long.
fn probe(open: &mut Open, interface: &mut Interface, turn: &mut Turn<'_, '_>) {
    let (state, left) = open.socket.socket(|socket| (socket.state(), socket.send_queue()));
    let left = if can_send(state) { left } else { 0 };
    open.probe.observe(open.to_guest - left as u64, left, open.mss, turn.now);
    for packet in open.probe.ask(turn.now) {
        ingress(open, interface, &packet, turn);
    }
}

/// Whether bytes to the guest are sent in this state.
fn can_send(state: State) -> bool {
    use State::{CloseWait, Closing, Established, FinWait1, LastAck};
    matches!(state, Established | CloseWait | FinWait1 | Closing | LastAck)
}

/// Moves what can be moved in both directions, and lets smoltcp send.
pub(crate) fn serve(
    open: &mut Open,
    ready: &mut Ready,
    interface: &mut Interface,
    budget: &mut Budget,
    turn: &mut Turn<'_, '_>,
) -> Outcome {
    let mut more = false;
    match open.relay_to_host(&mut ready.writable) {
        Moved::Idle => {}
        Moved::More => more = true,
        // The end is to be found at once, and no edge need come for it.
        Moved::Broken => ready.readable = true,
    }
    match open.relay_to_guest(&mut ready.readable, ready.ended || ready.urgent, budget) {
        Moved::Idle => {}
        Moved::More => more = true,
        Moved::Broken => open.host_reset = true,
    }
    // A client that has left before the guest has answered.
    open.host_reset |= ready.failed && open.is_calling();
    // A reset after the host's FIN: there is nothing to receive that would tell.
    open.host_reset |= open.host_ended && !open.guest_ended && (ready.failed || open.send_failed);
    open.pass_end_on();
    // What the host sent before its reset belongs to the guest: the reset comes after it.
    if open.host_reset && !open.aborted && open.socket.socket(|socket| socket.send_queue() == 0) {
        open.abort();
    }

    probe(open, interface, turn);
    let held = open.is_held_in_time_wait();
    if !held && open.must_send(turn.now) {
        match egress(open, interface, turn) {
            Egress::Done => open.ack = AckOwed::default(),
            Egress::More => more = true,
            Egress::NoRoom => return Outcome::Starved,
        }
    }

    let (state, has_peer) =
        open.socket.socket(|socket| (socket.state(), socket.remote_endpoint().is_some()));
    match state {
        _ if open.guest_reset => {
            if let Some(host) = open.host.take() {
                host.reset();
            }
            return Outcome::Reset;
        }
        // An aborted socket keeps its peer until the reset is out.
        State::Closed if open.aborted && !has_peer => return Outcome::Reset,
        State::Closed if open.is_complete() => return Outcome::Closed,
        State::TimeWait if open.is_complete() => open.host = None,
        _ => {}
    }
    if more {
        return Outcome::Again;
    }
    let at = match open.ack.since {
        _ if held => None,
        // poll_at says "now" for an acknowledgement that we hold back.
        Some(since) => Some(since + ACK_DELAY),
        None => open.socket.with(|set, _| interface.poll_at(turn.now, set)),
    };
    let at = at.into_iter().chain(open.probe.deadline()).min();
    match at {
        Some(at) if at <= turn.now => Outcome::Again,
        at if state == State::TimeWait && !held => Outcome::TimeWait(at),
        at => Outcome::Wait(at),
    }
}

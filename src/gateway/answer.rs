//! What the guest hears of a connection that does not come about, and of a datagram that does not go.

use std::io;

use tracing::trace;

use super::classify::Segment;
use super::flows::Turn;
use super::host::ConnectError;
use super::icmp::{IcmpError, Unreachable, answer_error};
use super::reset;
use crate::metrics::DropReason;

/// What the guest is told of a path of unknown MTU: what every host takes (RFC 1122 section 3.3.2).
const UNKNOWN_MTU: u32 = 576;

/// Says RST to the guest.
pub(crate) fn answer_with_reset(turn: &mut Turn<'_, '_>, offending: &[u8], segment: &Segment) {
    let buffer = turn.outlet.queues.buffer(0);
    if let Some(frame) = reset::reset_for(buffer, turn.link, offending, segment) {
        turn.outlet.reply(frame);
    }
}

/// Says to the guest that the destination cannot be had, and why.
pub(crate) fn answer_unreachable(turn: &mut Turn<'_, '_>, offending: &[u8], why: Unreachable) {
    answer_error(turn, offending, IcmpError::Unreachable(why));
}

/// Tells the guest what became of its connection: what it would hear without a gateway.
pub(crate) fn answer_failure(
    turn: &mut Turn<'_, '_>,
    syn: &[u8],
    segment: &Segment,
    error: ConnectError,
) {
    turn.counters.dropped(error.drop_reason());
    trace!(guest = %segment.key.guest, remote = %segment.key.remote, ?error, "no connection");
    match error {
        ConnectError::Refused | ConnectError::Resource => answer_with_reset(turn, syn, segment),
        ConnectError::Unreachable(why) => answer_unreachable(turn, syn, why),
        // As the last router says of a host that answers nothing.
        ConnectError::TimedOut => answer_unreachable(turn, syn, Unreachable::Host),
    }
}

/// The host does not take a packet: the guest hears why.
pub(crate) fn answer_failed_send(
    frame: &[u8],
    error: &io::Error,
    mtu: Option<u32>,
    turn: &mut Turn<'_, '_>,
) {
    if error.raw_os_error() == Some(libc::EMSGSIZE) {
        turn.counters.dropped(DropReason::TooBig);
        let mtu = mtu.unwrap_or(UNKNOWN_MTU);
        return answer_error(turn, frame, IcmpError::TooBig { mtu });
    }
    let error = ConnectError::from_io(error);
    turn.counters.dropped(error.drop_reason());
    if let ConnectError::Unreachable(why) = error {
        answer_error(turn, frame, IcmpError::Unreachable(why));
    }
}

//! What the guest needs to configure itself, on its way to the guest: DHCP and router advertisements.

use std::net::IpAddr;

use smoltcp::time::Instant;

use super::datagram::DatagramHead;
use super::dhcp::{self, DhcpServer};
use super::flows::Turn;
use super::neighbor::Solicitation;
use super::router::{Router, host_has_ipv6_route};
use crate::metrics::DropReason;

/// Answers a datagram for the DHCP server. `Ok(None)` if it wants no answer.
pub(crate) fn dhcp(
    frame: &[u8],
    head: &DatagramHead,
    server: Option<&DhcpServer>,
    turn: &Turn<'_, '_>,
) -> Result<Option<Vec<u8>>, DropReason> {
    let IpAddr::V4(source) = head.source.ip() else { return Err(DropReason::Dhcp) };
    let server = server.ok_or(DropReason::Dhcp)?;
    let payload = frame.get(head.payload.clone()).ok_or(DropReason::Malformed)?;
    let Some(reply) = server.handle(turn.link, payload, source)? else { return Ok(None) };
    turn.counters.dhcp_replies.add(1);
    Ok(Some(dhcp::frame(turn.outlet.queues.buffer(0), turn.link, &reply)))
}

/// Answers a router solicitation. `Ok(None)` if the answer comes later.
pub(crate) fn solicited(
    solicitation: &Solicitation<'_>,
    router: &mut Option<Router>,
    turn: &Turn<'_, '_>,
) -> Result<Option<Vec<u8>>, DropReason> {
    let router = router.as_mut().ok_or(DropReason::Ndp)?;
    router.look(turn.now, host_has_ipv6_route);
    let buffer = turn.outlet.queues.buffer(0);
    let reply = router.solicited(buffer, turn.link, solicitation, turn.now)?;
    turn.counters.router_advertisements.add(u64::from(reply.is_some()));
    Ok(reply)
}

/// Asks the host for its IPv6 route, for a guest that listens to advertisements: if that is news, the next is
/// due at once.
pub(crate) fn look_again(router: &mut Option<Router>, now: Instant) {
    if let Some(router) = router.as_mut().filter(|router| router.next_deadline().is_some())
        && let Some(available) = host_has_ipv6_route()
    {
        router.set_default_route(available, now);
    }
}

/// Sends the advertisement that is due, if one is.
pub(crate) fn advertise(router: &mut Option<Router>, turn: &mut Turn<'_, '_>) {
    let Some(router) = router.as_mut().filter(|router| router.is_due(turn.now)) else { return };
    router.look(turn.now, host_has_ipv6_route);
    let buffer = turn.outlet.queues.buffer(0);
    let advertisement = router.expired(buffer, turn.link, turn.now);
    send(advertisement, turn);
}

/// Tells the guest that the gateway is going.
pub(crate) fn farewell(router: &mut Option<Router>, turn: &mut Turn<'_, '_>) {
    let Some(router) = router else { return };
    let buffer = turn.outlet.queues.buffer(0);
    let advertisement = router.farewell(buffer, turn.link);
    send(advertisement, turn);
}

fn send(advertisement: Option<Vec<u8>>, turn: &mut Turn<'_, '_>) {
    if let Some(frame) = advertisement {
        turn.counters.router_advertisements.add(1);
        turn.outlet.reply(frame);
    }
}

#[cfg(test)]
mod tests;

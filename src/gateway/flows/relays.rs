//! Flows to services that the embedder runs in this process.

use smoltcp::socket::tcp::State;
use smoltcp::wire::{IpAddress, IpListenEndpoint};

use super::{Flows, Turn};
use crate::gateway::answer::{answer_failure, answer_with_reset};
use crate::gateway::classify::Segment;
use crate::gateway::end::End;
use crate::gateway::flow::{self, FlowId, Open, Phase};
use crate::gateway::host::ConnectError;
use crate::gateway::mss::tell_mss;
use crate::metrics::{Counters, DropReason};
use crate::relay::{RelayEnd, RelayThreads};
use crate::wire::ETHERNET;

impl Flows {
    /// Serves the guest with these services.
    pub(crate) fn set_relays(&mut self, relays: RelayThreads) {
        self.relays = Some(relays);
    }

    /// A SYN to the address of a service, which is always there: smoltcp gets the SYN at once. The
    /// egress policy has no say, since the destination is the embedder's own.
    pub(super) fn open_relay(
        &mut self,
        mut frame: Vec<u8>,
        segment: &Segment,
        turn: &mut Turn<'_, '_>,
    ) -> Option<Vec<u8>> {
        self.look_at_relays();
        let relays = self.relays.as_ref()?;
        let key = segment.key;
        let service = relays.service_at(key.remote)?.clone();
        let poll_loop = relays.poll_loop.clone();
        let permit = relays.permit().ok_or(DropReason::RelayLimit);
        let permit = match self.make_room(turn.counters).and(permit) {
            Ok(permit) => permit,
            Err(reason) => {
                turn.counters.dropped(reason);
                answer_with_reset(turn, &frame, segment);
                return Some(frame);
            }
        };
        let end = RelayEnd::new(service, (key.guest, key.remote), permit, &poll_loop);
        let made = end.and_then(|end| Ok((end, self.windows.take()?)));
        let Ok((end, mut socket)) = made else {
            answer_failure(turn, &frame, segment, ConnectError::Resource);
            return Some(frame);
        };
        let mss = tell_mss(&mut frame, turn.link);
        socket.socket(|socket| {
            let addr = Some(IpAddress::from(key.remote.ip()));
            // A fresh socket and a port that is not zero: it listens.
            let _ = socket.listen(IpListenEndpoint { addr, port: key.remote.port() });
        });
        let mut open = Open::new(socket, Some(End::Relay(Box::new(end))), mss);
        if let Some(packet) = frame.get(ETHERNET..segment.end) {
            flow::ingress(&mut open, &mut self.interface, packet, turn);
        }
        let id = self.next_id();
        self.insert(id, key, Phase::Open(Box::new(open)), turn);
        if let Some(flow) = self.flow_mut(id) {
            flow.ready.writable = true;
            // No edge tells that an end follows what was received: receive until nothing comes.
            flow.ready.ended = true;
        }
        self.relaying.push(id);
        turn.counters.tcp_established.add(1);
        self.activate(id);
        Some(frame)
    }

    /// Some service has read, written or ended: which?
    pub(crate) fn look_at_relays(&mut self) {
        let mut relaying = std::mem::take(&mut self.relaying);
        relaying.retain(|id| self.look_at_relay(*id));
        self.relaying = relaying;
    }

    /// Whether the flow may have news again.
    fn look_at_relay(&mut self, id: FlowId) -> bool {
        let Some(flow) = self.table.get_mut(id.index).filter(|flow| flow.id == id) else {
            return false;
        };
        let Phase::Open(open) = &mut flow.phase else { return false };
        let Some(End::Relay(end)) = &open.host else { return false };
        let has_news =
            end.is_readable() && !flow.ready.readable || end.is_writable() && !flow.ready.writable;
        flow.ready.readable |= end.is_readable();
        flow.ready.writable |= end.is_writable();
        let is_abandoned = end.is_abandoned();
        // An abandoned flow has less time to live.
        if has_news || is_abandoned {
            self.activate(id);
        }
        !is_abandoned
    }
}

/// The handshake with the guest is over, one way or the other: a service's thread starts only now, so that
/// a flood of SYNs starts none.
pub(super) fn shake_hands(
    open: &mut Open,
    is_inbound: bool,
    relays: Option<&mut RelayThreads>,
    counters: &Counters,
) {
    if !matches!(open.state(), State::Established | State::CloseWait) {
        if is_inbound && open.is_reset_by_guest() {
            counters.dropped(DropReason::GuestRefused);
        }
        return;
    }
    if is_inbound {
        counters.tcp_established.add(1);
    }
    if let (Some(End::Relay(end)), Some(relays)) = (&mut open.host, relays)
        && end.start(relays).is_err()
    {
        counters.dropped(DropReason::HostResource);
        open.abort();
    }
}

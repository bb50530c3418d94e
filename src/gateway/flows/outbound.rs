//! Flows that the guest asks for: the host is connected first, and the guest's SYN is kept until then.

use smoltcp::wire::{IpAddress, IpListenEndpoint};

use super::{Flows, Turn};
use crate::gateway::answer::{answer_failure, answer_unreachable, answer_with_reset};
use crate::gateway::buffer_end::BufferEnd;
use crate::gateway::classify::Segment;
use crate::gateway::end::End;
use crate::gateway::flow::{self, FlowId, Open, Phase};
use crate::gateway::host::{ConnectError, HostSocket};
use crate::gateway::icmp::Unreachable;
use crate::gateway::mss::tell_mss;
use crate::gateway::policy::Decision;
use crate::gateway::timers::span;
use crate::gateway::token::Source;
use crate::handle::Protocol;
use crate::metrics::DropReason;
use crate::wire::ETHERNET;

impl Flows {
    pub(super) fn open_flow(
        &mut self,
        frame: Vec<u8>,
        segment: &Segment,
        turn: &mut Turn<'_, '_>,
    ) -> Option<Vec<u8>> {
        let remote = segment.key.remote;
        if self.relays.as_ref().is_some_and(|relays| relays.service_at(remote).is_some()) {
            return self.open_relay(frame, segment, turn);
        }
        let decision = if turn.link.serves_dns(remote) || self.is_in_process() {
            None
        } else {
            Some(turn.egress.decide(Protocol::Tcp, remote, turn.link, turn.now))
        };
        let remote = match decision {
            None => None,
            Some(Decision::Connect(remote)) => Some(remote),
            Some(Decision::Refuse) => {
                turn.counters.dropped(DropReason::Policy);
                answer_with_reset(turn, &frame, segment);
                return Some(frame);
            }
            Some(Decision::Deny) => {
                turn.counters.dropped(DropReason::Policy);
                answer_unreachable(turn, &frame, Unreachable::Prohibited);
                return Some(frame);
            }
        };
        let room = match remote {
            None if self.buffers >= self.limits.dns_connections => Err(DropReason::DnsLimit),
            _ => self.make_room(turn.counters),
        };
        if let Err(reason) = room {
            turn.counters.dropped(reason);
            answer_with_reset(turn, &frame, segment);
            return Some(frame);
        }
        let id = self.next_id();
        let token = Source::Flow(id.index).into();
        let host = match remote.map(|remote| HostSocket::connect(remote, turn.registry, token)) {
            Some(Ok(host)) => End::Host(host),
            None => {
                self.buffers += 1;
                End::Buffer(BufferEnd::default())
            }
            Some(Err(error)) => {
                answer_failure(turn, &frame, segment, error);
                return Some(frame);
            }
        };
        let until = turn.now + span(self.limits.tcp_connect);
        let host = Some(host);
        let phase = Phase::Connecting { host, syn: frame, segment: *segment, until };
        self.insert(id, segment.key, phase, turn);
        self.schedule(id, until);
        if remote.is_none() {
            self.activate(id);
        }
        None
    }

    #[cfg(any(fuzzing, test))]
    pub(super) fn is_in_process(&self) -> bool {
        self.in_process
    }

    #[cfg(not(any(fuzzing, test)))]
    #[allow(clippy::unused_self)] // as the other
    pub(super) fn is_in_process(&self) -> bool {
        false
    }

    /// Looks whether the host's connection has come about. Then smoltcp gets the guest's SYN, and not
    /// before: the guest sees a connection when there is one, and until then a half-open flow costs a
    /// socket and a frame. Returns whether the flow is open now.
    pub(super) fn try_establish(&mut self, id: FlowId, turn: &mut Turn<'_, '_>) -> bool {
        let Some(flow) = self.table.get_mut(id.index) else { return false };
        let Phase::Connecting { host, syn, segment, until } = &mut flow.phase else { return true };
        let connected = match host {
            Some(host) => host.is_connected(),
            None => Err(ConnectError::Resource),
        };
        let failure = match connected {
            Ok(true) => None,
            Ok(false) if turn.now < *until => {
                let until = *until;
                self.schedule(id, until);
                return false;
            }
            Ok(false) => Some(ConnectError::TimedOut),
            Err(error) => Some(error),
        };
        if let Some(error) = failure {
            answer_failure(turn, syn, segment, error);
            self.remove(id, turn.counters);
            return false;
        }
        let Ok(mut socket) = self.windows.take() else {
            answer_failure(turn, syn, segment, ConnectError::Resource);
            self.remove(id, turn.counters);
            return false;
        };
        let key = flow.key;
        let mss = tell_mss(syn, turn.link);
        socket.socket(|socket| {
            let local = IpListenEndpoint {
                addr: Some(IpAddress::from(key.remote.ip())),
                port: key.remote.port(),
            };
            // A fresh socket and a port that is not zero: it listens.
            let _ = socket.listen(local);
        });
        let mut open = Open::new(socket, host.take(), mss);
        if let Some(packet) = syn.get(ETHERNET..segment.end) {
            flow::ingress(&mut open, &mut self.interface, packet, turn);
        }
        turn.outlet.queues.recycle(std::mem::take(syn));
        flow.phase = Phase::Open(Box::new(open));
        flow.ready.writable = true;
        turn.counters.tcp_established.add(1);
        true
    }
}

//! The guest's end of a flow whose host connection has come about.

use smoltcp::wire::{IpAddress, IpListenEndpoint};

use super::{Flows, Turn};
use crate::gateway::answer::answer_failure;
use crate::gateway::device::LinkDevice;
use crate::gateway::flow::{FlowId, Open, Phase};
use crate::gateway::host::ConnectError;
use crate::gateway::mss::tell_mss;
use crate::wire::ETHERNET;

impl Flows {
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
        if let Some(packet) = syn.get(ETHERNET..segment.end) {
            let mut device = LinkDevice::for_ingress(turn.link, turn.outlet, packet);
            let interface = &mut self.interface;
            socket.with(|set, _| interface.poll_ingress_single(turn.now, &mut device, set));
        }
        let host = host.take();
        turn.outlet.queues.recycle(std::mem::take(syn));
        flow.phase = Phase::Open(Box::new(Open::new(socket, host, mss, segment.sequence)));
        flow.ready.writable = true;
        turn.counters.tcp_established.add(1);
        true
    }
}

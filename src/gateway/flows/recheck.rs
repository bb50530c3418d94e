//! Live flows under another policy.

use crate::gateway::answer::answer_unreachable;
use crate::gateway::end::End;
use crate::gateway::flow::{FlowId, Phase};
use crate::gateway::icmp::Unreachable;
use crate::gateway::policy::Decision;
use crate::handle::Protocol;
use crate::metrics::DropReason;

use super::{Flows, Turn};

impl Flows {
    /// The policy is another: ends the flows to the host that it denies, both ends with a reset. One that is
    /// not open yet is answered as a new one would be. Costs a decision for each flow.
    pub(crate) fn recheck(&mut self, turn: &mut Turn<'_, '_>) {
        let all: Vec<FlowId> = self.table.iter().map(|(_, flow)| flow.id).collect();
        for id in all {
            let Some(flow) = self.table.get_mut(id.index) else { continue };
            let host = match &flow.phase {
                Phase::Connecting { host, .. } => host,
                Phase::Open(open) => &open.host,
            };
            // Who comes through a published port, or talks to the embedder, is no business of the policy's.
            if !matches!(host, Some(End::Host(_))) || flow.published.is_some() {
                continue;
            }
            let remote = flow.key.remote;
            let decision = turn.egress.recheck(Protocol::Tcp, remote, turn.link);
            if matches!(decision, Decision::Connect(_)) {
                continue;
            }
            turn.counters.dropped(DropReason::Policy);
            match &mut flow.phase {
                Phase::Connecting { syn, .. } => {
                    let syn = std::mem::take(syn);
                    answer_unreachable(turn, &syn, Unreachable::Prohibited);
                    self.remove(id, turn.counters);
                }
                Phase::Open(open) => {
                    open.abort();
                    self.activate(id);
                }
            }
        }
    }
}

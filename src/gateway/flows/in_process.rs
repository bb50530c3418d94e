//! Flows whose host end is a buffer in this process, for the fuzzer: nothing is dialled, and what went
//! through can be looked at.

use super::Flows;
use crate::gateway::buffer_end::BufferEnd;
use crate::gateway::end::End;
use crate::gateway::flow::{Flow, Phase};

impl Flows {
    pub(crate) fn in_process_only(&mut self) -> Option<&mut Flow> {
        self.table.iter_mut().next().map(|(_, flow)| flow)
    }

    /// The only flow: how many there were before it, and the number of its SYN while that waits.
    pub(crate) fn in_process_flow(&mut self) -> Option<(u64, Option<u32>)> {
        let flow = self.in_process_only()?;
        let syn = match &flow.phase {
            Phase::Connecting { segment, .. } => Some(segment.sequence),
            Phase::Open(_) => None,
        };
        Some((flow.id.generation, syn))
    }

    /// The host end of the only flow, if it is there still.
    pub(crate) fn in_process_end(&mut self) -> Option<&mut BufferEnd> {
        match &mut self.in_process_only()?.phase {
            Phase::Open(open) => match &mut open.host {
                Some(End::Buffer(end)) => Some(end),
                _ => None,
            },
            Phase::Connecting { .. } => None,
        }
    }

    /// The host end of the only flow has news.
    pub(crate) fn in_process_news(&mut self) {
        let Some(flow) = self.in_process_only() else { return };
        flow.ready.readable = true;
        flow.ready.writable = true;
        let id = flow.id;
        self.activate(id);
    }
}

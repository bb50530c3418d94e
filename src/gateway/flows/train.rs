//! Segments of one flow that are spliced together: they lie one after the other in the receive buffer, and
//! one vectored send takes the payloads of all. A send for each would wake the reader at the far end for
//! each.
//!
//! Between a segment's boarding and the departure nothing happens to its flow, and the buffer stays as it is:
//! whatever else the guest has sent, and whoever wants the buffer, has the train depart first.

use std::io::IoSlice;
use std::ops::Range;

use super::segments::ingress;
use super::{Flows, Turn};
use crate::gateway::classify::Segment;
use crate::gateway::flow::{Flow, FlowId, Phase};

/// The segments of a train; merged ones have up to 64 KiB each.
const LONGEST: usize = 32;

/// What has boarded and not departed.
#[derive(Debug, Default)]
pub(super) struct Train {
    flow: Option<FlowId>,
    cars: Vec<Car>,
    bytes: usize,
}

#[derive(Debug)]
struct Car {
    /// Where the frame lies in the receive buffer.
    frame: Range<usize>,
    /// Where its payload does.
    payload: Range<usize>,
    segment: Segment,
}

impl Flows {
    /// Takes a segment along that can be spliced. Says whether it did.
    pub(super) fn board(
        &mut self,
        id: FlowId,
        buffer: &mut [u8],
        frame: &Range<usize>,
        segment: &Segment,
        turn: &mut Turn<'_, '_>,
    ) -> bool {
        if self.train.flow != Some(id) || self.train.cars.len() == LONGEST {
            self.depart(buffer, turn);
        }
        let aboard = self.train.bytes;
        let Some(Flow { phase: Phase::Open(open), ready, .. }) = self.table.get_mut(id.index)
        else {
            return false;
        };
        let Some(bytes) = buffer.get(frame.clone()) else { return false };
        let Some(payload) = open.can_splice(bytes, segment, ready, aboard) else {
            self.depart(buffer, turn);
            return false;
        };
        let payload = frame.start + payload.start..frame.start + payload.end;
        self.train.flow = Some(id);
        self.train.bytes += payload.len();
        self.train.cars.push(Car { frame: frame.clone(), payload, segment: *segment });
        true
    }

    /// Sends what has boarded. What the far end does not take goes into smoltcp.
    pub(crate) fn depart(&mut self, buffer: &mut [u8], turn: &mut Turn<'_, '_>) {
        let Train { flow, cars, bytes } = &mut self.train;
        *bytes = 0;
        let flow = flow.take().and_then(|id| self.table.get_mut(id.index));
        if let Some(Flow { phase: Phase::Open(open), ready, .. }) = flow {
            let mut slices = [IoSlice::new(&[]); LONGEST];
            for (slice, car) in slices.iter_mut().zip(cars.iter()) {
                *slice = IoSlice::new(buffer.get(car.payload.clone()).unwrap_or_default());
            }
            let mut sent = open.send(slices.get(..cars.len()).unwrap_or_default(), ready);
            turn.counters.tcp_bytes_to_host.add(sent as u64);
            for Car { frame, payload, segment } in cars.drain(..) {
                let of_this = sent.min(payload.len());
                sent -= of_this;
                if let Some(frame) = buffer.get_mut(frame) {
                    let rest = open.rest(frame, &segment, of_this, &mut self.windows.budget, turn);
                    ingress(open, &mut self.interface, rest, turn);
                }
            }
        }
        cars.clear();
    }
}

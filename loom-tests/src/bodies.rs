//! The bodies of models that mean something on real threads too. Each takes how many frames it moves:
//! one or two in a model, as many as there is time for elsewhere.

mod back_pressure;
mod bridge;
mod budget;
mod pipe;
mod producers;
mod relay;
mod shutdown;
mod stream;
mod whole;

pub use back_pressure::{BackPressure, back_pressure_from_guest, back_pressure_to_guest};
pub use bridge::{Nic, PollLoop};
pub use budget::{Budgeted, budget};
pub use pipe::{OneWay, one_way};
pub use producers::{Produced, producers};
pub use relay::{Relay, Relayed, Reset, echo, guest_ends_first, service_ends_first};
pub use shutdown::{Stopped, push_then_shutdown};
pub use stream::Stream;
pub use whole::{Whole, delivered, stopped};

use crate::jitter::delay;

/// Frame number `number` of the producer `from`.
pub fn frame(from: usize, number: usize) -> Vec<u8> {
    delay();
    let mut frame = (number as u32).to_le_bytes().to_vec();
    frame.push(from as u8);
    frame
}

/// Which frames have come: of each producer every one, once, and in order.
#[derive(Debug)]
pub struct Ledger(Vec<usize>);

impl Ledger {
    /// Nothing has come from any of these producers.
    pub fn new(producers: usize) -> Self {
        Self(vec![0; producers])
    }

    /// A frame has come.
    ///
    /// # Panics
    /// If it is not the next of its producer.
    pub fn enter(&mut self, frame: &[u8]) {
        delay();
        let (&from, number) = frame.split_last().unwrap();
        let number = u32::from_le_bytes(number.try_into().unwrap()) as usize;
        let next = &mut self.0[usize::from(from)];
        assert_eq!(number, *next, "a frame was lost, came twice or overtook another");
        *next += 1;
    }

    /// How many have come.
    pub fn len(&self) -> usize {
        self.0.iter().sum()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

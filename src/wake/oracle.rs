//! What a bell does when one thread does everything, said plainly: an oracle for the state machines of whatever
//! rings it.

#![allow(clippy::unwrap_used)] // All of this is test.

use std::fs::File;
use std::io::{ErrorKind, Read};

use super::*;

/// A bell as its waiter should find it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BellOracle {
    notes: u32,
    is_armed: bool,
    is_down: bool,
    /// Writes to the eventfd that nobody has read.
    writes: u64,
}

impl BellOracle {
    /// A write happens if the waiter has leave to sleep and nobody has woken it yet.
    pub(crate) fn ring(&mut self, note: Note) {
        self.writes += u64::from(self.is_armed && self.notes == 0 && !self.is_down);
        self.notes |= note as u32;
    }

    /// The first shutdown writes, whatever the waiter does.
    pub(crate) fn shut_down(&mut self) {
        self.writes += u64::from(!self.is_down);
        self.is_down = true;
        self.notes |= Note::Shutdown as u32;
    }

    /// The bell finds what the oracle says, and no notes are left in either.
    pub(crate) fn check_take(&mut self, bell: &WakePipe) {
        let down = if self.is_down { DOWN } else { 0 };
        let armed = if self.is_armed { ARMED } else { 0 };
        assert_eq!(bell.take(), Wakes(self.notes | armed | down));
        (self.notes, self.is_armed) = (0, false);
    }

    /// The bell gives leave to sleep if there is no news.
    pub(crate) fn check_arm(&mut self, bell: &WakePipe) -> bool {
        let leave = self.notes == 0 && !self.is_armed && !self.is_down;
        assert_eq!(bell.arm(), leave);
        self.is_armed |= leave;
        leave
    }

    /// As many writes as there should have been, and not one more: the eventfd counts them.
    pub(crate) fn check_writes(&mut self, bell: &WakePipe) -> u64 {
        let mut event = File::from(bell.as_fd().try_clone_to_owned().unwrap());
        let mut count = [0; 8];
        let writes = match event.read(&mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(writes, std::mem::take(&mut self.writes), "writes to the eventfd");
        writes
    }

    pub(crate) fn is_down(&self) -> bool {
        self.is_down
    }

    /// Whether this note waits to be taken.
    pub(crate) fn has(&self, note: Note) -> bool {
        self.notes & note as u32 != 0
    }
}

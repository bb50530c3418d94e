//! The fuzzer's bytes as numbers.

/// What is left of the input; zeros follow its end.
pub(super) struct Input<'d>(pub(super) &'d [u8]);

impl<'d> Input<'d> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> u8 {
        self.byte().unwrap_or(0)
    }

    pub(super) fn delta(&mut self) -> u32 {
        let delta = i16::from_be_bytes([self.number(), self.number()]);
        i32::from(delta).cast_unsigned()
    }

    pub(super) fn take(&mut self, len: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

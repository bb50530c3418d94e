//! What the parts of framegate's per-packet path cost. `benches/times.rs` measures the time of each, and
//! `bin/instructions` counts its instructions.
//!
//! A part does its work in rounds. What a round prepares, and what the guest and the host do in it, is
//! not measured: only what the round does through the [`Meter`] is.

#[cfg(not(framegate_bench))]
compile_error!("the parts are no API: RUSTFLAGS='--cfg framegate_bench'");

#[cfg(framegate_bench)]
mod frames;
#[cfg(framegate_bench)]
mod guest;
#[cfg(framegate_bench)]
mod lab;
#[cfg(framegate_bench)]
mod parts;

/// Does some work, and measures it.
pub type Meter<'m> = dyn FnMut(&mut dyn FnMut()) + 'm;

/// Does one round of a part.
pub type Round = Box<dyn FnMut(&mut Meter<'_>)>;

/// Something that a packet costs.
pub struct Part {
    pub name: &'static str,
    /// What it costs this for.
    pub unit: &'static str,
    /// How many of them there are in a round.
    pub units: u32,
    pub prepare: fn() -> Round,
}

impl Part {
    const fn new(
        name: &'static str,
        units: u32,
        unit: &'static str,
        prepare: fn() -> Round,
    ) -> Self {
        Self { name, unit, units, prepare }
    }
}

/// All parts, from the smallest to the whole turn.
pub fn parts() -> impl Iterator<Item = Part> {
    #[cfg(framegate_bench)]
    {
        parts::bridge().into_iter().chain(parts::core()).chain(parts::turn())
    }
    #[cfg(not(framegate_bench))]
    std::iter::empty()
}

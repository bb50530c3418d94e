//! The parts.

mod bridge;
mod core;
mod turn;

pub(crate) use self::bridge::parts as bridge;
pub(crate) use self::core::parts as core;
pub(crate) use self::turn::parts as turn;

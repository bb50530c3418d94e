//! Frames between the VMM's stream and the poll loop: the two halves of the stream, and the two threads
//! that run a half while the poll loop can't ([`hand_over`](crate::hand_over)).
//!
//! # What the VMM does on its side
//!
//! libkrun's `unixstream` and QEMU's `-netdev stream` speak the same: a 4-byte big-endian length,
//! then the bare Ethernet frame. libkrun serves one NIC with one thread for both directions:
//!
//! * It takes 4 bytes without blocking and then *blocks* until the whole frame is there: while a
//!   frame of ours is half sent, the guest's own frames wait too.
//! * It hands a frame to the guest whatever its length, and wedges for good on one that is longer
//!   than the guest's buffers.
//! * It sends without blocking, keeps what did not fit, and goes on when we have read.
//! * When our end closes, or only stops sending, its thread spins until the VM ends.
//!
//! # What we owe it
//!
//! * The length prefix, the frame, and as many more frames as there are go out in one call. What
//!   the stream did not take goes out before anything else ([`sender`]).
//! * No frame is longer than the guest's MTU and its Ethernet header. A TCP segment that is longer
//!   is cut ([`cut`]); any other frame is dropped and counted.
//! * A length outside 14..=65,550 ends the link with that reason ([`framing`]). There is no way to
//!   find the next frame, and what looks like one would be the guest's choice.
//! * Neither thread closes the stream or shuts it down; that is for whoever owns it, after the VM.
//!
//! # What costs and what does not
//!
//! At an MTU of 1500 the cost is for each frame, not for each byte, so a frame that only continues
//! the one before is appended to it in the receive buffer ([`merge`]), and what the gateway sends
//! as one frame is cut while the vectored send is built ([`cut`]).

pub(crate) mod framing;
mod merge;
mod receiver;

mod cut;
mod sender;

mod reader;
mod writer;

#[cfg(framegate_bench)]
pub(crate) mod by_hand;
#[cfg(any(fuzzing, test))]
mod check;
#[cfg(test)]
mod testing;

pub(crate) use reader::Reader;
pub(crate) use receiver::{Received, Receiver};
pub(crate) use sender::Sender;
pub(crate) use writer::{Writer, prepare};

/// Where the halves of the VMM's stream change hands.
pub(crate) type HandOver = crate::hand_over::HandOver<Receiver, Sender>;

//! The only module with `unsafe`: the system calls and the mapped memory that no safe crate among
//! the dependencies gives. Each block carries its argument.
#![allow(unsafe_code)]

#[cfg(feature = "runtime")]
pub(crate) mod datagram;
mod event_fd;
#[cfg(feature = "runtime")]
pub(crate) mod pages;
mod poll;

pub(crate) use event_fd::EventFd;
#[cfg(feature = "runtime")]
pub(crate) use poll::{poll_writable, unreceived};

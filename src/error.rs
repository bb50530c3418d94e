//! What can go wrong, and whose doing it was.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::policy::PolicyError;
use crate::publish::PublishError;

/// The VMM broke the stream's framing. There is no way back into step, so the link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FramingViolation {
    /// A length prefix below 14, the size of an Ethernet header.
    TooShort {
        /// The length that the prefix gave, in bytes.
        len: u32,
    },
    /// A length prefix above 65,550: libkrun's buffer less its virtio-net header.
    TooLong {
        /// The length that the prefix gave, in bytes.
        len: u32,
    },
}

impl fmt::Display for FramingViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, bound) = match self {
            Self::TooShort { len } => (len, "below 14"),
            Self::TooLong { len } => (len, "above 65550"),
        };
        write!(
            f,
            "the VMM sent a frame length of {len}, {bound}: is the other end a 4-byte big-endian length-prefixed stream?"
        )
    }
}

impl std::error::Error for FramingViolation {}

/// Why the runtime stopped. The first reason wins.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StopReason {
    /// The embedder asked for it.
    Requested,
    /// The VMM closed its end of the stream, between frames or within one.
    PeerClosed,
    /// The VMM broke the framing.
    FramingViolation(FramingViolation),
    /// A system call that must not fail did: what we were doing, and the error.
    HostFault(&'static str, io::ErrorKind),
    /// A thread panicked: a defect of framegate. Its name and the message.
    WorkerPanicked(&'static str, String),
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("shutdown was requested"),
            Self::PeerClosed => f.write_str("the VMM closed the link"),
            Self::FramingViolation(violation) => violation.fmt(f),
            Self::HostFault(what, error) => write!(f, "the host failed us at {what}: {error}"),
            Self::WorkerPanicked(thread, message) => {
                write!(f, "thread {thread} panicked, please report it: {message}")
            }
        }
    }
}

/// Why the runtime did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration contradicts itself.
    Config(ConfigError),
    /// A system call failed: what we were doing, and the error.
    Host(&'static str, io::Error),
    /// A port cannot be published.
    Publish(PublishError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Host(what, error) => write!(f, "cannot start: {what}: {error}"),
            Self::Publish(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => Some(error),
            Self::Host(_, error) => Some(error),
            Self::Publish(error) => Some(error),
        }
    }
}

impl From<PublishError> for StartError {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// A configuration that cannot work.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The MTU is outside 1280..=65,520, or above 1500 without [`Offload::Jumbo`](crate::Offload).
    Mtu(u16),
    /// A MAC address is a group address or all zeros, or guest and gateway have the same.
    Mac,
    /// Guest and gateway do not lie in one subnet, are the same address, or one is not a host
    /// address of it.
    Ipv4,
    /// As [`Ipv4`](Self::Ipv4), for the IPv6 addresses.
    Ipv6,
    /// The guest could never reach a service at this address, or two services have it.
    Service(SocketAddr),
    /// The policy cannot be enforced.
    Policy(PolicyError),
    /// There is no DNS server to ask, or a record has no host name: which.
    Dns(String),
    /// A limit is zero or above its bound: its name.
    Limit(&'static str),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mtu(mtu) => write!(
                f,
                "an MTU of {mtu} does not work: 1280 to 1500, or up to 65520 with jumbo offload"
            ),
            Self::Mac => f.write_str("the MAC addresses must be two different unicast addresses"),
            Self::Ipv4 => f.write_str(
                "the IPv4 addresses of guest and gateway must be two different host addresses of one subnet",
            ),
            Self::Ipv6 => f.write_str(
                "the IPv6 addresses of guest and gateway must be two different unicast addresses of one prefix",
            ),
            Self::Service(address) => write!(
                f,
                "no service can be at {address}: an address that a router forwards to or the gateway's, a port that is not 0, and one service at each are needed"
            ),
            Self::Policy(error) => write!(f, "the policy: {error}"),
            Self::Dns(what) => write!(f, "DNS cannot be served so: {what}"),
            Self::Limit(name) => write!(f, "the limit {name} is out of its range"),
        }
    }
}

impl std::error::Error for ConfigError {}

//! Whose event it is: what each descriptor in the poll set belongs to.

use mio::Token;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The poll loop's own bell.
    Bell,
    /// The VMM's stream.
    Stream,
    /// The host's socket of a TCP flow.
    Flow(usize),
    /// A listener of a published TCP port.
    Listener(usize),
    /// The host's socket of a UDP mapping.
    Udp(usize),
    /// The host's socket of a published UDP port.
    PublishedUdp(usize),
    /// A ping socket.
    Ping(usize),
    /// A socket to a DNS upstream.
    Dns(usize),
    /// The host's resolver configuration has changed.
    Resolver,
    /// The host's addresses have changed.
    Addresses,
}

/// The kind lies above the index, which is a place in a table that fits the memory.
const SHIFT: u32 = usize::BITS - 8;
const INDEX: usize = (1 << SHIFT) - 1;

impl From<Source> for Token {
    fn from(source: Source) -> Self {
        let (kind, index) = match source {
            Source::Bell => (0, 0),
            Source::Stream => (1, 0),
            Source::Flow(index) => (2, index),
            Source::Listener(index) => (3, index),
            Source::Udp(index) => (4, index),
            Source::PublishedUdp(index) => (5, index),
            Source::Ping(index) => (6, index),
            Source::Dns(index) => (7, index),
            Source::Resolver => (8, 0),
            Source::Addresses => (9, 0),
        };
        Self(kind << SHIFT | index & INDEX)
    }
}

impl Source {
    /// The source that was registered under this token.
    pub(crate) fn of(token: Token) -> Option<Self> {
        let index = token.0 & INDEX;
        Some(match token.0 >> SHIFT {
            0 => Self::Bell,
            1 => Self::Stream,
            2 => Self::Flow(index),
            3 => Self::Listener(index),
            4 => Self::Udp(index),
            5 => Self::PublishedUdp(index),
            6 => Self::Ping(index),
            7 => Self::Dns(index),
            8 => Self::Resolver,
            9 => Self::Addresses,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_comes_back() {
        for index in [0, 1, 77, 1 << 40] {
            for source in [
                Source::Bell,
                Source::Stream,
                Source::Flow(index),
                Source::Listener(index),
                Source::Udp(index),
                Source::PublishedUdp(index),
                Source::Ping(index),
                Source::Dns(index),
                Source::Resolver,
                Source::Addresses,
            ] {
                assert_eq!(Source::of(source.into()), Some(source));
            }
        }
        assert_eq!(Source::of(Token(usize::MAX)), None);
    }
}

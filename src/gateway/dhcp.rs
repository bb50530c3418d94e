//! DHCP for the one guest (RFC 2131, RFC 2132; rapid commit, RFC 4039; the client identifier echoed,
//! RFC 6842).
//!
//! There is one client, by its MAC address, and one address for it, by configuration. So the server
//! keeps no lease: whoever asks for that address gets it, again after a restart of either side, and
//! whoever asks for another is told no. Every offer and every acknowledgement has the options 1, 3, 6,
//! 26, 51, 54, 58 and 59, whether the client asked for them or not: a client that is not told the MTU
//! may take one that the link cannot carry.

mod frame;
mod message;
mod reply;

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::wire::DhcpMessageType;

pub(crate) use self::frame::frame;

use self::message::Message;
use self::reply::Reply;
use super::link::Link;
use crate::metrics::DropReason;

/// The shortest lease, in seconds: the times of renewal and rebinding stay apart.
const SHORTEST: u64 = 60;
/// The longest, in seconds. One more would mean a lease without end, which no client renews.
const LONGEST: u64 = 0xffff_fffe;

/// The server's side of the guest's lease.
#[derive(Clone, Debug)]
pub(crate) struct DhcpServer {
    dns: Vec<Ipv4Addr>,
    /// The time of the lease, in seconds.
    lease: u32,
}

/// A DHCP message for the guest, from port 67 of the gateway to port 68.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DhcpReply {
    /// The guest's address, or 255.255.255.255 for a client that cannot take a unicast packet yet. A
    /// unicast packet goes to the guest's MAC address without ARP, which it would not answer.
    pub(crate) destination: Ipv4Addr,
    /// The UDP payload: 300 bytes at least, and no more than the client and the MTU allow.
    pub(crate) payload: Vec<u8>,
}

impl DhcpServer {
    /// A server that names `dns` as resolvers, as many as fit; `lease` is brought to between
    /// a minute and 136 years.
    pub(crate) fn new(dns: Vec<Ipv4Addr>, lease: Duration) -> Self {
        let lease = lease.as_secs().clamp(SHORTEST, LONGEST);
        Self { dns, lease: u32::try_from(lease).unwrap_or(u32::MAX - 1) }
    }

    /// Answers one UDP payload that came from `source` to port 67 of the gateway or of
    /// 255.255.255.255. `None` is for what asks for no answer.
    ///
    /// # Errors
    /// The reason why the message is none that a server for this guest acts on.
    pub(crate) fn handle(
        &self,
        link: &Link,
        payload: &[u8],
        source: Ipv4Addr,
    ) -> Result<Option<DhcpReply>, DropReason> {
        let message = Message::parse(payload, link.guest_mac)?;
        let foreign = !source.is_unspecified() && source != link.guest_ipv4;
        // Only one message may come from another address: that of a client which rebinds the lease of
        // another network, and is told no.
        if foreign && !message.rebinds(source) {
            return Err(DropReason::SourceAddress);
        }
        match message.kind {
            DhcpMessageType::Discover if self.commits_rapidly(&message) => {
                Ok(Some(self.reply(link, &message, Reply::RapidAck)))
            }
            DhcpMessageType::Discover => Ok(Some(self.reply(link, &message, Reply::Offer))),
            DhcpMessageType::Request => self.request(link, &message),
            DhcpMessageType::Inform => self.inform(link, &message, source).map(Some),
            // Nobody else can have the address, and there is no other to give.
            DhcpMessageType::Decline | DhcpMessageType::Release => Ok(None),
            _ => Err(DropReason::Dhcp),
        }
    }

    /// RFC 2131 section 4.3.2. SELECTING names the server and the address; INIT-REBOOT the address
    /// alone; RENEWING and REBINDING have it already, in `ciaddr`.
    fn request(&self, link: &Link, message: &Message) -> Result<Option<DhcpReply>, DropReason> {
        if message.server.is_some_and(|server| server != link.gateway_ipv4) {
            return Ok(None); // The client has chosen another server.
        }
        let wanted = message.requested.or(message.client).ok_or(DropReason::Dhcp)?;
        let held = message.client.unwrap_or(wanted);
        let right = wanted == link.guest_ipv4 && held == link.guest_ipv4;
        Ok(Some(self.reply(link, message, if right { Reply::Ack } else { Reply::Nak })))
    }

    /// RFC 2131 section 4.3.5: parameters for a client that has its address by other means.
    fn inform(
        &self,
        link: &Link,
        message: &Message,
        source: Ipv4Addr,
    ) -> Result<DhcpReply, DropReason> {
        // Some clients leave `ciaddr` empty.
        let client = message.client.unwrap_or(source);
        if client != link.guest_ipv4 {
            return Err(DropReason::Dhcp);
        }
        let payload = self.write(link, message, Reply::Inform);
        Ok(DhcpReply { destination: client, payload })
    }

    /// Whether the acknowledgement may come at once. With an identifier that leaves no room for one
    /// more option in the smallest reply, the server offers instead, as it may (RFC 4039 section 3.1).
    fn commits_rapidly(&self, message: &Message) -> bool {
        let identifier = message.identifier.as_ref().map_or(0, Vec::len);
        message.rapid_commit && identifier <= reply::LONGEST_IDENTIFIER_TO_COMMIT
    }

    /// A reply where RFC 2131 section 4.1 sends it. Relays there are none, and messages of one were
    /// refused.
    fn reply(&self, link: &Link, message: &Message, reply: Reply) -> DhcpReply {
        let guest = link.guest_ipv4;
        let to_all = match reply {
            Reply::Nak => true,
            _ => message.broadcast && message.client != Some(guest),
        };
        DhcpReply {
            destination: if to_all { Ipv4Addr::BROADCAST } else { guest },
            payload: self.write(link, message, reply),
        }
    }
}

#[cfg(test)]
mod tests;

//! What the server says: a BOOTP header and options.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    ArpHardware, DhcpFlags, DhcpMessageType, DhcpOpCode, DhcpOption, DhcpOptionWriter, DhcpPacket,
};

use super::DhcpServer;
use super::message::Message;
use crate::gateway::link::Link;

/// RFC 2131 section 3.
pub(super) const MAGIC: u32 = 0x6382_5363;

const HEADER: usize = 240;
/// Of IPv4 and UDP, which the client's maximum counts in (RFC 2132 section 9.10).
const IP_AND_UDP: usize = 28;
/// The smallest BOOTP message: relays and clients drop shorter ones (RFC 1542 section 2.1).
const SHORTEST: usize = 300;

/// The largest reply, in bytes with the headers: every MTU allows it.
const LARGEST: u16 = 1280;

/// The options of an acknowledgement with one resolver take 54 bytes beside the identifier's own, and
/// the smallest maximum of a client leaves room for 308.
pub(super) const LONGEST_IDENTIFIER_TO_COMMIT: usize = 254;

const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const DNS: u8 = 6;
const MTU: u8 = 26;
const LEASE_TIME: u8 = 51;
const MESSAGE_TYPE: u8 = 53;
const SERVER_IDENTIFIER: u8 = 54;
const RENEWAL_TIME: u8 = 58;
const REBINDING_TIME: u8 = 59;
const CLIENT_IDENTIFIER: u8 = 61;
const RAPID_COMMIT: u8 = 80;

/// What the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Offer,
    Ack,
    /// DHCPACK to DHCPDISCOVER (RFC 4039).
    RapidAck,
    /// DHCPACK to DHCPINFORM: neither an address nor a lease.
    Inform,
    Nak,
}

impl Reply {
    fn kind(self) -> DhcpMessageType {
        match self {
            Self::Offer => DhcpMessageType::Offer,
            Self::Ack | Self::RapidAck | Self::Inform => DhcpMessageType::Ack,
            Self::Nak => DhcpMessageType::Nak,
        }
    }

    fn leases(self) -> bool {
        matches!(self, Self::Offer | Self::Ack | Self::RapidAck)
    }
}

impl DhcpServer {
    /// The message, with the fields of RFC 2131 table 3.
    pub(super) fn write(&self, link: &Link, message: &Message, reply: Reply) -> Vec<u8> {
        let room = usize::from(message.maximum_size.min(LARGEST)) - IP_AND_UDP;
        let mut payload = vec![0; room];
        let mut packet = DhcpPacket::new_unchecked(&mut payload[..]);
        packet.set_opcode(DhcpOpCode::Reply);
        packet.set_hardware_type(ArpHardware::Ethernet);
        packet.set_hardware_len(6);
        packet.set_transaction_id(message.transaction);
        packet.set_client_hardware_address(link.guest_mac);
        packet.set_magic_number(MAGIC);
        if message.broadcast {
            packet.set_flags(DhcpFlags::BROADCAST);
        }
        // An offer and a refusal have none; an acknowledgement repeats what it acknowledges.
        let has = matches!(reply, Reply::Ack | Reply::Inform);
        packet.set_client_ip(message.client.filter(|_| has).unwrap_or(Ipv4Addr::UNSPECIFIED));
        if reply.leases() {
            packet.set_your_ip(link.guest_ipv4);
        }
        let mut options = Options { writer: packet.options_mut(), room: room - HEADER, used: 0 };
        self.write_options(&mut options, link, message, reply);
        let length = HEADER + options.end();
        payload.truncate(length.max(SHORTEST));
        payload
    }

    fn write_options(
        &self,
        options: &mut Options<'_>,
        link: &Link,
        message: &Message,
        reply: Reply,
    ) {
        let gateway = link.gateway_ipv4.octets();
        options.write(MESSAGE_TYPE, &[reply.kind().into()]);
        options.write(SERVER_IDENTIFIER, &gateway);
        if let Some(identifier) = &message.identifier {
            options.write(CLIENT_IDENTIFIER, identifier);
        }
        if reply == Reply::Nak {
            return;
        }
        if reply == Reply::RapidAck {
            options.write(RAPID_COMMIT, &[]);
        }
        if reply.leases() {
            // T1 is half of the lease and T2 seven eighths (RFC 2131 section 4.4.5).
            options.write(LEASE_TIME, &self.lease.to_be_bytes());
            options.write(RENEWAL_TIME, &(self.lease / 2).to_be_bytes());
            options.write(REBINDING_TIME, &(self.lease - self.lease / 8).to_be_bytes());
        }
        let host_bits = u32::MAX.checked_shr(link.ipv4_prefix.into()).unwrap_or(0);
        options.write(SUBNET_MASK, &(!host_bits).to_be_bytes());
        options.write(ROUTER, &gateway);
        options.write(MTU, &link.mtu.to_be_bytes());
        let resolvers: Vec<u8> =
            self.dns.iter().take(options.room_for_addresses()).flat_map(Ipv4Addr::octets).collect();
        if !resolvers.is_empty() {
            options.write(DNS, &resolvers);
        }
    }
}

/// A writer that knows how much it has written, and keeps a byte for the end.
#[derive(Debug)]
struct Options<'a> {
    writer: DhcpOptionWriter<'a>,
    room: usize,
    used: usize,
}

impl Options<'_> {
    /// Leaves out an option that has no room; see [`LONGEST_IDENTIFIER_TO_COMMIT`] why there is none.
    fn write(&mut self, kind: u8, data: &[u8]) {
        let length = 2 + data.len();
        if self.used + length < self.room && self.writer.emit(DhcpOption { kind, data }).is_ok() {
            self.used += length;
        }
    }

    /// How many addresses one more option has room for.
    fn room_for_addresses(&self) -> usize {
        (self.room.saturating_sub(self.used + 3).min(255)) / 4
    }

    /// Ends the options and returns their length in bytes.
    fn end(mut self) -> usize {
        self.used + usize::from(self.writer.end().is_ok())
    }
}

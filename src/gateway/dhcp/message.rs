//! What a client sends: a BOOTP header and options, parsed once.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    DhcpFlags, DhcpMessageType, DhcpOpCode, DhcpOption, DhcpPacket, EthernetAddress,
};

use super::reply::MAGIC;
use crate::metrics::DropReason;

const REQUESTED_ADDRESS: u8 = 50;
const OVERLOAD: u8 = 52;
const MESSAGE_TYPE: u8 = 53;
const SERVER_IDENTIFIER: u8 = 54;
const MAXIMUM_SIZE: u8 = 57;
const CLIENT_IDENTIFIER: u8 = 61;
const RAPID_COMMIT: u8 = 80;

/// Every client takes a datagram of this size, headers included (RFC 2132 section 9.10).
const SMALLEST_MAXIMUM: u16 = 576;

const ETHERNET: u16 = 1;
const HEADER: usize = 240;
/// The largest of the two fields that may hold options too, `file`.
const FIELD: usize = 128;

/// A message of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: DhcpMessageType,
    pub(super) transaction: u32,
    /// Whether the client takes a unicast packet only once it is configured.
    pub(super) broadcast: bool,
    /// `ciaddr`: the address that the client has.
    pub(super) client: Option<Ipv4Addr>,
    pub(super) requested: Option<Ipv4Addr>,
    pub(super) server: Option<Ipv4Addr>,
    /// The data of option 61, at most 255 bytes.
    pub(super) identifier: Option<Vec<u8>>,
    pub(super) rapid_commit: bool,
    /// The largest datagram that the client takes, in bytes with the IP header.
    pub(super) maximum_size: u16,
}

impl Message {
    /// Parses a message. Of an option that comes twice the first counts; one that is cut short ends
    /// the options, as their missing end does.
    pub(super) fn parse(payload: &[u8], guest: EthernetAddress) -> Result<Self, DropReason> {
        let packet = DhcpPacket::new_checked(payload).map_err(|_| DropReason::Malformed)?;
        if packet.opcode() != DhcpOpCode::Request
            || packet.magic_number() != MAGIC
            || u16::from(packet.hardware_type()) != ETHERNET
            || packet.hardware_len() != 6
        {
            return Err(DropReason::Dhcp);
        }
        if packet.client_hardware_address() != guest {
            return Err(DropReason::DhcpClient);
        }
        if !packet.relay_agent_ip().is_unspecified() {
            return Err(DropReason::Dhcp); // There is no relay between the guest and its gateway.
        }
        let mut options = Options::default();
        packet.options().for_each(|option| options.note(&option));
        // RFC 2131 section 4.1: first the options field, then `file`, then `sname`.
        let overload = options.overload.unwrap_or(0);
        if overload & 1 != 0 {
            options.note_field(payload.get(108..236));
        }
        if overload & 2 != 0 {
            options.note_field(payload.get(44..108));
        }
        Ok(Self {
            // Without a type it is plain BOOTP.
            kind: options.kind.ok_or(DropReason::Dhcp)?.into(),
            transaction: packet.transaction_id(),
            broadcast: packet.flags().contains(DhcpFlags::BROADCAST),
            client: Some(packet.client_ip()).filter(|address| !address.is_unspecified()),
            requested: options.requested,
            server: options.server,
            identifier: options.identifier,
            rapid_commit: options.rapid_commit,
            maximum_size: options.maximum_size.unwrap_or(0).max(SMALLEST_MAXIMUM),
        })
    }

    /// Whether this is how a client in REBINDING asks for the address it sends from (RFC 2131 section
    /// 4.3.2).
    pub(super) fn rebinds(&self, source: Ipv4Addr) -> bool {
        self.kind == DhcpMessageType::Request
            && self.server.is_none()
            && self.requested.is_none()
            && self.client == Some(source)
    }
}

/// The options that the server reads. One of a wrong length is as good as absent.
#[derive(Debug, Default)]
struct Options {
    kind: Option<u8>,
    overload: Option<u8>,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    identifier: Option<Vec<u8>>,
    rapid_commit: bool,
    maximum_size: Option<u16>,
}

impl Options {
    fn note(&mut self, option: &DhcpOption<'_>) {
        match (option.kind, option.data) {
            (MESSAGE_TYPE, &[kind]) => first(&mut self.kind, kind),
            (OVERLOAD, &[overload]) => first(&mut self.overload, overload),
            (REQUESTED_ADDRESS, &[a, b, c, d]) => {
                first(&mut self.requested, Ipv4Addr::new(a, b, c, d));
            }
            (SERVER_IDENTIFIER, &[a, b, c, d]) => {
                first(&mut self.server, Ipv4Addr::new(a, b, c, d));
            }
            (CLIENT_IDENTIFIER, data @ [_, ..]) if self.identifier.is_none() => {
                self.identifier = Some(data.to_vec());
            }
            (RAPID_COMMIT, []) => self.rapid_commit = true,
            (MAXIMUM_SIZE, &[high, low]) => {
                first(&mut self.maximum_size, u16::from_be_bytes([high, low]));
            }
            _ => {}
        }
    }

    /// Reads a header field that holds options, by putting it where options usually are.
    fn note_field(&mut self, field: Option<&[u8]>) {
        let mut scratch = [0; HEADER + FIELD];
        for (to, from) in scratch.iter_mut().skip(HEADER).zip(field.into_iter().flatten()) {
            *to = *from;
        }
        DhcpPacket::new_unchecked(&scratch[..]).options().for_each(|option| self.note(&option));
    }
}

fn first<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

//! What a program with a packet socket does: frames past the stack.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use framegate::MacAddress;
use smoltcp::phy::{Device, RxToken, TxToken};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr,
};

use super::packets::{self, Packet};
use super::{Fault, Guest};

impl Guest {
    /// Asks for the gateway's MAC address with a frame of our own making: smoltcp asks too, when it has
    /// something to send, but keeps the answer to itself.
    pub(in crate::demo) fn ask_for_gateway(&mut self) -> Result<MacAddress, Fault> {
        let question = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: EthernetAddress(self.mac),
            source_protocol_addr: self.own.ipv4,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: self.own.gateway_ipv4,
        };
        let mut bytes = vec![0; question.buffer_len()];
        question.emit(&mut ArpPacket::new_unchecked(bytes.as_mut_slice()));
        self.send_frame(EthernetAddress::BROADCAST, EthernetProtocol::Arp, &bytes)?;
        let gateway = self.own.gateway_ipv4;
        let mac = self.take(|frame, _| Ok(arp_reply(frame, gateway)))?;
        self.gateway_mac = EthernetAddress(mac);
        Ok(mac)
    }

    /// Sends an IP packet to the gateway, or to all that it is meant for.
    pub(in crate::demo) fn send(&mut self, packet: &[u8]) -> Result<(), Fault> {
        let is_ipv6 = packet.first().is_some_and(|first| first >> 4 == 6);
        let protocol = if is_ipv6 { EthernetProtocol::Ipv6 } else { EthernetProtocol::Ipv4 };
        let destination = match (is_ipv6, packet.get(24..40)) {
            // RFC 2464 section 7.
            (true, Some(&[0xff, .., a, b, c, d])) => EthernetAddress([0x33, 0x33, a, b, c, d]),
            _ => self.gateway_mac,
        };
        self.send_frame(destination, protocol, packet)
    }

    /// Sends a datagram from this port of ours.
    pub(in crate::demo) fn send_datagram(
        &mut self,
        from: u16,
        to: SocketAddr,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let from = SocketAddr::new(self.address(to.ip()), from);
        self.send(&packets::udp(from, to, payload)?)
    }

    /// Takes packets until `step` has what it waits for.
    pub(in crate::demo) fn packets<T>(
        &mut self,
        mut step: impl FnMut(&Packet) -> Result<Option<T>, Fault>,
    ) -> Result<T, Fault> {
        self.take(|frame, fragments| match Packet::parse(frame, fragments) {
            Some(packet) => step(&packet),
            None => Ok(None),
        })
    }

    /// The next datagram to this port of ours: who sent it, and what it carries.
    pub(in crate::demo) fn datagram(&mut self, port: u16) -> Result<(SocketAddr, Vec<u8>), Fault> {
        self.packets(|packet| {
            Ok(match packet.datagram() {
                Some((from, to, payload)) if to == port => Some((from, payload.to_vec())),
                _ => None,
            })
        })
    }

    /// Asks for a connection, and takes the ICMP error that answers.
    pub(in crate::demo) fn knock(&mut self, to: SocketAddr) -> Result<packets::Unreachable, Fault> {
        let port = self.port();
        let from = SocketAddr::new(self.address(to.ip()), port);
        self.send(&packets::tcp(from, to, None)?)?;
        self.packets(|packet| Ok(packet.unreachable(port, to)))
    }

    fn send_frame(
        &mut self,
        to: EthernetAddress,
        ethertype: EthernetProtocol,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let header = EthernetRepr { src_addr: EthernetAddress(self.mac), dst_addr: to, ethertype };
        let began = Instant::now();
        let now = self.now();
        while self.link.transmit(now).is_none() {
            self.sleep(began)?;
        }
        let place = self.link.transmit(now).ok_or("the link takes no frame")?;
        place.consume(header.buffer_len() + payload.len(), |buffer| {
            let mut frame = EthernetFrame::new_unchecked(buffer);
            header.emit(&mut frame);
            frame.payload_mut().copy_from_slice(payload);
        });
        Ok(self.link.send()?)
    }

    /// Takes frames until `step` has what it waits for.
    fn take<T>(
        &mut self,
        mut step: impl FnMut(&[u8], &mut packets::Fragments) -> Result<Option<T>, Fault>,
    ) -> Result<T, Fault> {
        let began = Instant::now();
        let now = self.now();
        loop {
            self.link.send()?;
            let Self { link, fragments, .. } = self;
            while let Some((frame, _)) = link.receive(now) {
                if let Some(found) = frame.consume(|frame| step(frame, fragments))? {
                    return Ok(found);
                }
            }
            self.sleep(began)?;
        }
    }
}

/// The MAC address of `gateway`, if this frame says it.
fn arp_reply(frame: &[u8], gateway: Ipv4Addr) -> Option<MacAddress> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    match ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).ok()?).ok()? {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr,
            source_protocol_addr,
            ..
        } if source_protocol_addr == gateway => Some(source_hardware_addr.0),
        _ => None,
    }
}

/// The link-local address of a MAC address, or its address in another prefix of 64 bits (RFC 4291
/// appendix A).
pub(in crate::demo) fn eui64(prefix: Ipv6Addr, mac: MacAddress) -> Ipv6Addr {
    let [p, q, r, s, ..] = prefix.segments();
    let [a, b, c, d, e, f] = mac;
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(p, q, r, s, pair(a ^ 2, b), pair(c, 0xff), pair(0xfe, d), pair(e, f))
}

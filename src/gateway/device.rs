//! The link as smoltcp sees it: one frame in, and out to the queue.
//!
//! smoltcp's interface is an IP interface. There is one neighbour on the link and the gateway knows
//! its address, so the device puts the Ethernet header on, and no guest can fill or spoil a
//! neighbour cache.

use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::phy::{RxToken, TxToken};
use smoltcp::time::Instant;

use super::link::Link;
use super::mss::clamp_mss;
use crate::metrics::{Counters, DropReason};
use crate::queues::{Batch, NetworkFrameQueues};
use crate::wire::{self, ETHERNET};

/// The largest IP packet that smoltcp may build: a super-segment that the writer cuts.
const IP_MTU: usize = 65_535;

pub(crate) const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
pub(crate) const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// The way to the guest for the length of one turn.
#[derive(Debug)]
pub(crate) struct Outlet<'q> {
    pub(crate) queues: &'q NetworkFrameQueues,
    pub(crate) batch: Batch<'q>,
    pub(crate) counters: &'q Counters,
}

impl Outlet<'_> {
    /// Whether any frame that smoltcp can build would fit.
    pub(crate) fn has_room(&self) -> bool {
        self.batch.has_room(crate::pool::LARGE)
    }

    /// Sends a finished frame; without room it is dropped and counted, as a reply to a flood should be.
    pub(crate) fn reply(&mut self, frame: Vec<u8>) {
        self.send(frame);
    }

    /// As [`reply`](Self::reply), and says whether there was room.
    pub(crate) fn send(&mut self, frame: Vec<u8>) -> bool {
        match self.batch.push(frame) {
            Ok(()) => true,
            Err(frame) => {
                self.counters.dropped(DropReason::ReplyNoRoom);
                self.queues.recycle(frame);
                false
            }
        }
    }
}

/// smoltcp's device: at most one packet to receive, and the outlet to transmit to.
#[derive(Debug)]
pub(crate) struct LinkDevice<'a, 'q> {
    link: &'a Link,
    outlet: &'a mut Outlet<'q>,
    received: Option<&'a [u8]>,
    /// transmit() had to refuse: the flow must be served again when there is room.
    exhausted: bool,
}

impl<'a, 'q> LinkDevice<'a, 'q> {
    /// A device with nothing to receive.
    pub(crate) fn for_egress(link: &'a Link, outlet: &'a mut Outlet<'q>) -> Self {
        Self { link, outlet, received: None, exhausted: false }
    }

    /// A device with one IP packet to receive.
    pub(crate) fn for_ingress(
        link: &'a Link,
        outlet: &'a mut Outlet<'q>,
        packet: &'a [u8],
    ) -> Self {
        Self { link, outlet, received: Some(packet), exhausted: false }
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.exhausted
    }
}

/// What the device can do: all that `Interface::new` asks of one.
#[derive(Debug)]
pub(crate) struct Capabilities;

impl Device for Capabilities {
    type RxToken<'t> = Received<'t>;
    type TxToken<'t> = Transmit<'t, 't>;

    fn receive(&mut self, _now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        None
    }

    fn transmit(&mut self, _now: Instant) -> Option<Self::TxToken<'_>> {
        None
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities()
    }
}

fn capabilities() -> DeviceCapabilities {
    let mut checksum = ChecksumCapabilities::default();
    // A checksum from the guest over a local socket proves nothing, and with offload it is partial.
    // The TCP checksum of what smoltcp sends is filled in here, or by the writer when it cuts.
    checksum.ipv4 = Checksum::Tx;
    checksum.tcp = Checksum::None;
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ip;
    capabilities.max_transmission_unit = IP_MTU;
    capabilities.checksum = checksum;
    capabilities
}

impl<'a, 'q> Device for LinkDevice<'a, 'q> {
    type RxToken<'t>
        = Received<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Transmit<'t, 'q>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let packet = self.received.take()?;
        Some((Received(packet), Transmit { link: self.link, outlet: self.outlet }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Self::TxToken<'_>> {
        if !self.outlet.has_room() {
            self.exhausted = true;
            return None;
        }
        Some(Transmit { link: self.link, outlet: self.outlet })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        capabilities()
    }
}

/// The packet to receive.
#[derive(Debug)]
pub(crate) struct Received<'t>(&'t [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(self.0)
    }
}

/// Room for one packet.
#[derive(Debug)]
pub(crate) struct Transmit<'t, 'q> {
    link: &'t Link,
    outlet: &'t mut Outlet<'q>,
}

impl TxToken for Transmit<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, work: F) -> R {
        let mut frame = self.outlet.queues.sized_buffer(ETHERNET + len);
        let (header, packet) = frame.split_at_mut(ETHERNET);
        let result = work(packet);
        let ethertype = match packet.first() {
            Some(version) if version >> 4 == 6 => ETHERTYPE_IPV6,
            _ => ETHERTYPE_IPV4,
        };
        write_header(header, self.link, ethertype);
        finish(&mut frame, self.link);
        self.outlet.reply(frame);
        result
    }
}

/// Writes the Ethernet header of a frame from the gateway to the guest.
pub(crate) fn write_header(header: &mut [u8], link: &Link, ethertype: [u8; 2]) {
    let fields = [&link.guest_mac.0[..], &link.gateway_mac.0[..], &ethertype[..]];
    for (to, from) in header.iter_mut().zip(fields.into_iter().flatten()) {
        *to = *from;
    }
}

/// Fills in what smoltcp left open: the MSS that the guest's MTU allows in a SYN, and the checksum of
/// a segment that nobody cuts.
fn finish(frame: &mut [u8], link: &Link) {
    let Some(layout) = wire::tcp_layout(frame) else { return };
    if let Some(segment) = frame.get_mut(layout.tcp..layout.end) {
        clamp_mss(segment, link.mss(layout.ipv6));
    }
    if frame.len() <= usize::from(link.mtu) + ETHERNET {
        wire::fill_tcp_checksum(frame, &layout);
    }
}

#[cfg(test)]
mod tests;

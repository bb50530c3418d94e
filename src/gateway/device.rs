//! The link as smoltcp sees it: one frame in, and out to the queue.
//!
//! smoltcp's interface is an IP interface. There is one neighbour on the link and the gateway knows
//! its address, so the device puts the Ethernet header on, and no guest can fill or spoil a
//! neighbour cache.

use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::phy::{RxToken, TxToken};
use smoltcp::time::Instant;

use super::flow::renumber;
use super::link::Link;
use super::mss::clamp_mss;
use super::shaper::Limiter;
use crate::capture::Recorder;
use crate::metrics::{Counters, DropReason};
use crate::queues::{Batch, NetworkFrameQueues};
use crate::wire::{self, ETHERNET, TcpLayout, be32, flag};

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
    /// The rate of the direction; `None` where there is no poll loop.
    pub(crate) limiter: Option<&'q mut Limiter>,
    /// Captures what passes, if anybody wants it.
    pub(crate) recorder: Option<Recorder<'q>>,
}

impl<'q> Outlet<'q> {
    /// An outlet without a rate limit or a capture.
    pub(crate) fn new(queues: &'q NetworkFrameQueues, counters: &'q Counters) -> Self {
        let batch = queues.push_to_guest();
        Self { queues, batch, counters, limiter: None, recorder: None }
    }
}

impl Outlet<'_> {
    /// Whether any frame that smoltcp can build would fit, and may be sent by the rate limit. After
    /// `false` flows are told when there is room again. Who can wait asks this before each frame.
    pub(crate) fn has_room(&self) -> bool {
        self.batch.has_room(crate::pool::LARGE) && self.admits()
    }

    /// Whether the rate limit lets anything relayed pass now. After `false` who waits is told when it does
    /// again.
    pub(crate) fn admits(&self) -> bool {
        self.limiter.as_ref().is_none_or(|limiter| limiter.admits())
    }

    /// Whether there is a rate limit: then who can wait asks before each frame.
    pub(crate) fn is_limited(&self) -> bool {
        self.limiter.as_ref().is_some_and(|limiter| limiter.is_limited())
    }

    /// Captures a frame of the guest.
    pub(crate) fn record(&mut self, frame: &[u8]) {
        if let Some(recorder) = &mut self.recorder {
            recorder.frame(frame);
        }
    }

    /// Whether a datagram that is relayed may be sent: without tokens in the rate limit's bucket it is
    /// to be dropped, and is counted here. Its fragments are sent together. Who can leave it where it is
    /// asks [`admits`](Self::admits) first.
    pub(crate) fn admits_datagram(&self) -> bool {
        let admits = self.limiter.as_ref().is_none_or(|limiter| limiter.has_tokens());
        if !admits {
            self.counters.dropped(DropReason::RateLimit);
        }
        admits
    }

    /// Whether a datagram of the gateway's own may be sent: on credit, as a [`reply`](Self::reply).
    pub(crate) fn admits_reply(&self) -> bool {
        let admits = self.limiter.as_ref().is_none_or(|limiter| limiter.gives_credit());
        if !admits {
            self.counters.dropped(DropReason::RateLimit);
        }
        admits
    }

    /// Sends a datagram that was admitted, or one of its fragments, and says whether there was room.
    pub(crate) fn send(&mut self, frame: Vec<u8>) -> bool {
        self.push(frame)
    }

    /// Sends a finished frame of the gateway's own, and says whether it did: without room it is dropped
    /// and counted, as a reply to a flood should be. It passes an empty bucket of the rate limit on
    /// credit, up to a burst.
    pub(crate) fn reply(&mut self, frame: Vec<u8>) -> bool {
        if self.limiter.as_ref().is_some_and(|limiter| !limiter.gives_credit()) {
            return self.drop(frame, DropReason::RateLimit);
        }
        self.push(frame)
    }

    fn push(&mut self, frame: Vec<u8>) -> bool {
        let cost = self.limiter.as_ref().and_then(|limiter| limiter.cost(&frame));
        let record = self.recorder.as_mut().and_then(|recorder| recorder.record(&frame));
        if let Err(frame) = self.batch.push(frame) {
            return self.drop(frame, DropReason::ReplyNoRoom);
        }
        if let (Some(limiter), Some(cost)) = (&mut self.limiter, cost) {
            limiter.pay(cost);
        }
        if let (Some(recorder), Some(record)) = (&mut self.recorder, record) {
            recorder.keep(record);
        }
        true
    }

    fn drop(&self, frame: Vec<u8>, reason: DropReason) -> bool {
        self.counters.dropped(reason);
        self.queues.recycle(frame);
        false
    }
}

/// smoltcp's device: at most one packet to receive, and the outlet to transmit to.
#[derive(Debug)]
pub(crate) struct LinkDevice<'a, 'q> {
    link: &'a Link,
    outlet: &'a mut Outlet<'q>,
    received: Option<&'a [u8]>,
    /// By how much acknowledgements are moved: see `splice`.
    shift: u32,
    said: Option<Said>,
    /// transmit() had to refuse: the flow must be served again when there is room.
    exhausted: bool,
}

/// What a segment of smoltcp's says, in its numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// The number after the segment's.
    pub(crate) next: u32,
    pub(crate) acknowledgement: u32,
}

impl<'a, 'q> LinkDevice<'a, 'q> {
    /// A device with nothing to receive.
    pub(crate) fn for_egress(link: &'a Link, outlet: &'a mut Outlet<'q>, shift: u32) -> Self {
        Self { link, outlet, received: None, shift, said: None, exhausted: false }
    }

    /// A device with one IP packet to receive.
    pub(crate) fn for_ingress(
        link: &'a Link,
        outlet: &'a mut Outlet<'q>,
        packet: &'a [u8],
        shift: u32,
    ) -> Self {
        Self { link, outlet, received: Some(packet), shift, said: None, exhausted: false }
    }

    /// The last segment that smoltcp has sent with an acknowledgement.
    pub(crate) fn said(&self) -> Option<Said> {
        self.said
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
        let Self { link, outlet, shift, said, .. } = self;
        Some((Received(packet), Transmit { link, outlet, shift: *shift, said }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Self::TxToken<'_>> {
        if !self.outlet.has_room() {
            self.exhausted = true;
            return None;
        }
        let Self { link, outlet, shift, said, .. } = self;
        Some(Transmit { link, outlet, shift: *shift, said })
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
    shift: u32,
    said: &'t mut Option<Said>,
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
        *self.said = finish(&mut frame, self.link, self.shift).or(*self.said);
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

/// Fills in what smoltcp left open: the MSS that the guest's MTU allows in a SYN, the guest's numbers in an
/// acknowledgement, and the checksum of a segment that nobody cuts. Returns what smoltcp said.
fn finish(frame: &mut [u8], link: &Link, shift: u32) -> Option<Said> {
    let layout = wire::tcp_layout(frame)?;
    let said = Said::of(frame, &layout);
    if let Some(segment) = frame.get_mut(layout.tcp..layout.end) {
        clamp_mss(segment, link.mss(layout.ipv6));
        renumber(segment, shift);
    }
    if frame.len() <= usize::from(link.mtu) + ETHERNET {
        wire::fill_tcp_checksum(frame, &layout);
    }
    said
}

impl Said {
    /// `None` if the segment acknowledges nothing, or resets the connection.
    fn of(frame: &[u8], layout: &TcpLayout) -> Option<Self> {
        let flags = *frame.get(layout.tcp + 13)?;
        if flags & (flag::ACK | flag::RST) != flag::ACK {
            return None;
        }
        let len = (layout.end - layout.payload) as u32;
        let (syn, fin) = (flags & flag::SYN != 0, flags & flag::FIN != 0);
        let next = be32(frame, layout.tcp + 4)?.wrapping_add(len + u32::from(syn) + u32::from(fin));
        Some(Self { next, acknowledgement: be32(frame, layout.tcp + 8)? })
    }
}

#[cfg(test)]
mod tests;

//! How fast a direction of the guest's link may be.

/// The rate of one direction of the guest's link: a token bucket of bytes and one of frames, either of
/// which may be missing. [`default`](Self::default) limits nothing.
///
/// Over any time *t* no more passes than `rate * t + burst`, and one frame more: a frame passes while the
/// bucket holds anything, and what it lacks is paid before the next. Bytes are those of Ethernet frames,
/// without the framing of the stream; a TCP segment that the gateway has merged, or that it will cut,
/// counts as the frames of the guest's MTU that it is on the link. What the link is given and does not
/// use, it saves up to the burst and no further.
///
/// | direction | at the limit |
/// |---|---|
/// | from the guest | The gateway stops taking frames: the stream fills, the guest waits, nothing is lost. With [`Overflow::Drop`](crate::Overflow::Drop) they are taken and dropped, as [`DropReason::RateLimit`](crate::DropReason::RateLimit). |
/// | to the guest, TCP | The flow waits, its window fills, the host's sender waits. Nothing is lost. |
/// | to the guest, datagrams that are relayed | They wait in the host's socket, whose kernel drops what it has no room for. |
/// | to the guest, the gateway's own answers (ARP, neighbour discovery, DHCP, DNS, ICMP) | They pass, and are paid for afterwards, up to one burst of debt; beyond that they are dropped as `RateLimit`. So a saturated link keeps its neighbours, its lease and its names. |
///
/// A limit costs the poll loop a few nanoseconds for each frame, and a wake for each ten milliseconds in
/// which it holds something back; no limit costs neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimit {
    /// Bytes in a second; `None` for as many as there are. 0 stops the direction once the burst is used.
    pub bytes_per_second: Option<u64>,
    /// Frames in a second; as `bytes_per_second`.
    pub packets_per_second: Option<u64>,
    /// What may pass at once after a pause, in bytes. Never taken for less than the rate gives in twenty
    /// milliseconds, since the poll loop's timer may be late by ten. Default 256 KiB.
    pub burst_bytes: u64,
    /// As `burst_bytes`, in frames. Default 256.
    pub burst_packets: u64,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            bytes_per_second: None,
            packets_per_second: None,
            burst_bytes: 256 * 1024,
            burst_packets: 256,
        }
    }
}

impl RateLimit {
    /// A limit of bytes alone.
    #[must_use]
    pub fn bytes(per_second: u64) -> Self {
        Self { bytes_per_second: Some(per_second), ..Self::default() }
    }

    /// A limit of frames alone.
    #[must_use]
    pub fn packets(per_second: u64) -> Self {
        Self { packets_per_second: Some(per_second), ..Self::default() }
    }
}

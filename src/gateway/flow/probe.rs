//! A guest that stays silent although it has data to acknowledge: some of them were lost, or the
//! acknowledgement was.
//!
//! smoltcp 0.14 retransmits after three duplicate acknowledgements, or after its retransmission timeout, which
//! is never less than a second (RFC 6298 section 2.4). When a window's worth of data has been sent there is
//! nothing more that could make the guest repeat its acknowledgement, so a retransmission that is lost in
//! its turn, or the end of a burst, stops the flow for that second. RFC 8985 section 7 has a sender probe
//! much earlier. smoltcp has no call for that; but it retransmits at once when it sees the guest's last
//! acknowledgement three more times, so that is what is kept here.

use smoltcp::time::{Duration, Instant};

use crate::wire::{ETHERNET, TcpLayout, be16, be32, flag, put16, put32, tcp_layout};

/// Copies of an acknowledgement after which smoltcp retransmits (RFC 5681 section 3.2). It does so at the
/// third and at no later one; an acknowledgement with another window has it count anew.
const DUPLICATES: usize = 3;

/// How long a guest may take at the least that has more than two segments to acknowledge: it does so at
/// once (RFC 9293 section 3.8.6.3). Longer than a vCPU usually waits for its turn. Otherwise it may take twice
/// as long as it does (RFC 8985 section 7.2): on a slow link nothing is lost for being late.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long if it has less: it may wait for more, or for data to send along.
const DELAYED: Duration = Duration::from_millis(200);

/// When smoltcp's own timeout comes at the earliest.
const TIMEOUT: Duration = Duration::from_secs(1);

/// As long as smoltcp lets its own timeout grow.
const LONGEST: Duration = Duration::from_secs(60);

/// What was last heard, and when to ask the guest for more.
#[derive(Debug, Default)]
pub(super) struct Probe {
    /// The headers of the guest's last segment, and where they are.
    headers: Vec<u8>,
    layout: Option<TcpLayout>,
    acknowledged: u64,
    waits: Option<Waits>,
    /// The acknowledgement that is timed, and since when; and what came of it before, smoothed as in
    /// RFC 6298 section 2.3. It counts all that waits for the guest, and may count a loss: it is too long
    /// rather than too short.
    timed: Option<(u64, Instant)>,
    round_trip: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Waits {
    since: Instant,
    /// Doubled with each probe that brought nothing.
    patience: Duration,
}

impl Waits {
    fn until(&self) -> Instant {
        self.since + self.patience
    }
}

impl Probe {
    /// A segment of the guest that neither opens nor resets the connection.
    pub(super) fn heard(&mut self, frame: &[u8]) {
        self.layout = tcp_layout(frame);
        let headers = self.layout.and_then(|layout| frame.get(..layout.payload));
        self.headers.clear();
        self.headers.extend_from_slice(headers.unwrap_or_default());
    }

    /// The guest has acknowledged `acknowledged` bytes in all, and `left` bytes wait for it, of which its
    /// segments take `mss`.
    pub(super) fn observe(&mut self, acknowledged: u64, left: usize, mss: usize, now: Instant) {
        let has_news = std::mem::replace(&mut self.acknowledged, acknowledged) != acknowledged;
        if let Some((_, since)) = self.timed.take_if(|(until, _)| *until <= acknowledged) {
            self.round_trip = match self.round_trip {
                Duration::ZERO => now - since,
                before => (before * 7 + (now - since)) / 8,
            };
        }
        if left == 0 {
            self.waits = None;
            return;
        }
        self.timed.get_or_insert((acknowledged + left as u64, now));
        if has_news || self.waits.is_none() {
            let least = if left > 2 * mss { PATIENCE } else { DELAYED };
            let patience = (self.round_trip * 2).clamp(least, TIMEOUT);
            self.waits = Some(Waits { since: now, patience });
        }
    }

    /// Something was sent to the guest.
    pub(super) fn sent(&mut self, now: Instant) {
        if let Some(waits) = &mut self.waits {
            waits.since = now;
        }
    }

    /// When the guest is to be asked.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waits.map(|waits| waits.until())
    }

    /// The packets after which smoltcp retransmits, if the guest is to be asked now. A guest that has closed
    /// its window is asked by smoltcp.
    pub(super) fn ask(&mut self, now: Instant) -> impl Iterator<Item = Vec<u8>> + use<> {
        self.is_due(now).then(|| self.duplicates()).flatten().into_iter().flatten()
    }

    /// Whether the guest is to be asked now, and notes that it is.
    fn is_due(&mut self, now: Instant) -> bool {
        let Some(waits) = self.waits.as_mut().filter(|waits| now >= waits.until()) else {
            return false;
        };
        waits.since = now;
        waits.patience = (waits.patience * 2).min(LONGEST);
        true
    }

    fn duplicates(&self) -> Option<impl Iterator<Item = Vec<u8>> + use<>> {
        let (frame, at) = self.acknowledgement()?;
        let window = be16(&frame, at).filter(|window| *window > 0)?;
        let windows = [window ^ 1].into_iter().chain([window; 1 + DUPLICATES]);
        Some(windows.map(move |window| {
            let mut packet = frame.get(ETHERNET..).unwrap_or_default().to_vec();
            put16(&mut packet, at - ETHERNET, window);
            packet
        }))
    }

    /// The headers of the guest's last segment with one byte, which has this number.
    pub(super) fn repetition(&self, sequence: u32) -> Option<Vec<u8>> {
        let mut layout = self.layout?;
        let mut frame = self.headers.clone();
        frame.push(0);
        *frame.get_mut(layout.tcp + 13)? = flag::ACK;
        put32(&mut frame, layout.tcp + 4, sequence);
        let end = frame.len();
        layout.set_end(&mut frame, end);
        Some(frame)
    }

    /// The guest's last segment as a mere acknowledgement, and where its window is.
    fn acknowledgement(&self) -> Option<(Vec<u8>, usize)> {
        let mut frame = self.headers.clone();
        let mut layout = self.layout?;
        let flags = frame.get_mut(layout.tcp + 13)?;
        let fin = u32::from(*flags & flag::FIN != 0);
        *flags = flag::ACK;
        let taken = u32::try_from(layout.end - layout.payload).ok()? + fin;
        let sequence = be32(&frame, layout.tcp + 4)?;
        put32(&mut frame, layout.tcp + 4, sequence.wrapping_add(taken));
        let end = layout.payload;
        layout.set_end(&mut frame, end);
        Some((frame, layout.tcp + 14))
    }
}

#[cfg(test)]
mod tests;

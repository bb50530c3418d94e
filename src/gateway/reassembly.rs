//! The guest's fragments, put together (RFC 791 section 3.2, RFC 8200 section 4.5).
//!
//! Nothing of a packet goes on before all of it is there, so that every decision is made on the whole.
//! Fragments may come in any order and twice. Those that overlap otherwise make the whole packet void,
//! with all that is still to come of it (RFC 5722): which bytes count is what two readers disagree on.
//!
//! Packets under way are bounded by number and by bytes. Above that the oldest gives way: a guest that
//! sends first fragments only loses fragments, and nothing else.

#[cfg(any(fuzzing, test))]
mod check;
mod fragment;

use std::collections::{BTreeMap, VecDeque};

use smoltcp::time::{Duration, Instant};

#[cfg(any(fuzzing, test))]
pub(crate) use self::check::fuzz_fragments;
pub(crate) use self::fragment::Fragment;

use self::fragment::Key;
use crate::metrics::{Counters, DropReason};

/// Packets under way at once.
const PACKETS: usize = 64;
/// What their fragments may come to, in bytes. The largest packet fits thirty times.
const BYTES: usize = 2 << 20;
/// What a fragment costs besides its bytes.
const OVERHEAD: usize = 64;
/// How long a packet may take to become whole, from its first fragment on. RFC 8200 has 60 s, RFC 1122
/// 60 to 120 s, hosts of today 15 to 30 s: on this link there is no delay to wait for.
const TIME: Duration = Duration::from_secs(30);

/// The packets of one guest that are not whole yet.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    /// The oldest first.
    partials: VecDeque<Partial>,
    bytes: usize,
}

#[derive(Debug)]
struct Partial {
    key: Key,
    until: Instant,
    /// What has come, by offset; none overlaps another.
    pieces: BTreeMap<usize, Vec<u8>>,
    /// The bytes of the pieces.
    len: usize,
    /// What stands before the payload, of the first fragment.
    head: Option<Vec<u8>>,
    /// Where the payload ends, once the last fragment is there.
    end: Option<usize>,
    /// Two fragments overlap: nothing becomes of this packet, whatever comes.
    is_void: bool,
}

impl Reassembly {
    /// Takes a fragment, whose frame is `frame`. The whole frame, once it is complete.
    ///
    /// # Errors
    /// The reason why this fragment was refused.
    pub(crate) fn take(
        &mut self,
        frame: &[u8],
        fragment: &Fragment,
        now: Instant,
        counters: &Counters,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let bytes = frame.get(fragment.payload.clone()).ok_or(DropReason::Malformed)?;
        let head = frame.get(..fragment.payload.start).ok_or(DropReason::Malformed)?;
        if fragment.offset == 0 && !fragment.more {
            // It is whole by itself, whatever else has its identification (RFC 6946).
            let whole = fragment::whole(head, &fragment.key, [bytes].into_iter());
            return whole.map(Some).ok_or(DropReason::Fragment);
        }
        // The latest is the likeliest.
        let known = self.partials.iter().rposition(|partial| partial.key == fragment.key);
        let at = match known {
            Some(at) => at,
            None => {
                if self.partials.len() >= PACKETS {
                    self.evict(counters);
                }
                self.partials.push_back(Partial::new(fragment.key, now + TIME));
                self.partials.len() - 1
            }
        };
        let partial = self.partials.get_mut(at).ok_or(DropReason::Fragment)?;
        let before = partial.cost();
        let taken = partial.take(fragment, head, bytes);
        self.bytes = self.bytes - before + partial.cost();
        taken?;
        if partial.is_whole() {
            let partial = self.partials.remove(at).ok_or(DropReason::Fragment)?;
            self.bytes -= partial.cost();
            let whole = partial.into_frame().ok_or(DropReason::Fragment)?;
            counters.reassembled.add(1);
            return Ok(Some(whole));
        }
        while self.bytes > BYTES {
            self.evict(counters);
        }
        Ok(None)
    }

    /// When a packet's time is over next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.partials.front().map(|partial| partial.until)
    }

    /// Gives up a packet whose time is over. What the guest may hear of it (RFC 792, RFC 4443 section
    /// 3.3): the frame of its first fragment, empty if that has not come.
    pub(crate) fn expire(&mut self, now: Instant, counters: &Counters) -> Option<Vec<u8>> {
        if self.next_deadline()? > now {
            return None;
        }
        let partial = self.remove_oldest()?;
        if !partial.is_void {
            counters.dropped(DropReason::FragmentTimeout);
        }
        Some(partial.first_fragment().unwrap_or_default())
    }

    /// The oldest packet gives way.
    fn evict(&mut self, counters: &Counters) {
        if self.remove_oldest().is_some_and(|partial| !partial.is_void) {
            counters.dropped(DropReason::FragmentLimit);
        }
    }

    fn remove_oldest(&mut self) -> Option<Partial> {
        let partial = self.partials.pop_front()?;
        self.bytes -= partial.cost();
        Some(partial)
    }
}

impl Partial {
    fn new(key: Key, until: Instant) -> Self {
        let pieces = BTreeMap::new();
        Self { key, until, pieces, len: 0, head: None, end: None, is_void: false }
    }

    fn cost(&self) -> usize {
        self.len + self.pieces.len() * OVERHEAD + self.head.as_ref().map_or(0, Vec::len)
    }

    fn take(&mut self, fragment: &Fragment, head: &[u8], bytes: &[u8]) -> Result<(), DropReason> {
        if self.is_void {
            return Err(DropReason::Fragment);
        }
        let (from, to) = (fragment.offset, fragment.offset + bytes.len());
        if self.pieces.get(&from).is_some_and(|known| known == bytes) {
            return Ok(());
        }
        let before = self.pieces.range(..to).next_back();
        let overlaps = before.is_some_and(|(at, piece)| at + piece.len() > from);
        let last = self.pieces.last_key_value().map_or(0, |(at, piece)| at + piece.len());
        let beyond_end = match self.end {
            Some(end) => to > end || !fragment.more,
            None => !fragment.more && last > to,
        };
        if overlaps || beyond_end {
            self.make_void();
            return Err(DropReason::Fragment);
        }
        if !fragment.more {
            self.end = Some(to);
        }
        if from == 0 {
            self.head = Some(head.to_vec());
        }
        self.len += bytes.len();
        self.pieces.insert(from, bytes.to_vec());
        Ok(())
    }

    fn make_void(&mut self) {
        self.is_void = true;
        self.pieces = BTreeMap::new();
        self.head = None;
        self.len = 0;
    }

    /// Pieces do not overlap and none ends behind the end: as many bytes as there are to the end have no
    /// gap.
    fn is_whole(&self) -> bool {
        self.end == Some(self.len)
    }

    fn into_frame(self) -> Option<Vec<u8>> {
        fragment::whole(&self.head?, &self.key, self.pieces.values().map(Vec::as_slice))
    }

    fn first_fragment(&self) -> Option<Vec<u8>> {
        let (head, piece) = (self.head.as_ref()?, self.pieces.get(&0)?);
        Some([&head[..], &piece[..]].concat())
    }
}

#[cfg(test)]
mod tests;

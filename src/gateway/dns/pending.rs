//! Queries whose answers have not come, in a bounded table.
//!
//! A query goes to the first upstream of its plan; after a second without answer to the next one as
//! well, and so on; when there is no other it is repeated. A failure (refused, reset, SERVFAIL) moves on
//! at once. The first answer ends it, and after [`TOTAL`] the guest hears SERVFAIL.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use domain::base::iana::Rcode;
use mio::Registry;
use slab::Slab;
use smoltcp::time::{Duration, Instant};

use super::attempt::{Attempt, LARGEST, Owner, Progress};
use super::message::{self, Query, Verdict};
use super::upstreams::{Plan, Upstreams};
use crate::gateway::flow::FlowId;
use crate::gateway::token::Source;
use crate::metrics::{Counters, DropReason};

/// How long to wait for one upstream before another is asked too.
const STEP: Duration = Duration::from_millis(1000);
/// How long the guest waits at the most: less than the 5 s after which its resolver gives up.
const TOTAL: Duration = Duration::from_millis(4500);
/// What the queries of one guest and the answers to them may hold, in bytes.
const MEMORY: usize = 32 << 20;

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A datagram from `guest`, to `local`.
    Datagram { guest: SocketAddr, local: SocketAddr },
    /// A connection of the guest.
    Session(FlowId),
}

/// What a query's work needs besides the query.
#[derive(Clone, Copy)]
pub(crate) struct Context<'t> {
    pub(crate) registry: &'t Registry,
    pub(crate) counters: &'t Counters,
    pub(crate) now: Instant,
}

/// A query that is over.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) asker: Asker,
    pub(crate) query: Query,
    /// With the id that the guest gave.
    pub(crate) answer: Vec<u8>,
}

/// Why a query was not taken; the guest hears SERVFAIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The table is full, or its memory.
    Limit,
    /// The host has no resolver.
    NoUpstream,
}

#[derive(Debug)]
struct Pending {
    asker: Asker,
    query: Query,
    message: Vec<u8>,
    plan: Plan,
    attempts: Vec<usize>,
    /// The answer of an upstream that could not answer.
    last: Option<Vec<u8>>,
    timer: Instant,
    end: Instant,
}

impl Pending {
    fn is_stream(&self) -> bool {
        matches!(self.asker, Asker::Session(_))
    }

    /// What it may hold, in bytes.
    fn cost(&self) -> usize {
        cost(self.asker, &self.message)
    }
}

fn cost(asker: Asker, message: &[u8]) -> usize {
    match asker {
        // The answer goes on when it comes.
        Asker::Datagram { .. } => message.len(),
        Asker::Session(_) => 2 * message.len() + LARGEST,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Query(usize),
    /// An attempt that belongs to no query.
    Attempt(usize),
}

/// The queries under way.
#[derive(Debug)]
pub(crate) struct Table {
    limit: usize,
    upstreams: Upstreams,
    queries: Slab<Pending>,
    attempts: Slab<Attempt>,
    /// Where the guest's datagrams went, by addresses and id, to tell one that is repeated.
    by_guest: HashMap<(SocketAddr, SocketAddr, u16), usize>,
    timers: BTreeSet<(Instant, Timer)>,
    done: VecDeque<Done>,
    /// Attempts that the kernel has news of.
    news: Vec<usize>,
    held: usize,
    ids: Ids,
    buffer: Vec<u8>,
}

impl Table {
    /// A table of `limit` queries at the most.
    pub(crate) fn new(limit: usize, upstreams: Upstreams) -> Self {
        Self {
            limit,
            upstreams,
            queries: Slab::new(),
            attempts: Slab::new(),
            by_guest: HashMap::new(),
            timers: BTreeSet::new(),
            done: VecDeque::new(),
            news: Vec::new(),
            held: 0,
            ids: Ids::default(),
            buffer: vec![0; LARGEST],
        }
    }

    /// Whether there is no room for another query of a connection now.
    pub(crate) fn is_full(&self) -> bool {
        self.queries.len() >= self.limit || self.held + 3 * LARGEST > MEMORY
    }

    /// Takes a query and asks the first upstream. A datagram that repeats one under way is not asked
    /// again.
    pub(crate) fn ask(
        &mut self,
        asker: Asker,
        query: Query,
        message: Vec<u8>,
        context: Context<'_>,
    ) -> Result<(), Refused> {
        if let Asker::Datagram { guest, local } = asker {
            let known = self.by_guest.get(&(guest, local, query.id));
            if known
                .and_then(|index| self.queries.get(*index))
                .is_some_and(|known| known.asker == asker && known.message == message)
            {
                context.counters.dns_repeated.add(1);
                return Ok(());
            }
        }
        let cost = cost(asker, &message);
        if self.queries.len() >= self.limit || self.held + cost > MEMORY {
            return Err(Refused::Limit);
        }
        let plan = self.upstreams.plan(context.now);
        if plan.order.is_empty() {
            return Err(Refused::NoUpstream);
        }
        let probe = plan.probe;
        let id = query.id;
        let timer = context.now + STEP;
        let index = self.queries.insert(Pending {
            asker,
            query,
            message,
            plan,
            attempts: Vec::new(),
            last: None,
            timer,
            end: context.now + TOTAL,
        });
        self.held += cost;
        self.timers.insert((timer, Timer::Query(index)));
        if let Asker::Datagram { guest, local } = asker {
            self.by_guest.insert((guest, local, id), index);
        }
        if let Some(upstream) = probe {
            self.attempt(index, upstream, true, context);
        }
        self.advance(index, context);
        Ok(())
    }

    /// The kernel has news of an attempt's socket.
    pub(crate) fn host_event(&mut self, index: usize) {
        self.news.push(index);
    }

    /// Works off the news, then the timers that have expired.
    pub(crate) fn serve(&mut self, context: Context<'_>) {
        for index in std::mem::take(&mut self.news) {
            self.proceed(index, context);
        }
        self.expire(context);
    }

    /// Whether there is work that needs neither an event nor a timer.
    pub(crate) fn has_work(&self) -> bool {
        !self.news.is_empty() || !self.done.is_empty()
    }

    fn proceed(&mut self, index: usize, context: Context<'_>) {
        let Some(attempt) = self.attempts.get_mut(index) else { return };
        let query = match &attempt.owner {
            Owner::Query(owner) => self.queries.get(*owner).map(|pending| &pending.query),
            Owner::Nobody(query) => Some(query),
        };
        let Some(query) = query.cloned() else { return };
        let before = attempt.guesses();
        let progress = attempt.proceed(&query, &mut self.buffer);
        context.counters.dns_mismatched.add(u64::from(attempt.guesses() - before));
        let (upstream, sent) = (attempt.upstream, attempt.sent);
        match progress {
            Progress::Waits => {}
            Progress::Answered(verdict, answer) => {
                self.upstreams.answered(upstream, context.now);
                let Some(owner) = self.close(index) else { return };
                match verdict {
                    Verdict::Answer => self.finish(owner, Some(answer), context),
                    Verdict::Failure => {
                        if let Some(pending) = self.queries.get_mut(owner) {
                            pending.last = Some(answer);
                        }
                        self.advance(owner, context);
                    }
                }
            }
            Progress::Failed => {
                self.upstreams.failed(upstream, sent, context.now);
                if let Some(owner) = self.close(index) {
                    self.advance(owner, context);
                }
            }
        }
    }

    /// When a timer expires next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Moves on with what has waited long enough.
    fn expire(&mut self, context: Context<'_>) {
        while let Some((at, timer)) = self.timers.first().copied() {
            if at > context.now {
                return;
            }
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Query(index) => self.step(index, context),
                Timer::Attempt(index) => {
                    if let Some(attempt) = self.attempts.try_remove(index) {
                        context.counters.dns_timeouts.add(1);
                        self.upstreams.failed(attempt.upstream, attempt.sent, context.now);
                    }
                }
            }
        }
    }

    /// A query that is over; the guest is to have its answer.
    pub(crate) fn done(&mut self) -> Option<Done> {
        self.done.pop_front()
    }

    /// The connection is gone: nobody waits for its answers.
    pub(crate) fn forget(&mut self, session: FlowId) {
        let asker = Asker::Session(session);
        let indexes: Vec<usize> = self
            .queries
            .iter()
            .filter_map(|(index, pending)| (pending.asker == asker).then_some(index))
            .collect();
        for index in indexes {
            self.remove(index);
        }
        self.done.retain(|done| done.asker != asker);
    }

    fn step(&mut self, index: usize, context: Context<'_>) {
        let Some(pending) = self.queries.get_mut(index) else { return };
        for attempt in &pending.attempts {
            let attempt = self.attempts.get_mut(*attempt);
            if let Some(attempt) = attempt.filter(|attempt| !attempt.is_late) {
                attempt.is_late = true;
                context.counters.dns_timeouts.add(1);
                self.upstreams.failed(attempt.upstream, attempt.sent, context.now);
            }
        }
        if context.now >= pending.end || (pending.plan.order.is_empty() && pending.last.is_some()) {
            let last = pending.last.take();
            return self.finish(index, last, context);
        }
        self.set_timer(index, context.now + STEP);
        if self.queries.get(index).is_some_and(|pending| !pending.plan.order.is_empty()) {
            return self.advance(index, context);
        }
        let Some(pending) = self.queries.get(index) else { return };
        for attempt in pending.attempts.iter().filter_map(|index| self.attempts.get(*index)) {
            attempt.repeat(pending.message.clone());
        }
    }

    /// Asks the next upstream; ends the query if there is none and nothing to wait for.
    fn advance(&mut self, index: usize, context: Context<'_>) {
        loop {
            let Some(pending) = self.queries.get_mut(index) else { return };
            // An answer of sorts is better than a wait for an upstream that is dead.
            let has_answer = pending.last.is_some();
            let next = pending.plan.order.pop_front().filter(|(_, dead)| !(has_answer && *dead));
            match next {
                Some((upstream, _)) => {
                    if self.attempt(index, upstream, false, context) {
                        return self.set_timer(index, context.now + STEP);
                    }
                }
                None => {
                    pending.plan.order.clear();
                    if pending.attempts.is_empty() {
                        let last = pending.last.take();
                        self.finish(index, last, context);
                    }
                    return;
                }
            }
        }
    }

    /// Asks one upstream. Returns whether that can be.
    fn attempt(
        &mut self,
        index: usize,
        upstream: SocketAddr,
        is_probe: bool,
        context: Context<'_>,
    ) -> bool {
        let Some(pending) = self.queries.get_mut(index) else { return false };
        let entry = self.attempts.vacant_entry();
        let key = entry.key();
        let attempt = self.ids.next().and_then(|id| {
            Attempt::start(
                Owner::Query(index),
                (upstream, pending.is_stream()),
                id,
                pending.message.clone(),
                (context.registry, Source::Dns(key).into()),
                context.now,
            )
        });
        match attempt {
            Ok(mut attempt) => {
                attempt.is_probe = is_probe;
                entry.insert(attempt);
                pending.attempts.push(key);
                true
            }
            Err(error) => {
                if is_shortage(&error) {
                    context.counters.dropped(DropReason::HostResource);
                } else {
                    self.upstreams.failed(upstream, context.now, context.now);
                }
                false
            }
        }
    }

    /// Closes an attempt; returns the query that waits for it.
    fn close(&mut self, index: usize) -> Option<usize> {
        match self.attempts.try_remove(index)?.owner {
            Owner::Query(owner) => {
                let pending = self.queries.get_mut(owner)?;
                pending.attempts.retain(|attempt| *attempt != index);
                Some(owner)
            }
            Owner::Nobody(_) => {
                self.timers.retain(|(_, timer)| *timer != Timer::Attempt(index));
                None
            }
        }
    }

    fn set_timer(&mut self, index: usize, at: Instant) {
        if let Some(pending) = self.queries.get_mut(index) {
            self.timers.remove(&(pending.timer, Timer::Query(index)));
            pending.timer = at.min(pending.end);
            self.timers.insert((pending.timer, Timer::Query(index)));
        }
    }

    /// Ends a query with this answer, or SERVFAIL for want of one.
    fn finish(&mut self, index: usize, answer: Option<Vec<u8>>, context: Context<'_>) {
        let Some(pending) = self.remove(index) else { return };
        let answer = match answer {
            Some(answer) => answer,
            None => {
                context.counters.dns_failures.add(1);
                let answer = message::answer(&pending.message, Rcode::SERVFAIL, &[], None);
                answer.unwrap_or_default()
            }
        };
        let mut done = Done { asker: pending.asker, query: pending.query, answer };
        message::set_id(&mut done.answer, done.query.id);
        self.done.push_back(done);
    }

    /// Takes a query out, with its attempts; a probe goes on for itself.
    fn remove(&mut self, index: usize) -> Option<Pending> {
        let pending = self.queries.try_remove(index)?;
        self.held -= pending.cost();
        self.timers.remove(&(pending.timer, Timer::Query(index)));
        for key in &pending.attempts {
            match self.attempts.get_mut(*key) {
                Some(attempt) if attempt.is_probe && !attempt.is_late => {
                    attempt.owner = Owner::Nobody(pending.query.clone());
                    self.timers.insert((attempt.sent + STEP, Timer::Attempt(*key)));
                }
                Some(_) => drop(self.attempts.try_remove(*key)),
                None => {}
            }
        }
        if let Asker::Datagram { guest, local } = pending.asker {
            let key = (guest, local, pending.query.id);
            if self.by_guest.get(&key) == Some(&index) {
                self.by_guest.remove(&key);
            }
        }
        Some(pending)
    }
}

/// Whether the host lacks something, rather than the upstream.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EAGAIN];
    error.raw_os_error().is_none_or(|code| shortages.contains(&code))
}

/// Random ids, fetched from the kernel by the dozen.
#[derive(Debug, Default)]
struct Ids {
    bytes: [u8; 32],
    left: usize,
}

impl Ids {
    fn next(&mut self) -> io::Result<u16> {
        if self.left == 0 {
            getrandom::fill(&mut self.bytes).map_err(io::Error::other)?;
            self.left = self.bytes.len() / 2;
        }
        self.left -= 1;
        let id = self.bytes.chunks_exact(2).nth(self.left).and_then(|pair| pair.try_into().ok());
        id.map(u16::from_be_bytes).ok_or_else(|| io::ErrorKind::Other.into())
    }
}

#[cfg(test)]
pub(crate) mod tests;

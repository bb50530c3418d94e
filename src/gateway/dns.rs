//! The DNS forwarder at the gateway's port 53 (RFC 5625): a transparent one, over UDP and TCP.
//!
//! What the guest asks goes to an upstream of the host byte for byte, but for the id; so does the answer
//! on its way back. The forwarder keeps no cache. It answers three things itself: names of the gateway's
//! own, names that the policy denies, and queries that nobody could answer.
//!
//! | module | what it holds |
//! |---|---|
//! | [`message`] | what is read of a message, and the gateway's own answers |
//! | [`records`] | the gateway's own names |
//! | [`upstreams`] | whom to ask, in which order |
//! | [`resolver_file`] | the host's resolver configuration, followed while it changes |
//! | [`attempt`] | one query to one upstream |
//! | [`pending`] | the queries under way |
//! | [`session`] | DNS over TCP with the guest (RFC 7766) |
//!
//! A name that the policy denies does not exist for the guest: NXDOMAIN, which its resolver believes at
//! once, with the extended error "prohibited" (RFC 8914). REFUSED or SERVFAIL would make it ask again.
//!
//! Nothing here listens on the host: every socket is connected to one upstream, so that the forwarder
//! cannot be reached from outside (RFC 5625 section 6.2).

mod attempt;
#[cfg(any(fuzzing, test))]
mod check;
mod message;
mod pending;
mod records;
mod resolver_file;
mod session;
#[cfg(test)]
mod testing;
mod upstreams;

use std::net::SocketAddr;

use domain::base::iana::{ExtendedErrorCode, Opcode, Rcode, Rtype};
use smoltcp::time::Instant;

use self::message::{BadQuery, Own, Query};
use self::pending::{Asker, Context, Done, Refused, Table};
use self::records::{Lookup, Records};
use self::session::{Next, Sessions};
use self::upstreams::Upstreams;
use super::datagram::DatagramHead;
use super::flows::{Flows, Turn};
use super::packet;
use crate::config::{Config, Dns};
use crate::metrics::DropReason;

#[cfg(any(fuzzing, test))]
pub(crate) use self::check::fuzz_dns;
pub(crate) use self::records::is_host_name;

/// The port of DNS, over UDP and TCP.
pub(crate) const PORT: u16 = 53;
/// Queries that one turn takes from the guest's connections.
const QUERIES: usize = 256;

/// The DNS forwarder of one guest.
#[derive(Debug)]
pub(crate) struct Forwarder {
    records: Records,
    table: Table,
    sessions: Sessions,
}

impl Forwarder {
    pub(crate) fn new(config: &Config) -> Self {
        let upstreams = match &config.dns {
            Dns::Host => Upstreams::from_file(config.resolver_file.clone()),
            Dns::Servers(servers) => Upstreams::given(servers),
            Dns::Off => Upstreams::given(&[]),
        };
        let host = config.host_loopback.then_some((config.gateway_ipv4, config.gateway_ipv6));
        Self {
            records: Records::new(&config.dns_records, host),
            table: Table::new(config.limits.dns_queries, upstreams),
            sessions: Sessions::default(),
        }
    }

    /// A datagram of the guest to a port that the forwarder serves.
    pub(crate) fn datagram(&mut self, head: &DatagramHead, frame: &[u8], turn: &mut Turn<'_, '_>) {
        let asker = Asker::Datagram { guest: head.source, local: head.destination };
        let message = frame.get(head.payload.clone()).unwrap_or_default();
        if let Some(answer) = self.ask(asker, message, turn) {
            turn.counters.dns_answers.add(1);
            packet::answer_udp(turn.outlet, turn.link, head.destination, head.source, &answer);
        }
    }

    /// The kernel has news of a socket to an upstream.
    pub(crate) fn host_event(&mut self, index: usize) {
        self.table.host_event(index);
    }

    /// Works off what upstreams, timers and connections of the guest have brought.
    pub(crate) fn serve(&mut self, flows: &mut Flows, turn: &mut Turn<'_, '_>) {
        self.table.serve(context(turn));
        self.deliver(flows, turn);
        self.serve_sessions(flows, turn);
        // What no upstream could be asked has its answer at once.
        self.deliver(flows, turn);
    }

    /// When a timer expires next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.table.next_deadline().into_iter().chain(self.sessions.next_deadline()).min()
    }

    /// Whether there is work that needs neither an event nor a timer.
    pub(crate) fn has_work(&self) -> bool {
        self.table.has_work() || self.sessions.has_work()
    }

    /// Asks, or answers at once.
    fn ask(&mut self, asker: Asker, message: &[u8], turn: &mut Turn<'_, '_>) -> Option<Vec<u8>> {
        let counters = turn.counters;
        let query = match message::read_query(message) {
            Ok(query) => query,
            Err(BadQuery::Silence) => {
                counters.dropped(DropReason::Dns);
                return None;
            }
            Err(BadQuery::Format) => {
                counters.dropped(DropReason::Dns);
                return message::answer(message, Rcode::FORMERR, &[], None);
            }
        };
        counters.dns_queries.add(1);
        if let Some((rcode, records, why)) = self.own_answer(asker, &query, turn) {
            counters.dns_local.add(1);
            if let Some(question) = &query.question {
                let addresses = records.iter().filter_map(Own::address);
                let addresses = addresses.map(|it| (&*question.name, it, message::TTL.as_secs()));
                turn.egress.learn(&question.name, addresses, turn.now);
            }
            return message::answer(message, rcode, &records, why);
        }
        match self.table.ask(asker, query, message.to_vec(), context(turn)) {
            Ok(()) => None,
            Err(refused) => {
                counters.dns_failures.add(1);
                if refused == Refused::Limit {
                    counters.dropped(DropReason::DnsLimit);
                }
                message::answer(message, Rcode::SERVFAIL, &[], None)
            }
        }
    }

    /// What no upstream is asked.
    fn own_answer(
        &self,
        asker: Asker,
        query: &Query,
        turn: &Turn<'_, '_>,
    ) -> Option<(Rcode, Vec<Own>, Option<ExtendedErrorCode>)> {
        let question = query.question.as_ref()?;
        match self.records.look_up(question) {
            Lookup::Found(records) => return Some((Rcode::NOERROR, records, None)),
            Lookup::NoName => return Some((Rcode::NXDOMAIN, Vec::new(), None)),
            Lookup::Elsewhere => {}
        }
        if !turn.egress.may_resolve(&question.name) {
            turn.counters.dropped(DropReason::DnsName);
            let why = Some(ExtendedErrorCode::PROHIBITED);
            return Some((Rcode::NXDOMAIN, Vec::new(), why));
        }
        // A zone transfer is many messages to one query, and no business of a stub resolver's.
        let is_transfer = query.opcode == Opcode::QUERY
            && matches!(question.qtype, Rtype::AXFR | Rtype::IXFR)
            && matches!(asker, Asker::Session(_));
        is_transfer.then(|| (Rcode::REFUSED, Vec::new(), Some(ExtendedErrorCode::NOT_SUPPORTED)))
    }

    /// Gives the guest its answers. The policy learns of them first, so that a connection cannot come
    /// before it.
    fn deliver(&mut self, flows: &mut Flows, turn: &mut Turn<'_, '_>) {
        while let Some(Done { asker, query, answer }) = self.table.done() {
            if let Some(question) = &query.question {
                let addresses = message::addresses(&answer, question);
                if !addresses.is_empty() {
                    let addresses = addresses.iter().map(|it| (&*it.name, it.address, it.ttl));
                    turn.egress.learn(&question.name, addresses, turn.now);
                }
            }
            turn.counters.dns_answers.add(1);
            match asker {
                Asker::Datagram { guest, local } => {
                    packet::answer_udp(turn.outlet, turn.link, local, guest, &answer);
                }
                Asker::Session(id) => self.sessions.answer(id, &answer, flows, turn.now),
            }
        }
    }

    /// Takes queries from the connections that have some, and answers what can be answered at once.
    fn serve_sessions(&mut self, flows: &mut Flows, turn: &mut Turn<'_, '_>) {
        self.sessions.look(flows, turn.now);
        while let Some(id) = flows.gone_buffer() {
            self.sessions.forget(id);
            self.table.forget(id);
        }
        self.sessions.expire(flows, turn.now);
        if !self.table.is_full() {
            self.sessions.resume();
        }
        let mut budget = QUERIES;
        while budget > 0
            && let Some(id) = self.sessions.pop()
        {
            loop {
                match self.sessions.next(id, flows, self.table.is_full(), turn.now) {
                    Next::Nothing => break,
                    Next::Waits => {
                        self.sessions.stall(id);
                        break;
                    }
                    Next::Query(message)
                        if message::read_query(&message) == Err(BadQuery::Silence) =>
                    {
                        turn.counters.dropped(DropReason::Dns);
                        flows.abort_buffer(id);
                        break;
                    }
                    Next::Query(message) => {
                        if let Some(answer) = self.ask(Asker::Session(id), &message, turn) {
                            turn.counters.dns_answers.add(1);
                            self.sessions.answer(id, &answer, flows, turn.now);
                        }
                    }
                }
                budget = budget.saturating_sub(1);
                if budget == 0 {
                    self.sessions.enqueue(id);
                    break;
                }
            }
        }
    }
}

fn context<'t>(turn: &Turn<'t, '_>) -> Context<'t> {
    Context { registry: turn.registry, counters: turn.counters, now: turn.now }
}

/// Which destinations the forwarder answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Nothing,
    /// The gateway's addresses.
    Gateway,
    /// Every address.
    Everything,
}

impl Reach {
    pub(crate) fn of(config: &Config) -> Self {
        match config.dns {
            Dns::Off => Self::Nothing,
            _ if config.dns_intercept => Self::Everything,
            _ => Self::Gateway,
        }
    }

    /// Whether a datagram or a connection to `destination` is the forwarder's.
    pub(crate) fn serves(self, destination: SocketAddr, is_gateway: bool) -> bool {
        destination.port() == PORT
            && match self {
                Self::Nothing => false,
                Self::Gateway => is_gateway,
                Self::Everything => true,
            }
    }
}

#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::time;

use domain::base::iana::Rtype;
use mio::{Events, Poll};
use proptest::prelude::*;

use super::super::message::read_query;
use super::super::testing::{Record, answer, id, query, query_with_opt, rcode};
use super::*;
use crate::gateway::token::Source;

/// Nothing here takes this long unless it never comes.
const PATIENCE: time::Duration = time::Duration::from_secs(20);

/// A server that the test answers for.
struct Server(UdpSocket);

impl Server {
    fn new() -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into())
    }

    fn at(ip: std::net::IpAddr) -> Self {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; LARGEST];
        let (n, from) = self.0.recv_from(&mut buffer).expect("a query");
        buffer.truncate(n);
        (buffer, from)
    }

    fn has_query(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let has = self.0.peek_from(&mut [0; 1]).is_ok();
        self.0.set_nonblocking(false).unwrap();
        has
    }

    fn send(&self, message: &[u8], to: SocketAddr) {
        self.0.send_to(message, to).unwrap();
    }

    /// Answers the next query.
    fn answer(&self, rcode: Rcode) {
        let (query, from) = self.receive();
        self.send(&answer(&query, rcode, &[]), from);
    }
}

/// An address where nobody listens.
fn closed() -> SocketAddr {
    Server::new().address()
}

/// A table and its poll loop, in a time of their own.
struct Lab {
    poll: Poll,
    events: Events,
    counters: Counters,
    table: Table,
    now: Instant,
}

impl Lab {
    fn new(upstreams: &[SocketAddr]) -> Self {
        Self::with_limit(upstreams, 2000)
    }

    fn with_limit(upstreams: &[SocketAddr], limit: usize) -> Self {
        Self {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(64),
            counters: Counters::default(),
            table: Table::new(limit, Upstreams::given(upstreams)),
            now: Instant::from_millis(1_000_000),
        }
    }

    fn try_ask(&mut self, asker: Asker, message: &[u8]) -> Result<(), Refused> {
        let context =
            Context { registry: self.poll.registry(), counters: &self.counters, now: self.now };
        self.table.ask(asker, read_query(message).unwrap(), message.to_vec(), context)
    }

    fn ask(&mut self, port: u16, message: &[u8]) {
        self.try_ask(datagram(port), message).unwrap();
    }

    /// Serves what there is now.
    fn serve(&mut self) {
        self.poll.poll(&mut self.events, Some(time::Duration::ZERO)).unwrap();
        self.take_events();
    }

    fn take_events(&mut self) {
        for event in &self.events {
            match Source::of(event.token()) {
                Some(Source::Dns(index)) => self.table.host_event(index),
                other => panic!("{other:?}"),
            }
        }
        let context =
            Context { registry: self.poll.registry(), counters: &self.counters, now: self.now };
        self.table.serve(context);
    }

    /// Lives until a query is over.
    fn done(&mut self) -> Done {
        let began = time::Instant::now();
        loop {
            if let Some(done) = self.table.done() {
                return done;
            }
            assert!(began.elapsed() < PATIENCE, "no answer: {}", self.counters.snapshot());
            let wait = Some(time::Duration::from_millis(50));
            self.poll.poll(&mut self.events, wait).unwrap();
            self.take_events();
        }
    }

    /// Lets time pass.
    fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        self.serve();
    }

    #[track_caller]
    fn assert_empty(&self) {
        let Table { queries, attempts, by_guest, timers, held, done, .. } = &self.table;
        assert!(queries.is_empty() && by_guest.is_empty() && done.is_empty());
        assert!(attempts.is_empty() && timers.is_empty(), "{attempts:?} {timers:?}");
        assert_eq!(*held, 0);
    }
}

fn datagram(port: u16) -> Asker {
    let guest = SocketAddr::from(([100, 96, 0, 2], port));
    Asker::Datagram { guest, local: SocketAddr::from(([100, 96, 0, 1], 53)) }
}

fn session() -> Asker {
    Asker::Session(FlowId { index: 3, generation: 9 })
}

/// RFC 5625 section 4.1 and 4.2: what the proxy does not know it passes on, both ways.
#[test]
fn rfc_5625_4_1_messages_pass_unchanged_but_for_the_id() {
    let server = Server::new();
    let mut lab = Lab::new(&[server.address()]);
    let mut message = query_with_opt(0xbeef, "wWw.eXample.COM", Rtype::from_int(65_280));
    // AD, CD and Z, and a flag of EDNS that nobody has defined.
    message[3] |= 0x70;
    lab.ask(1000, &message);
    let (mut seen, from) = server.receive();
    let sent_id = id(&seen);
    let mut reply = answer(&seen, Rcode::NOERROR, &[Record::Address("a.example", "192.0.2.1", 1)]);
    reply[3] |= 0x70;
    reply[2] |= 0x02; // TC
    reply.extend_from_slice(b"and what follows the last record");
    server.send(&reply, from);
    message::set_id(&mut seen, 0xbeef);
    assert_eq!(seen, message, "0x20 and every flag is kept");
    let done = lab.done();
    assert_eq!(done.asker, datagram(1000));
    message::set_id(&mut reply, 0xbeef);
    assert_eq!(done.answer, reply);
    assert_ne!(sent_id, 0xbeef, "with a chance of 1 in 65,536");
    lab.assert_empty();
}

/// The χ² statistic of values that should be even over `N` classes.
fn chi_square<const N: usize>(classes: impl Iterator<Item = usize>) -> f64 {
    let mut counts = [0.0; N];
    classes.for_each(|class| counts[class] += 1.0);
    let expected = counts.iter().sum::<f64>() / N as f64;
    counts.iter().map(|count| (count - expected) * (count - expected) / expected).sum()
}

/// RFC 5452 section 9.2: 5,000 ids and ports, each of whose nibbles and ranges are as even as chance
/// makes them. With 15 degrees of freedom chance exceeds 90 once in 10^12 runs.
#[test]
fn rfc_5452_9_2_ids_and_ports_are_random() {
    let server = Server::new();
    let mut lab = Lab::new(&[server.address()]);
    let mut ids = Vec::new();
    let mut ports = Vec::new();
    for round in 0..5000_u16 {
        lab.ask(round, &query(7, "example.com", Rtype::A));
        let (message, from) = server.receive();
        ids.push(id(&message));
        ports.push(from.port());
        server.send(&answer(&message, Rcode::NOERROR, &[]), from);
        lab.done();
    }
    for shift in [0, 4, 8, 12] {
        let nibbles = ids.iter().map(|id| usize::from(id >> shift & 15));
        let statistic = chi_square::<16>(nibbles);
        assert!(statistic < 90.0, "ids, bits {shift}..: {statistic}");
    }
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let mut range = range.split_whitespace().map(|port| port.parse::<usize>().unwrap());
    let (low, high) = (range.next().unwrap(), range.next().unwrap());
    let classes = ports.iter().map(|port| (usize::from(*port) - low) * 16 / (high - low + 1));
    let statistic = chi_square::<16>(classes);
    assert!(statistic < 90.0, "ports: {statistic}");
    let follows = |values: &[u16]| {
        values.windows(2).filter(|pair| pair[1].wrapping_sub(pair[0]) <= 2).count()
    };
    assert!(follows(&ids) < 20 && follows(&ports) < 20, "no value leads to the next");
    lab.assert_empty();
}

/// RFC 5452 section 9.1: an answer with another id, another question, or from another place is nobody's.
#[test]
fn rfc_5452_9_1_wrong_answers_are_ignored() {
    let (server, liar) = (Server::new(), Server::new());
    let mut lab = Lab::new(&[server.address()]);
    lab.ask(1, &query(7, "example.com", Rtype::A));
    let (message, from) = server.receive();
    let lie = [Record::Address("example.com", "192.0.2.66", 9)];
    let lies = [
        answer(&query(id(&message) ^ 1, "example.com", Rtype::A), Rcode::NOERROR, &lie),
        answer(&query(id(&message), "example.org", Rtype::A), Rcode::NOERROR, &lie),
        answer(&query(id(&message), "example.com", Rtype::AAAA), Rcode::NOERROR, &lie),
        message.clone(),
        vec![],
        vec![0; 11],
    ];
    for lie in &lies {
        server.send(lie, from);
    }
    let right_by_luck = answer(&message, Rcode::NOERROR, &lie);
    liar.send(&right_by_luck, from);
    lab.serve();
    assert!(lab.table.done().is_none());
    assert_eq!(lab.counters.snapshot().dns_mismatched, lies.len() as u64, "the liar's never came");
    let truth = answer(&message, Rcode::NOERROR, &[Record::Address("example.com", "192.0.2.1", 9)]);
    server.send(&truth, from);
    assert_eq!(lab.done().answer[2..], truth[2..]);
}

#[test]
fn an_upstream_that_guesses_is_given_up() {
    let (guesser, server) = (Server::new(), Server::new());
    let mut lab = Lab::new(&[guesser.address(), server.address()]);
    lab.ask(1, &query(7, "example.com", Rtype::A));
    let (message, from) = guesser.receive();
    let wrong = answer(&query(id(&message) ^ 1, "example.com", Rtype::A), Rcode::NOERROR, &[]);
    for _ in 0..64 {
        guesser.send(&wrong, from);
    }
    lab.serve();
    server.answer(Rcode::NOERROR);
    assert_eq!(rcode(&lab.done().answer), Rcode::NOERROR);
}

#[test]
fn a_thousand_queries_at_once_each_get_their_answer() {
    let server = Server::new();
    let mut lab = Lab::new(&[server.address()]);
    let mut waiting = Vec::new();
    for n in 0..1000_u16 {
        lab.ask(n, &query(n, &format!("host{n}.example.com"), Rtype::A));
        waiting.push(server.receive());
    }
    let ports: std::collections::HashSet<u16> = waiting.iter().map(|(_, at)| at.port()).collect();
    assert_eq!(ports.len(), 1000, "each has a port of its own");
    let mut seen = vec![false; 1000];
    for (message, from) in waiting.iter().rev() {
        server.send(&answer(message, Rcode::NXDOMAIN, &[]), *from);
    }
    for _ in 0..1000 {
        let done = lab.done();
        let n = id(&done.answer);
        assert_eq!(done.asker, datagram(n));
        assert_eq!(done.query.question.unwrap().name, format!("host{n}.example.com"));
        assert!(!std::mem::replace(&mut seen[usize::from(n)], true));
    }
    lab.assert_empty();
}

/// CVE-2020-25686: a query that is repeated is asked once.
#[test]
fn a_repeated_datagram_is_asked_once_and_answered_once() {
    let server = Server::new();
    let mut lab = Lab::new(&[server.address()]);
    let message = query(7, "example.com", Rtype::A);
    for _ in 0..1000 {
        lab.ask(1, &message);
    }
    let (first, from) = server.receive();
    assert!(!server.has_query());
    assert_eq!(lab.counters.snapshot().dns_repeated, 999);
    server.send(&answer(&first, Rcode::NOERROR, &[]), from);
    lab.done();
    lab.assert_empty();
    lab.ask(1, &message);
    server.answer(Rcode::NOERROR);
    lab.done();
    // The same id and port, and another question: another query.
    lab.ask(1, &message);
    lab.ask(1, &query(7, "example.org", Rtype::A));
    server.answer(Rcode::NOERROR);
    server.answer(Rcode::NOERROR);
    lab.done();
    lab.done();
    lab.assert_empty();
}

#[test]
fn a_full_table_refuses_the_new_and_keeps_the_old() {
    let server = Server::new();
    let mut lab = Lab::with_limit(&[server.address()], 3);
    for n in 0..3 {
        lab.ask(n, &query(n, "example.com", Rtype::A));
    }
    let more = query(3, "example.com", Rtype::A);
    assert_eq!(lab.try_ask(datagram(3), &more), Err(Refused::Limit));
    assert!(lab.table.is_full());
    server.answer(Rcode::NOERROR);
    lab.done();
    lab.ask(3, &more);
    for _ in 0..3 {
        server.answer(Rcode::NOERROR);
        lab.done();
    }
    lab.assert_empty();
}

#[test]
fn the_memory_of_all_queries_is_bounded() {
    let server = Server::new();
    let mut lab = Lab::with_limit(&[server.address()], 65_536);
    let mut large = query(0, "example.com", Rtype::A);
    large.resize(60_000, 0);
    let taken = (0..u16::MAX)
        .take_while(|n| {
            message::set_id(&mut large, *n);
            lab.try_ask(datagram(*n), &large).is_ok()
        })
        .count();
    assert!((500..=MEMORY / 60_000).contains(&taken), "{taken}");
}

#[test]
fn without_upstreams_a_query_is_refused_at_once() {
    let mut lab = Lab::new(&[]);
    let message = query(1, "example.com", Rtype::A);
    assert_eq!(lab.try_ask(datagram(1), &message), Err(Refused::NoUpstream));
    lab.assert_empty();
}

#[test]
fn a_refusal_moves_on_at_once() {
    let server = Server::new();
    let mut lab = Lab::new(&[closed(), server.address()]);
    lab.ask(1, &query(1, "example.com", Rtype::A));
    lab.serve();
    server.answer(Rcode::NOERROR);
    assert_eq!(rcode(&lab.done().answer), Rcode::NOERROR);
    assert_eq!(lab.counters.snapshot().dns_timeouts, 0, "no time has passed");
    // The next one begins with the one that answers.
    lab.ask(2, &query(2, "example.com", Rtype::A));
    server.answer(Rcode::NOERROR);
    lab.done();
    lab.assert_empty();
}

#[test]
fn if_all_refuse_the_guest_hears_servfail_at_once() {
    let mut lab = Lab::new(&[closed(), closed()]);
    lab.ask(1, &query(0x77, "example.com", Rtype::A));
    let done = lab.done();
    assert_eq!((rcode(&done.answer), id(&done.answer)), (Rcode::SERVFAIL, 0x77));
    assert_eq!(lab.counters.snapshot().dns_failures, 1);
    lab.assert_empty();
}

#[test]
fn a_silent_upstream_costs_one_query_a_second_and_the_next_nothing() {
    let (silent, server) = (Server::new(), Server::new());
    let mut lab = Lab::new(&[silent.address(), server.address()]);
    lab.ask(1, &query(1, "example.com", Rtype::A));
    lab.pass(999);
    assert!(!server.has_query());
    lab.pass(1);
    server.answer(Rcode::NOERROR);
    lab.done();
    assert_eq!(lab.counters.snapshot().dns_timeouts, 1);
    silent.receive();
    lab.ask(2, &query(2, "example.com", Rtype::A));
    server.answer(Rcode::NOERROR);
    lab.done();
    assert!(!silent.has_query(), "remembered as dead");
    // After a while one query asks both, and is not held up.
    lab.pass(6000);
    lab.ask(3, &query(3, "example.com", Rtype::A));
    server.answer(Rcode::NOERROR);
    lab.done();
    let (message, from) = silent.receive();
    silent.send(&answer(&message, Rcode::NOERROR, &[]), from);
    let began = time::Instant::now();
    while !lab.table.attempts.is_empty() {
        assert!(began.elapsed() < PATIENCE);
        lab.serve();
    }
    lab.assert_empty();
    lab.ask(4, &query(4, "example.com", Rtype::A));
    silent.answer(Rcode::NOERROR);
    lab.done();
    assert!(!server.has_query(), "it lives: the first in order again");
}

#[test]
fn a_probe_that_is_not_answered_ends() {
    let (silent, server) = (Server::new(), Server::new());
    let mut lab = Lab::new(&[silent.address(), server.address()]);
    lab.ask(1, &query(1, "example.com", Rtype::A));
    lab.pass(1000);
    server.answer(Rcode::NOERROR);
    lab.done();
    lab.pass(6000);
    lab.ask(2, &query(2, "example.com", Rtype::A));
    server.answer(Rcode::NOERROR);
    lab.done();
    assert_eq!(lab.table.attempts.len(), 1);
    lab.pass(1000);
    lab.assert_empty();
}

#[test]
fn a_late_answer_of_the_first_upstream_still_counts() {
    let (slow, silent) = (Server::new(), Server::new());
    let mut lab = Lab::new(&[slow.address(), silent.address()]);
    lab.ask(1, &query(1, "example.com", Rtype::A));
    lab.pass(1000);
    slow.answer(Rcode::NXDOMAIN);
    assert_eq!(rcode(&lab.done().answer), Rcode::NXDOMAIN);
    lab.assert_empty();
}

#[test]
fn if_all_are_silent_the_query_is_repeated_and_then_servfail() {
    let silent = Server::new();
    let mut lab = Lab::new(&[silent.address()]);
    lab.ask(1, &query(1, "example.com", Rtype::A));
    let first = silent.receive();
    for _ in 0..4 {
        assert_eq!(lab.table.next_deadline(), Some(lab.now + STEP));
        lab.pass(1000);
        assert_eq!(silent.receive(), first, "the same id and the same port: no better target");
    }
    lab.pass(499);
    assert!(lab.table.done().is_none());
    lab.pass(1);
    assert_eq!(rcode(&lab.done().answer), Rcode::SERVFAIL);
    lab.assert_empty();
}

#[test]
fn a_failure_goes_to_the_next_and_the_last_failure_to_the_guest() {
    for (first, second, given) in [
        (Rcode::SERVFAIL, Rcode::NOERROR, Rcode::NOERROR),
        (Rcode::REFUSED, Rcode::NXDOMAIN, Rcode::NXDOMAIN),
        (Rcode::SERVFAIL, Rcode::REFUSED, Rcode::REFUSED),
        (Rcode::REFUSED, Rcode::SERVFAIL, Rcode::SERVFAIL),
    ] {
        let servers = [Server::new(), Server::new()];
        let mut lab = Lab::new(&[servers[0].address(), servers[1].address()]);
        lab.ask(1, &query(1, "example.com", Rtype::A));
        servers[0].answer(first);
        let began = time::Instant::now();
        while !servers[1].has_query() {
            assert!(began.elapsed() < PATIENCE);
            lab.serve();
        }
        servers[1].answer(second);
        assert_eq!(rcode(&lab.done().answer), given);
        assert_eq!(lab.counters.snapshot().dns_failures, 0, "none of our own");
        lab.assert_empty();
    }
}

#[test]
fn a_failure_does_not_wait_for_a_dead_upstream() {
    let (dead, server) = (Server::new(), Server::new());
    let mut lab = Lab::new(&[dead.address(), server.address()]);
    lab.ask(1, &query(1, "example.com", Rtype::A));
    lab.pass(1000);
    server.answer(Rcode::NOERROR);
    lab.done();
    lab.ask(2, &query(2, "example.com", Rtype::A));
    server.answer(Rcode::SERVFAIL);
    assert_eq!(rcode(&lab.done().answer), Rcode::SERVFAIL);
    lab.assert_empty();
}

#[test]
fn other_errors_are_the_answer() {
    for given in [Rcode::NXDOMAIN, Rcode::FORMERR, Rcode::NOTIMP, Rcode::YXDOMAIN] {
        let (server, other) = (Server::new(), Server::new());
        let mut lab = Lab::new(&[server.address(), other.address()]);
        lab.ask(1, &query(1, "example.com", Rtype::A));
        server.answer(given);
        assert_eq!(rcode(&lab.done().answer), given);
        assert!(!other.has_query());
    }
}

#[test]
fn the_largest_datagram_passes() {
    let server = Server::at(Ipv6Addr::LOCALHOST.into());
    let mut lab = Lab::new(&[server.address()]);
    lab.ask(1, &query_with_opt(1, "example.com", Rtype::TXT));
    let (message, from) = server.receive();
    let mut reply = answer(&message, Rcode::NOERROR, &[]);
    reply.resize(65_507, 0xaa);
    server.send(&reply, from);
    assert_eq!(lab.done().answer[2..], reply[2..]);
}

// --- TCP ---------------------------------------------------------------------------------------

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

fn with_length(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

/// RFC 5625 section 4.4.1: what came over TCP is asked over TCP, and the length may come in pieces.
#[test]
fn rfc_5625_4_4_1_tcp_is_asked_over_tcp_byte_by_byte() {
    let (listener, address) = listener();
    let mut lab = Lab::new(&[address]);
    let message = query(0x55aa, "example.com", Rtype::TXT);
    lab.try_ask(session(), &message).unwrap();
    let mut stream = accept(&listener);
    lab.serve();
    let mut seen = read_message(&mut stream);
    let mut reply = answer(&seen, Rcode::NOERROR, &[]);
    message::set_id(&mut seen, 0x55aa);
    assert_eq!(seen, message);
    for byte in with_length(&reply) {
        assert!(lab.table.done().is_none());
        stream.write_all(&[byte]).unwrap();
        lab.serve();
    }
    message::set_id(&mut reply, 0x55aa);
    let done = lab.done();
    assert_eq!((done.asker, done.answer), (session(), reply));
    lab.assert_empty();
}

#[test]
fn the_largest_message_passes_over_tcp_both_ways() {
    let (listener, address) = listener();
    let mut lab = Lab::new(&[address]);
    let mut message = query(1, "example.com", Rtype::TXT);
    message.resize(LARGEST, 0x55);
    lab.try_ask(session(), &message).unwrap();
    let server = std::thread::spawn(move || {
        let mut stream = accept(&listener);
        let seen = read_message(&mut stream);
        let mut reply = answer(&seen[..29], Rcode::NOERROR, &[]);
        reply.resize(LARGEST, 0xaa);
        stream.write_all(&with_length(&reply)).unwrap();
        (seen, reply)
    });
    let done = lab.done();
    let (seen, reply) = server.join().unwrap();
    assert_eq!(seen[2..], message[2..]);
    assert_eq!(done.answer[2..], reply[2..]);
    lab.assert_empty();
}

#[test]
fn a_tcp_upstream_that_fails_gives_way_to_the_next() {
    let (listener, address) = listener();
    for lie in [None, Some(query(1, "example.com", Rtype::A))] {
        let (bad_listener, bad) = self::listener();
        let mut lab = Lab::new(&[closed(), bad, address]);
        lab.try_ask(session(), &query(1, "example.com", Rtype::A)).unwrap();
        let server = std::thread::spawn({
            let listener = listener.try_clone().unwrap();
            move || {
                let mut stream = accept(&bad_listener);
                let seen = read_message(&mut stream);
                if let Some(lie) = lie {
                    stream.write_all(&with_length(&lie)).unwrap();
                }
                drop((stream, seen));
                let mut stream = accept(&listener);
                let seen = read_message(&mut stream);
                stream.write_all(&with_length(&answer(&seen, Rcode::NOERROR, &[]))).unwrap();
            }
        });
        assert_eq!(rcode(&lab.done().answer), Rcode::NOERROR);
        server.join().unwrap();
        lab.assert_empty();
    }
}

#[test]
fn a_silent_tcp_upstream_ends_in_servfail() {
    let (_listener, address) = listener();
    let mut lab = Lab::new(&[address]);
    lab.try_ask(session(), &query(1, "example.com", Rtype::A)).unwrap();
    lab.serve();
    for _ in 0..4 {
        lab.pass(1000);
    }
    lab.pass(500);
    assert_eq!(rcode(&lab.done().answer), Rcode::SERVFAIL);
    lab.assert_empty();
}

#[test]
fn a_connection_that_is_gone_leaves_nothing() {
    let (_listener, address) = listener();
    let mut lab = Lab::new(&[address]);
    let Asker::Session(id) = session() else { unreachable!() };
    for n in 0..20 {
        lab.try_ask(session(), &query(n, "example.com", Rtype::A)).unwrap();
    }
    lab.table.forget(id);
    lab.assert_empty();
    lab.serve();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever upstreams do, and whenever, each query has one answer within its time, and nothing is
    /// left behind.
    #[test]
    fn every_query_has_one_answer_in_time(
        script in prop::collection::vec((0_u8..6, 0_u64..1500), 1..40),
    ) {
        let servers = [Server::new(), Server::new(), Server::new()];
        let addresses: Vec<SocketAddr> = servers.iter().map(Server::address).collect();
        let mut lab = Lab::new(&[addresses[0], closed(), addresses[1], addresses[2]]);
        let (mut asked, mut answered) = (0, 0);
        for (act, wait) in script {
            if act < 3 {
                lab.ask(asked, &query(asked, "example.com", Rtype::A));
                asked += 1;
            }
            let server = &servers[usize::from(act % 3)];
            while act >= 2 && server.has_query() {
                server.answer([Rcode::NOERROR, Rcode::SERVFAIL, Rcode::REFUSED][usize::from(act % 3)]);
            }
            lab.serve();
            lab.pass(wait);
            answered += std::iter::from_fn(|| lab.table.done()).count();
        }
        lab.pass(4500);
        answered += std::iter::from_fn(|| lab.table.done()).count();
        prop_assert_eq!(answered, usize::from(asked));
        lab.pass(1000);
        lab.assert_empty();
    }
}

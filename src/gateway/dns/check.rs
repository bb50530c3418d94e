//! What the fuzzer of the DNS messages drives.

use domain::base::iana::{ExtendedErrorCode, Rcode};
use mio::Poll;
use smoltcp::time::Instant;

use super::message::{self, BadQuery, HEADER};
use super::pending::{Asker, Context, Refused, Table};
use super::resolver_file::nameservers;
use super::upstreams::Upstreams;
use crate::metrics::Counters;

/// A query of the guest, whose length stands before it, and the upstream's answer to it: any bytes.
pub(crate) fn fuzz_dns(data: &[u8]) {
    let _ = nameservers(data);
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let at = usize::from(u16::from_be_bytes(*length)).min(rest.len());
    let (query, reply) = rest.split_at(at);
    let facts = match message::read_query(query) {
        Ok(facts) => facts,
        Err(BadQuery::Silence) => return,
        Err(BadQuery::Format) => {
            let error = message::answer(query, Rcode::FORMERR, &[], None);
            assert!(error.is_some_and(|error| error.len() == HEADER), "the header alone");
            return;
        }
    };
    let why = Some(ExtendedErrorCode::PROHIBITED);
    for rcode in [Rcode::SERVFAIL, Rcode::NXDOMAIN] {
        let Some(own) = message::answer(query, rcode, &[], why) else {
            unreachable!("what was read has a header");
        };
        assert!(own.len() <= query.len() + 17 + HEADER, "no amplification: {}", own.len());
        assert!(message::read_answer(&own, facts.id, &facts).is_some(), "it answers the query");
    }
    if let Some(question) = &facts.question {
        assert!(question.name.len() <= 4 * 255 && question.name.is_ascii());
        for address in message::addresses(reply, question) {
            assert!(address.name.len() <= 4 * 255);
        }
    }
    let verdict = message::read_answer(reply, facts.id, &facts);
    let mut other = reply.to_vec();
    message::set_id(&mut other, facts.id ^ 1);
    assert_eq!(
        message::read_answer(&other, facts.id, &facts),
        None,
        "another id is another answer"
    );
    message::set_id(&mut other, facts.id);
    if verdict.is_some() {
        assert_eq!(message::read_answer(&other, facts.id, &facts), verdict);
    }
    let Ok(poll) = Poll::new() else { return };
    let counters = Counters::default();
    let context = Context { registry: poll.registry(), counters: &counters, now: Instant::ZERO };
    let mut table = Table::new(1, Upstreams::given(&[]));
    let address = (std::net::Ipv4Addr::LOCALHOST, 1).into();
    let asker = Asker::Datagram { guest: address, local: address };
    let refused = table.ask(asker, facts, query.to_vec(), context);
    assert_eq!(refused, Err(Refused::NoUpstream));
}

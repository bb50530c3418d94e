use proptest::collection::vec;
use proptest::prelude::*;

use super::super::testing::{Record, answer as upstream, name, query, query_with_opt};
use super::*;

fn parsed(bytes: &[u8]) -> Query {
    read_query(bytes).unwrap()
}

fn asked(bytes: &[u8]) -> Question {
    parsed(bytes).question.unwrap()
}

#[test]
fn a_query_is_read_and_its_name_lowered() {
    let query = parsed(&query(0x1234, "WWW.Example.Com", Rtype::AAAA));
    assert_eq!(query.id, 0x1234);
    let question = query.question.unwrap();
    assert_eq!(question.name, "www.example.com");
    assert_eq!((question.qtype, question.qclass), (Rtype::AAAA, Class::IN));
}

/// RFC 5625 section 4.3: any type and class is a query like another.
#[test]
fn rfc_5625_4_3_any_type_and_class_is_read() {
    for (qtype, qclass) in [(65_280, 1), (255, 255), (16, 3), (64, 1), (0, 0), (65_535, 65_535)] {
        let mut bytes = query(1, "example.com", Rtype::A);
        let end = bytes.len();
        bytes[end - 4..end - 2].copy_from_slice(&u16::to_be_bytes(qtype));
        bytes[end - 2..].copy_from_slice(&u16::to_be_bytes(qclass));
        let question = asked(&bytes);
        assert_eq!((question.qtype.to_int(), question.qclass.to_int()), (qtype, qclass));
    }
}

#[test]
fn a_response_from_the_guest_is_met_with_silence() {
    let mut bytes = query(1, "example.com", Rtype::A);
    bytes[2] |= 0x80;
    assert_eq!(read_query(&bytes), Err(BadQuery::Silence));
    for len in 0..HEADER {
        assert_eq!(read_query(&bytes[..len]), Err(BadQuery::Silence));
    }
}

#[test]
fn questions_that_cannot_be_read_are_format_errors() {
    let good = query(1, "example.com", Rtype::A);
    for len in HEADER..good.len() {
        assert_eq!(read_query(&good[..len]), Err(BadQuery::Format), "{len} bytes");
    }
    for count in [2, 3, 65_535] {
        let mut bytes = good.clone();
        bytes[4..6].copy_from_slice(&u16::to_be_bytes(count));
        assert_eq!(read_query(&bytes), Err(BadQuery::Format), "{count} questions");
    }
    let header = &good[..HEADER];
    let names: [&[u8]; 9] = [
        &[0xc0, 0],            // the id
        &[0xc0, 4],            // the counts
        &[1, b'a', 0xc0, 4],   // a label before them
        &[0xc0, 12],           // points to itself
        &[0xc0, 14, 0xc0, 12], // points forward, and back
        &[1, b'a', 0xc0, 12],  // a loop over a label
        &[0x40, 1, 2],         // an extended label
        &[0xff, 0xff],         // beyond the message
        &[63; 3],              // cut short
    ];
    for name in names {
        let bytes = [header, name, &[0, 1, 0, 1]].concat();
        assert_eq!(read_query(&bytes), Err(BadQuery::Format), "{name:?}");
    }
    let long: Vec<u8> = [&[63][..], &[b'a'; 63]].concat().repeat(4);
    let bytes = [header, &long, &[0, 0, 1, 0, 1]].concat();
    assert_eq!(read_query(&bytes), Err(BadQuery::Format), "a name of 257 bytes");
}

#[test]
fn a_query_without_question_is_passed_on() {
    let mut bytes = query(1, "example.com", Rtype::A);
    bytes[5] = 0;
    bytes.truncate(HEADER);
    assert_eq!(parsed(&bytes).question, None);
}

/// A dot inside a label must not look like the dot between two.
#[test]
fn no_two_names_look_alike() {
    let header = &query(1, "example.com", Rtype::A)[..HEADER];
    let with = |labels: &[u8]| asked(&[header, labels, &[0, 0, 1, 0, 1]].concat()).name;
    assert_eq!(with(b"\x03a.b"), "a\\046b");
    assert_eq!(with(b"\x01a\x01b"), "a.b");
    assert_eq!(with(b"\x04\\046"), "\\092046");
    assert_eq!(with(b"\x02\xff\x00"), "\\255\\000");
    assert_eq!(with(b""), "");
}

#[test]
fn an_answer_must_have_the_id_and_the_question() {
    let bytes = query(77, "Example.com", Rtype::A);
    let facts = parsed(&bytes);
    let good = upstream(&bytes, Rcode::NOERROR, &[Record::Address("example.com", "192.0.2.1", 9)]);
    assert_eq!(read_answer(&good, 77, &facts), Some(Verdict::Answer));
    assert_eq!(read_answer(&good, 78, &facts), None, "another id");
    assert_eq!(read_answer(&bytes, 77, &facts), None, "the query itself");
    for (other, qtype) in [("example.org", Rtype::A), ("example.com", Rtype::AAAA)] {
        let other = upstream(&query(77, other, qtype), Rcode::NOERROR, &[]);
        assert_eq!(read_answer(&other, 77, &facts), None, "another question");
    }
    let mut other_opcode = good.clone();
    other_opcode[2] |= 0x20;
    assert_eq!(read_answer(&other_opcode, 77, &facts), None);
    let case = upstream(&query(77, "eXAMPLE.cOM", Rtype::A), Rcode::NXDOMAIN, &[]);
    assert_eq!(read_answer(&case, 77, &facts), Some(Verdict::Answer), "RFC 4343");
    for len in 0..HEADER + 17 {
        assert_eq!(read_answer(&good[..len], 77, &facts), None, "{len} bytes");
    }
}

#[test]
fn an_error_without_question_is_an_answer_and_a_success_is_not() {
    let facts = parsed(&query(77, "example.com", Rtype::A));
    let bare = |rcode: u8| [0, 77, 0x80, rcode, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(read_answer(&bare(1), 77, &facts), Some(Verdict::Answer));
    assert_eq!(read_answer(&bare(2), 77, &facts), Some(Verdict::Failure));
    assert_eq!(read_answer(&bare(5), 77, &facts), Some(Verdict::Failure));
    assert_eq!(read_answer(&bare(0), 77, &facts), None);
    let mut with_records = bare(3);
    with_records[7] = 1;
    assert_eq!(read_answer(&with_records, 77, &facts), None);
}

#[test]
fn addresses_follow_the_aliases_and_nothing_else() {
    let bytes = query(1, "www.example.com", Rtype::A);
    let records = [
        Record::Address("edge.example.net", "192.0.2.1", 300),
        Record::Alias("www.Example.com", "cdn.example.net", 60),
        Record::Alias("cdn.example.net", "EDGE.example.net", 20),
        Record::Address("edge.example.net", "2001:db8::1", 10),
        Record::Address("bank.example", "192.0.2.66", 300),
        Record::Alias("other.example", "bank.example", 300),
    ];
    let found = addresses(&upstream(&bytes, Rcode::NOERROR, &records), &asked(&bytes));
    let name = "edge.example.net".to_owned();
    assert_eq!(
        found,
        [
            Address { name: name.clone(), address: "192.0.2.1".parse().unwrap(), ttl: 20 },
            Address { name, address: "2001:db8::1".parse().unwrap(), ttl: 10 },
        ]
    );
}

#[test]
fn a_loop_of_aliases_ends() {
    let bytes = query(1, "a.example", Rtype::A);
    let records = [
        Record::Alias("a.example", "b.example", 1),
        Record::Alias("b.example", "a.example", 1),
        Record::Address("b.example", "192.0.2.1", 1),
    ];
    let found = addresses(&upstream(&bytes, Rcode::NOERROR, &records), &asked(&bytes));
    assert_eq!(found.len(), 1);
}

/// RUSTSEC-2026-0119, RUSTSEC-2018-0007: names that point back and back must not cost the square of the
/// message, or this never ends.
#[test]
fn the_worst_messages_are_read_in_bounded_time() {
    let bytes = query(1, "a.example", Rtype::A);
    let question = asked(&bytes);
    let mut worst = bytes.clone();
    worst[2] |= 0x80;
    worst[6..8].copy_from_slice(&[0xff, 0xff]);
    // Each name is a label and a pointer to the name before it.
    let mut last = HEADER;
    while worst.len() < 65_500 {
        let at = worst.len();
        let pointer = 0xc000 | last.min(0x3fff) as u16;
        worst.extend_from_slice(&pointer.to_be_bytes());
        worst.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1]);
        last = at.min(0x3fff);
    }
    for _ in 0..1000 {
        let _ = addresses(&worst, &question);
        let _ = read_answer(&worst, 1, &parsed(&bytes));
    }
    assert!(addresses(&worst, &question).len() <= RECORDS);
}

#[test]
fn own_answers_carry_the_question_and_the_records() {
    let bytes = query(9, "hOst.framegate.internal", Rtype::A);
    let records = [Own::Address("100.96.0.1".parse().unwrap())];
    let reply = answer(&bytes, Rcode::NOERROR, &records, None).unwrap();
    assert_eq!(read_answer(&reply, 9, &parsed(&bytes)), Some(Verdict::Answer));
    assert_eq!(&reply[HEADER..bytes.len()], &bytes[HEADER..], "the question as it was written");
    let found = addresses(&reply, &asked(&bytes));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].address, "100.96.0.1".parse::<IpAddr>().unwrap());
    let message = Message::from_slice(&reply).unwrap();
    assert!(message.header().rd() && message.header().ra() && message.header().qr());
    assert!(message.opt().is_none(), "no OPT to a query without one");
}

#[test]
fn own_answers_to_edns_have_an_opt_that_says_why() {
    let bytes = query_with_opt(9, "denied.example", Rtype::A);
    let why = Some(ExtendedErrorCode::PROHIBITED);
    let reply = answer(&bytes, Rcode::NXDOMAIN, &[], why).unwrap();
    let message = Message::from_slice(&reply).unwrap();
    let opt = message.opt().unwrap();
    let error = opt.opt().iter::<ExtendedError<_>>().next().unwrap().unwrap();
    assert_eq!(error.code(), ExtendedErrorCode::PROHIBITED);
    assert_eq!(message.header().rcode(), Rcode::NXDOMAIN);
}

#[test]
fn what_cannot_be_read_is_answered_with_a_header() {
    let mut bytes = query(0xabcd, "example.com", Rtype::A);
    bytes[5] = 9;
    bytes[3] |= 0x10;
    let reply = answer(&bytes, Rcode::FORMERR, &[], None).unwrap();
    assert_eq!(reply, [0xab, 0xcd, 0x81, 0x91, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answer(&bytes[..11], Rcode::FORMERR, &[], None), None);
}

#[test]
fn pointers_give_the_gateways_name() {
    let bytes = query(9, "1.0.96.100.in-addr.arpa", Rtype::PTR);
    let own = Own::Name(name("host.framegate.internal"));
    let reply = answer(&bytes, Rcode::NOERROR, &[own], None).unwrap();
    let message = Message::from_slice(&reply).unwrap();
    let mut found = message.answer().unwrap().limit_to::<Ptr<_>>();
    let record = found.next().unwrap().unwrap();
    assert_eq!(canonical(record.data().ptrdname()), "host.framegate.internal");
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(data in vec(any::<u8>(), 0..600)) {
        super::super::check::fuzz_dns(&data);
    }

    #[test]
    fn any_change_of_a_query_is_read_without_panic(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let bytes = query_with_opt(1, "www.example.com", Rtype::A);
        let records = [Record::Address("www.example.com", "192.0.2.1", 9)];
        let reply = upstream(&bytes, Rcode::NOERROR, &records);
        let mut data = u16::to_be_bytes(bytes.len() as u16).to_vec();
        data.extend_from_slice(&bytes);
        data.extend_from_slice(&reply);
        for (at, byte) in changes {
            let at = at.index(data.len());
            data[at] = byte;
        }
        super::super::check::fuzz_dns(&data);
    }
}

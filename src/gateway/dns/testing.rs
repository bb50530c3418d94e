//! What the tests of the forwarder share: messages made by hand.

use std::net::IpAddr;
use std::str::FromStr;

use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::opt::Cookie;
use domain::base::opt::cookie::ClientCookie;
use domain::base::{Message, MessageBuilder, Name, Ttl};
use domain::rdata::{A, Aaaa, Cname};

pub(crate) fn name(text: &str) -> Name<Vec<u8>> {
    Name::from_str(text).unwrap()
}

/// A query with RD, as a stub resolver sends it.
pub(crate) fn query(id: u16, of: &str, qtype: Rtype) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_rd(true);
    let mut question = builder.question();
    question.push((name(of), qtype)).unwrap();
    question.finish()
}

/// The same with EDNS and a cookie.
pub(crate) fn query_with_opt(id: u16, of: &str, qtype: Rtype) -> Vec<u8> {
    let message = Message::from_octets(query(id, of, qtype)).unwrap();
    let mut builder = MessageBuilder::new_vec();
    *builder.header_mut() = message.header();
    let mut question = builder.question();
    question.push((name(of), qtype)).unwrap();
    let mut additional = question.additional();
    let cookie = Cookie::new(ClientCookie::from_octets([7; 8]), None);
    additional
        .opt(|opt| {
            opt.set_udp_payload_size(4096);
            opt.set_dnssec_ok(true);
            opt.push(&cookie)
        })
        .unwrap();
    additional.finish()
}

/// A record of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    Address(&'static str, &'static str, u32),
    Alias(&'static str, &'static str, u32),
}

/// An upstream's answer.
pub(crate) fn answer(query: &[u8], rcode: Rcode, records: &[Record]) -> Vec<u8> {
    let query = Message::from_octets(query).unwrap();
    let mut builder = MessageBuilder::new_vec().start_error(&query, rcode);
    builder.header_mut().set_ra(true);
    for record in records {
        match record {
            Record::Address(owner, address, ttl) => {
                let (owner, ttl) = (name(owner), Ttl::from_secs(*ttl));
                match address.parse().unwrap() {
                    IpAddr::V4(address) => {
                        builder.push((owner, Class::IN, ttl, A::new(address))).unwrap();
                    }
                    IpAddr::V6(address) => {
                        builder.push((owner, Class::IN, ttl, Aaaa::new(address))).unwrap();
                    }
                }
            }
            Record::Alias(owner, target, ttl) => {
                let ttl = Ttl::from_secs(*ttl);
                builder.push((name(owner), Class::IN, ttl, Cname::new(name(target)))).unwrap();
            }
        }
    }
    builder.finish()
}

pub(crate) fn rcode(message: &[u8]) -> Rcode {
    Message::from_slice(message).unwrap().header().rcode()
}

pub(crate) fn id(message: &[u8]) -> u16 {
    Message::from_slice(message).unwrap().header().id()
}

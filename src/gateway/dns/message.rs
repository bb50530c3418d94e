//! DNS messages, as far as a forwarder looks into them (RFC 1035, RFC 6891).
//!
//! A message is forwarded byte for byte, whatever it carries: unknown flags, types, options,
//! signatures. What is read of it is the header, the question, and the addresses in an answer. Every
//! walk is bounded: by one question, by [`RECORDS`] records, and by the pointers that the parser
//! follows for one name.

use std::fmt::Write;
use std::net::IpAddr;

use domain::base::iana::{Class, ExtendedErrorCode, Opcode, Rcode, Rtype};
use domain::base::name::ToLabelIter;
use domain::base::opt::ExtendedError;
use domain::base::{self, Message, MessageBuilder, Name, ParsedName, Ttl};
use domain::rdata::{A, Aaaa, Cname, Ptr};

/// The length of a header, in bytes.
pub(crate) const HEADER: usize = 12;
/// Records of an answer that are looked at.
const RECORDS: usize = 256;
/// CNAME records that are followed from one question.
const CHAIN: usize = 16;
/// How long a record of the gateway's own may be kept.
pub(crate) const TTL: Ttl = Ttl::from_secs(60);
/// What the gateway itself takes over UDP: what fits every path.
const UDP_PAYLOAD: u16 = 1232;

/// What is asked. The name is in lower case, so that questions compare as RFC 4343 wants it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// Labels with dots between them and none at the end; what is no letter, digit, hyphen or
    /// underscore is escaped as `\DDD`, so no two names look alike.
    pub(crate) name: String,
    pub(crate) qtype: Rtype,
    pub(crate) qclass: Class,
}

/// What the forwarder must know of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) id: u16,
    pub(crate) opcode: Opcode,
    /// `None` where the guest asks nothing: a cookie alone (RFC 7873 section 5.4).
    pub(crate) question: Option<Question>,
}

/// Why a query goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadQuery {
    /// Shorter than a header, or itself a response: an answer to one could loop.
    Silence,
    /// The question cannot be read, or there is more than one (RFC 9619).
    Format,
}

/// Reads a query of the guest.
pub(crate) fn read_query(bytes: &[u8]) -> Result<Query, BadQuery> {
    let message = Message::from_slice(bytes).map_err(|_| BadQuery::Silence)?;
    let header = message.header();
    if header.qr() {
        return Err(BadQuery::Silence);
    }
    let question = match message.header_counts().qdcount() {
        0 => None,
        1 => Some(question(message).ok_or(BadQuery::Format)?),
        _ => return Err(BadQuery::Format),
    };
    Ok(Query { id: header.id(), opcode: header.opcode(), question })
}

fn question(message: &Message<[u8]>) -> Option<Question> {
    let question = written_out(message)?;
    Some(Question {
        name: canonical(question.qname()),
        qtype: question.qtype(),
        qclass: question.qclass(),
    })
}

/// The first question, if its name is written out. There is nothing before it that a name could point to
/// but the header, whose id changes on the way: it would be one name for the policy and another for the
/// upstream.
fn written_out(message: &Message<[u8]>) -> Option<base::Question<ParsedName<&[u8]>>> {
    let mut section = message.question();
    let question = section.next()?.ok()?;
    let len = usize::from(question.qname().compose_len()) + 4;
    (section.pos() == HEADER + len).then_some(question)
}

/// The text of a name, as [`Question::name`] has it.
fn canonical(name: &impl ToLabelIter) -> String {
    let mut text = String::new();
    for label in name.iter_labels().filter(|label| !label.is_root()) {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label.iter() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => {
                    text.push(char::from(byte.to_ascii_lowercase()));
                }
                // Writing to a string does not fail.
                _ => drop(write!(text, "\\{byte:03}")),
            }
        }
    }
    text
}

/// What an upstream's answer says, as far as the forwarder acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// For the guest.
    Answer,
    /// The upstream could not or would not answer: another may.
    Failure,
}

/// Reads an answer to the query that was sent with `id`. `None` if it answers something else: an
/// answer must be a response with that id to that question (RFC 5452 section 9.1). An error without
/// question and without records can mislead nobody, and some servers answer so what they cannot read.
pub(crate) fn read_answer(bytes: &[u8], id: u16, query: &Query) -> Option<Verdict> {
    let message = Message::from_slice(bytes).ok()?;
    let (header, counts) = (message.header(), message.header_counts());
    if !header.qr() || header.id() != id || header.opcode() != query.opcode {
        return None;
    }
    let rcode = header.rcode();
    let is_bare = counts.qdcount() == 0 && counts.ancount() == 0 && rcode != Rcode::NOERROR;
    let asked = match counts.qdcount() {
        1 => question(message),
        _ => None,
    };
    if !is_bare && (asked != query.question || counts.qdcount() > 1) {
        return None;
    }
    if query.opcode == Opcode::QUERY && matches!(rcode, Rcode::SERVFAIL | Rcode::REFUSED) {
        return Some(Verdict::Failure);
    }
    Some(Verdict::Answer)
}

/// Gives a message another id.
pub(crate) fn set_id(message: &mut [u8], id: u16) {
    if let Some(field) = message.get_mut(..2) {
        field.copy_from_slice(&id.to_be_bytes());
    }
}

/// An address that an answer gave for the name that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// The owner of the record: the name that was asked, or where its CNAME records lead.
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    /// In seconds: the least on the way from the question to the address.
    pub(crate) ttl: u32,
}

/// The addresses that an answer gives for its question. Records that the question does not lead to
/// are passed over.
pub(crate) fn addresses(bytes: &[u8], question: &Question) -> Vec<Address> {
    let mut aliases = Vec::new();
    let mut found = Vec::new();
    let Some(records) = Message::from_slice(bytes).ok().and_then(|all| all.answer().ok()) else {
        return found;
    };
    for record in records.take(RECORDS) {
        // What comes after a record that cannot be read cannot be found.
        let Ok(record) = record else { break };
        if record.class() != Class::IN {
            continue;
        }
        let (name, ttl) = (canonical(&record.owner()), record.ttl().as_secs());
        match record.rtype() {
            Rtype::A => {
                if let Ok(Some(record)) = record.to_record::<A>() {
                    let address = record.data().addr().into();
                    found.push(Address { name, address, ttl });
                }
            }
            Rtype::AAAA => {
                if let Ok(Some(record)) = record.to_record::<Aaaa>() {
                    let address = record.data().addr().into();
                    found.push(Address { name, address, ttl });
                }
            }
            Rtype::CNAME => {
                if let Ok(Some(record)) = record.to_record::<Cname<_>>() {
                    aliases.push((name, canonical(record.data().cname()), ttl));
                }
            }
            _ => {}
        }
    }
    let chain = chain(question, &aliases);
    found.retain_mut(|address| match chain.iter().find(|(name, _)| *name == address.name) {
        Some((_, ttl)) => {
            address.ttl = address.ttl.min(*ttl);
            true
        }
        None => false,
    });
    found
}

/// The names that the question leads to, each with the least TTL on the way there.
fn chain<'n>(question: &'n Question, aliases: &'n [(String, String, u32)]) -> Vec<(&'n str, u32)> {
    let mut chain = vec![(question.name.as_str(), u32::MAX)];
    while let Some(&(last, so_far)) = chain.last() {
        let next = aliases.iter().find(|(owner, ..)| owner == last);
        let Some((_, target, ttl)) = next else { break };
        if chain.len() == CHAIN || chain.iter().any(|(name, _)| name == target) {
            break;
        }
        chain.push((target, so_far.min(*ttl)));
    }
    chain
}

/// A record of the gateway's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    Address(IpAddr),
    /// The name that an address has.
    Name(Name<Vec<u8>>),
}

impl Own {
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(_) => None,
        }
    }
}

/// The gateway's own answer to a query. `None` if there is not even a header.
pub(crate) fn answer(
    query: &[u8],
    rcode: Rcode,
    records: &[Own],
    why: Option<ExtendedErrorCode>,
) -> Option<Vec<u8>> {
    let message = Message::from_slice(query).ok()?;
    let counts = message.header_counts();
    let Some(asked) = written_out(message).filter(|_| counts.qdcount() == 1) else {
        return bare(query, rcode);
    };
    let mut builder = MessageBuilder::new_vec().start_error(message, rcode);
    builder.header_mut().set_ra(true);
    builder.header_mut().set_cd(message.header().cd());
    let name = asked.qname();
    for record in records {
        // A vector takes every record.
        let _ = match record {
            Own::Address(IpAddr::V4(address)) => {
                builder.push((name, Class::IN, TTL, A::new(*address)))
            }
            Own::Address(IpAddr::V6(address)) => {
                builder.push((name, Class::IN, TTL, Aaaa::new(*address)))
            }
            Own::Name(target) => builder.push((name, Class::IN, TTL, Ptr::new(target))),
        };
    }
    let mut builder = builder.additional();
    if has_opt(message) {
        let _ = builder.opt(|opt| {
            opt.set_udp_payload_size(UDP_PAYLOAD);
            match why.and_then(|why| ExtendedError::<Vec<u8>>::new_with_str(why, "").ok()) {
                Some(error) => opt.push(&error),
                None => Ok(()),
            }
        });
    }
    Some(builder.finish())
}

/// An error to a query whose question cannot be given back: the header alone.
fn bare(query: &[u8], rcode: Rcode) -> Option<Vec<u8>> {
    let [id @ .., flags, more] = query.first_chunk::<4>()?;
    let mut answer = id.to_vec();
    // QR; opcode and RD as they came; RA; CD as it came (RFC 4035 section 3.2.2).
    answer.extend_from_slice(&[0x80 | flags & 0x79, 0x80 | more & 0x10 | rcode.to_int()]);
    answer.resize(HEADER, 0);
    Some(answer)
}

/// Whether the query has an OPT record, so that the answer must have one too (RFC 6891 section 6.1.1).
fn has_opt(message: &Message<[u8]>) -> bool {
    let counts = message.header_counts();
    let is_plain = counts.ancount() == 0 && counts.nscount() == 0 && counts.arcount() <= 4;
    is_plain && message.opt().is_some()
}

#[cfg(test)]
mod tests;

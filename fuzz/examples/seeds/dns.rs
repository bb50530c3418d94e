//! DNS: a query of the guest with its length before it, and the upstream's answer behind it.

use crate::{Seeds, add};

/// A header: the flags and the four counts.
fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let [questions, answers, authorities, more] = counts;
    [0x1234, flags, questions, answers, authorities, more].map(u16::to_be_bytes).concat()
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

fn question(owner: &[u8], qtype: u16, class: u16) -> Vec<u8> {
    [owner, &qtype.to_be_bytes(), &class.to_be_bytes()].concat()
}

fn record(owner: &[u8], rtype: u16, class: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let len = (data.len() as u16).to_be_bytes();
    [&question(owner, rtype, class)[..], &ttl.to_be_bytes(), &len, data].concat()
}

fn opt(size: u16, data: &[u8]) -> Vec<u8> {
    record(&[0], 41, size, 0x8000, data)
}

/// The name of the question, where it stands in every message here.
const POINTER: [u8; 2] = [0xc0, 12];

fn query(text: &str, qtype: u16) -> Vec<u8> {
    [header(0x0100, [1, 0, 0, 0]), question(&name(text), qtype, 1)].concat()
}

/// The answer to `query("www.example.com", 1)` with these records.
fn answer(flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let header = header(flags, [1, records.len() as u16, 0, 0]);
    [header, question(&name("www.example.com"), 1, 1), records.concat()].concat()
}

fn exchange(query: &[u8], answer: &[u8]) -> Vec<u8> {
    [&(query.len() as u16).to_be_bytes(), query, answer].concat()
}

pub(crate) fn dns() -> Seeds {
    let mut seeds = Seeds::new();
    queries(&mut seeds);
    answers(&mut seeds);
    configurations(&mut seeds);
    seeds
}

fn queries(seeds: &mut Seeds) {
    let whole = query("www.example.com", 1);
    for len in 0..whole.len() {
        add(seeds, format!("query_len_{len:02}"), exchange(&whole[..len], &[]));
    }
    for count in [0, 2, 3, 255, 65_535] {
        let bytes = [&header(0x0100, [count, 0, 0, 0])[..], &whole[12..]].concat();
        add(seeds, format!("query_questions_{count:05}"), exchange(&bytes, &bytes));
    }
    let long = [&[63][..], &[b'a'; 63]].concat().repeat(4);
    let deep = [1, b'a'].repeat(130);
    let names: [(&str, &[u8]); 15] = [
        ("root", &[0]),
        ("dot_in_label", b"\x03a.b\0"),
        ("binary", &[3, 0, 255, b'\\', 0]),
        ("label_63", &[&[63][..], &[b'x'; 63], &[0]].concat()),
        ("label_64", &[&[64][..], &[b'x'; 64], &[0]].concat()),
        ("label_beyond", &[63, 1, 2]),
        ("reserved_80", &[0x80, 1, 0]),
        ("pointer_to_itself", &[0xc0, 12]),
        ("pointer_forward", &[0xc0, 14, 0xc0, 12]),
        ("pointer_loop", &[1, b'a', 0xc0, 12]),
        ("pointer_to_the_id", &[1, b'a', 0xc0, 0]),
        ("pointer_into_header", &[0xc0, 4]),
        ("pointer_beyond", &[0xff, 0xff]),
        ("too_long", &[&long[..], &[0]].concat()),
        ("too_deep", &[&deep[..], &[0]].concat()),
    ];
    for (text, owner) in names {
        let bytes = [header(0x0100, [1, 0, 0, 0]), question(owner, 1, 1)].concat();
        add(seeds, format!("query_name_{text}"), exchange(&bytes, &bytes));
    }
    for (text, flags) in
        [("response", 0x8180), ("update", 0x2800), ("notify", 0x2000), ("reserved", 0x7fff)]
    {
        let bytes = [&header(flags, [1, 0, 0, 0])[..], &whole[12..]].concat();
        add(seeds, format!("query_{text}"), exchange(&bytes, &bytes));
    }
    for (text, additional) in [
        ("opt", opt(4096, &[])),
        ("opt_with_cookie", opt(1232, &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8])),
        ("opt_with_option_beyond", opt(1232, &[0, 10, 0, 200, 1])),
        ("opt_cut", opt(4096, &[])[..6].to_vec()),
        ("opt_with_name", record(&POINTER, 41, 4096, 0, &[])),
        ("tsig", record(&name("key"), 250, 255, 0, &[0; 40])),
    ] {
        let bytes = [&header(0x0100, [1, 0, 0, 1])[..], &whole[12..], &additional].concat();
        add(seeds, format!("query_{text}"), exchange(&bytes, &[]));
    }
    let own = query("host.framegate.internal", 255);
    add(seeds, "query_own_name", exchange(&own, &own));
}

fn answers(seeds: &mut Seeds) {
    let query = query("www.example.com", 1);
    let mut add_answer =
        |name: &str, bytes: &[u8]| add(seeds, format!("answer_{name}"), exchange(&query, bytes));
    let address = record(&POINTER, 1, 1, 300, &[192, 0, 2, 1]);
    let address6 = record(&POINTER, 28, 1, 300, &[0x20; 16]);
    let alias = |from: &str, to: &str| record(&name(from), 5, 1, 60, &name(to));
    let whole = answer(0x8180, &[address.clone(), address6.clone()]);
    add_answer("addresses", &whole);
    for len in (12..whole.len()).step_by(5) {
        add_answer(&format!("len_{len:02}"), &whole[..len]);
    }
    let chain = [
        alias("www.example.com", "a.example"),
        alias("a.example", "B.example"),
        alias("b.example", "a.example"),
    ];
    add_answer("alias_loop", &answer(0x8180, &chain));
    let records: Vec<_> = (0..40)
        .map(|n| alias(&format!("n{n}.example"), &format!("n{}.example", n + 1)))
        .chain([alias("www.example.com", "n0.example")])
        .collect();
    add_answer("alias_chain", &answer(0x8180, &records));
    add_answer("many_addresses", &answer(0x8180, &vec![address.clone(); 300]));
    for (text, data) in [("a_short", vec![192, 0, 2]), ("a_long", vec![1; 5]), ("a_none", vec![])] {
        add_answer(text, &answer(0x8180, &[record(&POINTER, 1, 1, 1, &data), address.clone()]));
    }
    add_answer("other_class", &answer(0x8180, &[record(&POINTER, 1, 3, 1, &[1, 2, 3, 4])]));
    add_answer("ttl_largest", &answer(0x8180, &[record(&POINTER, 1, 1, u32::MAX, &[1, 2, 3, 4])]));
    for (text, flags) in [
        ("truncated", 0x8380),
        ("servfail", 0x8182),
        ("nxdomain", 0x8183),
        ("refused", 0x8185),
        ("query", 0x0100),
        ("update", 0xa800),
    ] {
        add_answer(text, &answer(flags, &[]));
    }
    for rcode in [0, 1, 2, 4, 5, 15] {
        add_answer(&format!("bare_{rcode:02}"), &header(0x8180 | rcode, [0; 4]));
    }
    let mut lies = whole.clone();
    lies[6..8].copy_from_slice(&[0xff, 0xff]);
    add_answer("count_lies", &lies);
    // Each owner is a pointer to the owner before it.
    let mut pointers = answer(0x8180, &[]);
    let mut last = 12_u16;
    for _ in 0..200 {
        let at = pointers.len() as u16;
        let owner = (0xc000 | last).to_be_bytes();
        pointers.extend(record(&owner, 1, 1, 9, &[192, 0, 2, 1]));
        last = at;
    }
    pointers[7] = 200;
    add_answer("pointers_to_pointers", &pointers);
    add_answer("garbage", &[0xff; 600]);
}

/// The same bytes are read as a resolv.conf.
fn configurations(seeds: &mut Seeds) {
    for (text, file) in [
        ("plain", &b"nameserver 192.0.2.1\nnameserver 2001:db8::1\noptions edns0\n"[..]),
        ("scoped", b"nameserver fe80::1%lo\nnameserver fe80::1%9999999999\nnameserver fe80::1%\n"),
        ("garbage", b"nameserver\nnameserver \xff\n\0nameserver 1.2.3.4.5\n#nameserver 192.0.2.1"),
    ] {
        add(seeds, format!("resolv_conf_{text}"), file.to_vec());
    }
}

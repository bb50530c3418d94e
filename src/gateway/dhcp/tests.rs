use proptest::prelude::*;
use smoltcp::wire::{DhcpPacket, EthernetAddress};

use super::*;
use crate::config::Builder;
use crate::gateway::testing::{GATEWAY, GUEST, GUEST_MAC, link, link_of};

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const ACK: u8 = 5;
const NAK: u8 = 6;
const RELEASE: u8 = 7;
const INFORM: u8 = 8;

const DAY: Duration = Duration::from_secs(24 * 3600);
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 77);
const XID: u32 = 0xdead_beef;

fn server() -> DhcpServer {
    DhcpServer::new(vec![GATEWAY], DAY)
}

/// A message of the guest, byte by byte.
#[derive(Clone, Debug)]
struct Client {
    flags: u16,
    ciaddr: Ipv4Addr,
    options: Vec<u8>,
    sname: Vec<u8>,
    file: Vec<u8>,
    end: bool,
}

impl Client {
    fn says(kind: u8) -> Self {
        Self {
            flags: 0,
            ciaddr: NOBODY,
            options: vec![53, 1, kind],
            sname: vec![],
            file: vec![],
            end: true,
        }
    }

    fn with(mut self, kind: u8, data: &[u8]) -> Self {
        self.options.extend_from_slice(&[kind, data.len() as u8]);
        self.options.extend_from_slice(data);
        self
    }

    fn asks_for(self, address: Ipv4Addr) -> Self {
        self.with(50, &address.octets())
    }

    fn chooses(self, server: Ipv4Addr) -> Self {
        self.with(54, &server.octets())
    }

    fn has(self, ciaddr: Ipv4Addr) -> Self {
        Self { ciaddr, ..self }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0];
        bytes.extend_from_slice(&XID.to_be_bytes());
        bytes.extend_from_slice(&[0, 9]);
        bytes.extend_from_slice(&self.flags.to_be_bytes());
        bytes.extend_from_slice(&self.ciaddr.octets());
        bytes.extend_from_slice(&[0; 12]);
        bytes.extend_from_slice(&GUEST_MAC);
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(&self.sname);
        bytes.resize(108, 0);
        bytes.extend_from_slice(&self.file);
        bytes.resize(236, 0);
        bytes.extend_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        bytes.extend_from_slice(&self.options);
        if self.end {
            bytes.push(255);
        }
        bytes
    }

    /// The server's answer, when the packet comes from the address that the client has.
    fn heard(&self) -> Result<Option<DhcpReply>, DropReason> {
        server().handle(&link(), &self.bytes(), self.ciaddr)
    }

    #[track_caller]
    fn answer(&self) -> Answer {
        Answer::of(self.heard().unwrap().unwrap())
    }
}

/// A reply, taken apart without the code under test.
#[derive(Clone, Debug)]
struct Answer {
    destination: Ipv4Addr,
    bytes: Vec<u8>,
    options: Vec<(u8, Vec<u8>)>,
}

impl Answer {
    /// Takes the reply apart, and checks what holds of every one.
    #[track_caller]
    fn of(reply: DhcpReply) -> Self {
        let bytes = reply.payload;
        assert!(bytes.len() >= 300, "RFC 1542 section 2.1");
        assert_eq!(bytes[..4], [2, 1, 6, 0], "a reply, Ethernet, 6 bytes, no hops");
        assert_eq!(bytes[4..8], XID.to_be_bytes());
        assert_eq!(bytes[8..10], [0, 0], "secs");
        assert_eq!(bytes[20..28], [0; 8], "no next server, no relay");
        assert_eq!(bytes[28..34], GUEST_MAC);
        assert_eq!(bytes[34..236], [0; 202], "neither names nor the rest of chaddr");
        assert_eq!(bytes[236..240], [0x63, 0x82, 0x53, 0x63]);
        let (mut options, mut at) = (Vec::new(), 240);
        while bytes[at] != 255 {
            let end = at + 2 + usize::from(bytes[at + 1]);
            options.push((bytes[at], bytes[at + 2..end].to_vec()));
            at = end;
        }
        assert!(bytes[at + 1..].iter().all(|byte| *byte == 0), "padding follows the end");
        let mut kinds: Vec<u8> = options.iter().map(|(kind, _)| *kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), options.len(), "no option comes twice");
        let answer = Self { destination: reply.destination, bytes, options };
        assert_eq!(answer.option(54), GATEWAY.octets());
        answer
    }

    fn kind(&self) -> u8 {
        self.option(53)[0]
    }

    fn find(&self, kind: u8) -> Option<&[u8]> {
        self.options.iter().find(|(k, _)| *k == kind).map(|(_, data)| &data[..])
    }

    #[track_caller]
    fn option(&self, kind: u8) -> &[u8] {
        self.find(kind).unwrap_or_else(|| panic!("no option {kind}: {self:?}"))
    }

    fn seconds(&self, kind: u8) -> u32 {
        u32::from_be_bytes(self.option(kind).try_into().unwrap())
    }

    fn ciaddr(&self) -> Ipv4Addr {
        Ipv4Addr::from(<[u8; 4]>::try_from(&self.bytes[12..16]).unwrap())
    }

    fn yiaddr(&self) -> Ipv4Addr {
        Ipv4Addr::from(<[u8; 4]>::try_from(&self.bytes[16..20]).unwrap())
    }

    /// An offer or an acknowledgement with everything that the guest needs.
    #[track_caller]
    fn is_lease(&self, kind: u8, ciaddr: Ipv4Addr) {
        assert_eq!((self.kind(), self.yiaddr(), self.ciaddr()), (kind, GUEST, ciaddr));
        assert_eq!(self.option(1), [255, 255, 255, 252]);
        assert_eq!(self.option(3), GATEWAY.octets());
        assert_eq!(self.option(6), GATEWAY.octets());
        assert_eq!(self.option(26), [0x05, 0xdc]);
        assert_eq!(self.seconds(51), 86_400);
        assert!(self.seconds(58) < self.seconds(59) && self.seconds(59) < self.seconds(51));
    }

    #[track_caller]
    fn is_nak(&self) {
        assert_eq!((self.kind(), self.yiaddr(), self.ciaddr()), (NAK, NOBODY, NOBODY));
        assert_eq!(self.destination, Ipv4Addr::BROADCAST, "RFC 2131 section 4.1");
        let besides = self.options.iter().filter(|(kind, _)| ![53, 54, 61].contains(kind));
        assert_eq!(besides.count(), 0, "RFC 2131 table 3: a refusal has no parameters");
    }
}

// --- The exchanges of RFC 2131 -------------------------------------------------------------------

#[test]
fn discover_is_offered_the_guest_s_address_with_every_option() {
    for client in [Client::says(DISCOVER), Client::says(DISCOVER).asks_for(OTHER)] {
        let offer = client.answer();
        offer.is_lease(OFFER, NOBODY);
        assert_eq!(offer.destination, GUEST);
        assert_eq!(offer.find(80), None);
    }
}

#[test]
fn discover_with_rapid_commit_is_acknowledged_at_once() {
    let client = Client { flags: 0x8000, ..Client::says(DISCOVER).with(80, &[]) };
    let ack = client.answer();
    ack.is_lease(ACK, NOBODY);
    assert_eq!(ack.option(80), [0_u8; 0]);
    assert_eq!(ack.destination, Ipv4Addr::BROADCAST);
    assert!(ack.bytes.len() <= 548, "libkrun's client has 576 bytes for the datagram");
    // Not asked for: no commitment that the client has not agreed to.
    assert_eq!(Client::says(DISCOVER).with(80, &[1]).answer().kind(), OFFER);
}

#[test]
fn selecting_request_for_the_offer_is_acknowledged() {
    let ack = Client::says(REQUEST).chooses(GATEWAY).asks_for(GUEST).answer();
    ack.is_lease(ACK, NOBODY);
    assert_eq!(ack.destination, GUEST);
    // To rapid commit there is a DISCOVER: an acknowledgement of a REQUEST does not have the option.
    let ack = Client::says(REQUEST).chooses(GATEWAY).asks_for(GUEST).with(80, &[]).answer();
    assert_eq!(ack.find(80), None);
}

#[test]
fn selecting_request_for_another_address_is_refused() {
    Client::says(REQUEST).chooses(GATEWAY).asks_for(OTHER).answer().is_nak();
    // QEMU 90d7416a: an assertion failed.
    Client::says(REQUEST).chooses(GATEWAY).asks_for(Ipv4Addr::BROADCAST).answer().is_nak();
    Client::says(REQUEST).chooses(GATEWAY).asks_for(NOBODY).answer().is_nak();
}

#[test]
fn request_to_another_server_is_met_with_silence() {
    for address in [GUEST, OTHER] {
        let client = Client::says(REQUEST).chooses(OTHER).asks_for(address);
        assert_eq!(client.heard(), Ok(None));
    }
}

#[test]
fn init_reboot_with_the_right_address_is_acknowledged() {
    let ack = Client::says(REQUEST).asks_for(GUEST).answer();
    ack.is_lease(ACK, NOBODY);
    assert_eq!(ack.destination, GUEST);
}

#[test]
fn init_reboot_with_a_wrong_address_is_refused_to_all() {
    Client::says(REQUEST).asks_for(OTHER).answer().is_nak();
    Client::says(REQUEST).asks_for(GATEWAY).answer().is_nak();
}

#[test]
fn renewing_and_rebinding_are_acknowledged_to_the_address_held() {
    for flags in [0, 0x8000] {
        let ack = Client { flags, ..Client::says(REQUEST).has(GUEST) }.answer();
        ack.is_lease(ACK, GUEST);
        assert_eq!(ack.destination, GUEST, "ciaddr comes before the broadcast flag");
    }
}

#[test]
fn rebinding_the_lease_of_another_network_is_refused_to_all() {
    Client::says(REQUEST).has(OTHER).answer().is_nak();
}

#[test]
fn nothing_else_comes_from_another_address() {
    let rebinding = Client::says(REQUEST).has(OTHER);
    let from = |client: &Client, source| server().handle(&link(), &client.bytes(), source);
    for (client, source) in [
        (&rebinding, Ipv4Addr::new(192, 168, 1, 78)),
        (&Client::says(REQUEST).has(OTHER).asks_for(OTHER), OTHER),
        (&Client::says(REQUEST).has(OTHER).chooses(GATEWAY), OTHER),
        (&Client::says(DISCOVER), OTHER),
        (&Client::says(DISCOVER).has(OTHER), OTHER),
        (&Client::says(INFORM).has(OTHER), OTHER),
        (&Client::says(INFORM).has(GUEST), OTHER),
        (&Client::says(RELEASE).has(OTHER), OTHER),
    ] {
        assert_eq!(from(client, source), Err(DropReason::SourceAddress), "{client:?}");
    }
    assert!(from(&rebinding, NOBODY).is_ok_and(|reply| reply.is_some()));
}

#[test]
fn request_for_no_address_is_dropped() {
    assert_eq!(Client::says(REQUEST).heard(), Err(DropReason::Dhcp));
    assert_eq!(Client::says(REQUEST).chooses(GATEWAY).heard(), Err(DropReason::Dhcp));
}

#[test]
fn request_that_contradicts_itself_is_refused() {
    Client::says(REQUEST).has(GUEST).asks_for(OTHER).answer().is_nak();
}

#[test]
fn inform_gets_parameters_but_neither_address_nor_lease() {
    // Some clients leave ciaddr empty.
    for (client, source) in [(GUEST, GUEST), (NOBODY, GUEST), (GUEST, NOBODY)] {
        let message = Client { flags: 0x8000, ..Client::says(INFORM).has(client) };
        let ack = Answer::of(server().handle(&link(), &message.bytes(), source).unwrap().unwrap());
        assert_eq!((ack.kind(), ack.yiaddr(), ack.ciaddr()), (ACK, NOBODY, client));
        assert_eq!(ack.destination, GUEST, "RFC 2131 section 4.3.5: unicast to ciaddr");
        for absent in [51, 58, 59, 80] {
            assert_eq!(ack.find(absent), None, "option {absent}");
        }
        assert_eq!(ack.option(1), [255, 255, 255, 252]);
        assert_eq!((ack.option(3), ack.option(6)), (&GATEWAY.octets()[..], &GATEWAY.octets()[..]));
        assert_eq!(ack.option(26), [0x05, 0xdc]);
    }
    let of_another = server().handle(&link(), &Client::says(INFORM).has(OTHER).bytes(), GUEST);
    assert_eq!(of_another, Err(DropReason::Dhcp));
    assert_eq!(Client::says(INFORM).heard(), Err(DropReason::Dhcp), "an answer to nowhere");
}

#[test]
fn decline_and_release_are_taken_in_silence_and_change_nothing() {
    let server = server();
    for client in [
        Client::says(DECLINE).chooses(GATEWAY).asks_for(GUEST),
        Client::says(RELEASE).chooses(GATEWAY).has(GUEST),
    ] {
        assert_eq!(server.handle(&link(), &client.bytes(), client.ciaddr), Ok(None));
        let offer = server.handle(&link(), &Client::says(DISCOVER).bytes(), NOBODY).unwrap();
        Answer::of(offer.unwrap()).is_lease(OFFER, NOBODY);
    }
}

#[test]
fn what_servers_say_and_unknown_types_are_dropped() {
    for kind in [0, OFFER, ACK, NAK, 9, 13, 18, 255] {
        assert_eq!(Client::says(kind).heard(), Err(DropReason::Dhcp), "type {kind}");
    }
}

// --- The fields of the header --------------------------------------------------------------------

#[test]
fn the_broadcast_flag_decides_where_a_reply_goes_and_is_echoed() {
    for message in [Client::says(DISCOVER), Client::says(REQUEST).asks_for(GUEST)] {
        for (flags, destination) in [
            (0, GUEST),
            (0x7fff, GUEST),
            (0x8000, Ipv4Addr::BROADCAST),
            (0xffff, Ipv4Addr::BROADCAST),
        ] {
            let answer = Client { flags, ..message.clone() }.answer();
            assert_eq!(answer.destination, destination, "flags {flags:#06x}");
            let echoed = (flags & 0x8000_u16).to_be_bytes();
            assert_eq!(answer.bytes[10..12], echoed, "the other bits must be zero");
        }
    }
}

#[test]
fn another_hardware_address_than_the_guest_s_is_refused() {
    for at in 28..34 {
        for kind in [DISCOVER, REQUEST, INFORM, RELEASE] {
            let mut bytes = Client::says(kind).asks_for(GUEST).bytes();
            bytes[at] ^= 1;
            assert_eq!(server().handle(&link(), &bytes, NOBODY), Err(DropReason::DhcpClient));
        }
    }
}

#[test]
fn hardware_that_is_not_ethernet_is_dropped() {
    for (at, values) in [(2, &[0, 1, 5, 7, 16, 255][..]), (1, &[0, 2, 6, 255][..])] {
        for value in values {
            let mut bytes = Client::says(DISCOVER).bytes();
            bytes[at] = *value;
            assert_eq!(
                server().handle(&link(), &bytes, NOBODY),
                Err(DropReason::Dhcp),
                "{at}: {value}"
            );
        }
    }
}

#[test]
fn a_reply_a_relayed_message_and_a_wrong_cookie_are_dropped() {
    for at in [0, 24, 27, 236, 237, 238, 239] {
        let mut bytes = Client::says(DISCOVER).bytes();
        bytes[at] ^= 3;
        assert_eq!(server().handle(&link(), &bytes, NOBODY), Err(DropReason::Dhcp), "byte {at}");
    }
}

// --- Options -------------------------------------------------------------------------------------

#[test]
fn the_client_identifier_is_echoed_in_every_reply() {
    // RFC 6842 section 3.
    for length in [1, 2, 7, 19, 253, 254, 255] {
        let identifier: Vec<u8> = (0..length).collect();
        for (message, kind) in [
            (Client::says(DISCOVER), OFFER),
            (Client::says(REQUEST).asks_for(GUEST), ACK),
            (Client::says(REQUEST).asks_for(OTHER), NAK),
            (Client::says(INFORM).has(GUEST), ACK),
        ] {
            let answer = message.with(61, &identifier).answer();
            assert_eq!((answer.kind(), answer.option(61)), (kind, &identifier[..]));
        }
    }
    assert_eq!(Client::says(DISCOVER).answer().find(61), None);
    assert_eq!(Client::says(DISCOVER).with(61, &[]).answer().find(61), None);
}

#[test]
fn the_longest_identifier_still_leaves_room_for_a_whole_lease() {
    for (length, kind) in [(254, ACK), (255, OFFER)] {
        let client = Client::says(DISCOVER).with(80, &[]).with(61, &vec![7; length]);
        let answer = client.answer();
        answer.is_lease(kind, NOBODY);
        assert!(answer.bytes.len() <= 548);
    }
    let client = Client::says(REQUEST).with(61, &[7; 255]).asks_for(GUEST);
    client.answer().is_lease(ACK, NOBODY);
}

#[test]
fn no_reply_is_larger_than_the_client_takes() {
    let resolvers = (1..=200).map(|last| Ipv4Addr::new(10, 0, 0, last)).collect();
    let server = DhcpServer::new(resolvers, DAY);
    for (maximum, most) in [(0, 576), (100, 576), (575, 576), (600, 600), (65_535, 1280)] {
        for identifier in [2, 100, 255] {
            let client = Client::says(REQUEST)
                .asks_for(GUEST)
                .with(57, &u16::to_be_bytes(maximum))
                .with(61, &vec![7; identifier]);
            let reply = server.handle(&link(), &client.bytes(), NOBODY).unwrap().unwrap();
            let answer = Answer::of(reply);
            assert!(answer.bytes.len() + 28 <= most, "{maximum}: {}", answer.bytes.len());
            let resolvers = answer.find(6).map_or(0, <[u8]>::len) / 4;
            assert!((1..=63).contains(&resolvers), "{maximum}: an option has 255 bytes");
        }
    }
}

#[test]
fn a_server_without_resolvers_names_none() {
    let server = DhcpServer::new(vec![], DAY);
    let reply = server.handle(&link(), &Client::says(DISCOVER).bytes(), NOBODY).unwrap().unwrap();
    assert_eq!(Answer::of(reply).find(6), None, "RFC 2132 section 3.8: not less than 4 bytes");
}

#[test]
fn renewal_comes_before_rebinding_before_the_end_for_any_lease() {
    for lease in [0, 1, 59, 60, 61, 3600, 86_400, 0x7fff_ffff, 0xffff_ffff, u64::MAX] {
        let server = DhcpServer::new(vec![GATEWAY], Duration::from_secs(lease));
        let reply =
            server.handle(&link(), &Client::says(DISCOVER).bytes(), NOBODY).unwrap().unwrap();
        let answer = Answer::of(reply);
        let (t1, t2, end) = (answer.seconds(58), answer.seconds(59), answer.seconds(51));
        assert!(30 <= t1 && t1 < t2 && t2 < end && end < u32::MAX, "{lease}: {t1} {t2} {end}");
        assert_eq!(u64::from(end), lease.clamp(60, 0xffff_fffe));
    }
}

#[test]
fn the_link_s_own_values_are_told() {
    let builder = Builder::default()
        .guest_ipv4([10, 1, 2, 3].into(), 12)
        .gateway_ipv4([10, 1, 0, 1].into())
        .mtu(65_520);
    let server = DhcpServer::new(vec![[10, 1, 0, 1].into()], DAY);
    let link = link_of(builder, true);
    let reply = server.handle(&link, &Client::says(DISCOVER).bytes(), NOBODY).unwrap().unwrap();
    assert_eq!(reply.destination, Ipv4Addr::new(10, 1, 2, 3));
    let packet = DhcpPacket::new_checked(&reply.payload[..]).unwrap();
    assert_eq!(packet.your_ip(), reply.destination);
    let option = |kind| packet.options().find(|option| option.kind == kind).unwrap().data.to_vec();
    assert_eq!(option(1), [255, 240, 0, 0]);
    assert_eq!(option(3), [10, 1, 0, 1]);
    assert_eq!(option(54), [10, 1, 0, 1]);
    assert_eq!(option(26), [0xff, 0xf0]);
}

#[test]
fn overloaded_fields_hold_options() {
    let requested = [&[50, 4][..], &GUEST.octets(), &[255]].concat();
    let chosen = [&[54, 4][..], &OTHER.octets(), &[255]].concat();
    let client = |overload| Client {
        file: requested.clone(),
        sname: chosen.clone(),
        ..Client::says(REQUEST).with(52, &[overload])
    };
    assert_eq!(client(1).answer().kind(), ACK, "the file has the address");
    assert_eq!(client(2).heard(), Ok(None), "sname has another server");
    assert_eq!(client(3).heard(), Ok(None), "both");
    for neither in [0, 4, 252] {
        assert_eq!(client(neither).heard(), Err(DropReason::Dhcp), "{neither}: no address");
    }
    // An option that runs over the end of its field, and an overload within an overload.
    for file in [[50, 200].repeat(64), [52, 1, 3].repeat(42), vec![0; 128], vec![61; 128]] {
        let client = Client { file, ..Client::says(DISCOVER).with(52, &[3]) };
        assert_eq!(client.answer().kind(), OFFER);
    }
}

#[test]
fn a_missing_end_padding_and_trailing_bytes_are_tolerated() {
    let whole = Client::says(REQUEST).asks_for(GUEST);
    let unended = Client { end: false, ..whole.clone() };
    assert_eq!(unended.answer().kind(), ACK);
    let mut padded = Client::says(REQUEST);
    padded.options.extend_from_slice(&[0; 40]);
    assert_eq!(padded.asks_for(GUEST).answer().kind(), ACK);
    let trailing = [&whole.bytes()[..], &[50, 4, 1, 2, 3, 4, 99]].concat();
    let reply = server().handle(&link(), &trailing, NOBODY).unwrap().unwrap();
    assert_eq!(Answer::of(reply).kind(), ACK, "what comes after the end is nothing");
}

#[test]
fn of_an_option_that_comes_twice_the_first_counts() {
    let ack = Client::says(REQUEST).asks_for(GUEST).asks_for(OTHER).with(53, &[RELEASE]).answer();
    assert_eq!(ack.kind(), ACK);
}

#[test]
fn options_of_a_wrong_length_are_as_good_as_absent() {
    for length in [0, 1, 3, 5, 255] {
        let client = Client::says(REQUEST).with(50, &vec![1; length]).with(54, &vec![1; length]);
        assert_eq!(client.heard(), Err(DropReason::Dhcp), "{length}");
    }
    for length in [0, 2, 200] {
        let mut client = Client::says(DISCOVER);
        client.options.clear();
        assert_eq!(client.with(53, &vec![DISCOVER; length]).heard(), Err(DropReason::Dhcp));
    }
}

// --- Hostile bytes -------------------------------------------------------------------------------

/// A message with everything in it.
fn full(kind: u8) -> Client {
    Client::says(kind)
        .with(61, &[1, 2, 83, 77, 0, 0, 2])
        .with(55, &[1, 3, 6, 26, 51, 58, 59, 121])
        .with(57, &[2, 64])
        .with(12, b"guest")
        .asks_for(GUEST)
        .with(60, b"udhcp 1.36")
        .with(80, &[])
        .with(52, &[3])
}

#[test]
fn bootp_of_every_length_is_survived() {
    // CVE-2021-3592: a message shorter than its header was answered with what lay behind it.
    for fill in [0, 1, 0xff] {
        for length in 0..=300 {
            let mut bytes = vec![fill; length];
            assert!(server().handle(&link(), &bytes, NOBODY).is_err(), "{length} × {fill}");
            for (to, from) in bytes.iter_mut().zip(Client::says(DISCOVER).bytes()) {
                *to = from;
            }
            let heard = server().handle(&link(), &bytes, NOBODY);
            match length {
                ..240 => assert_eq!(heard, Err(DropReason::Malformed), "{length}"),
                240..243 => assert_eq!(heard, Err(DropReason::Dhcp), "{length}: no type"),
                _ => Answer::of(heard.unwrap().unwrap()).is_lease(OFFER, NOBODY),
            }
        }
    }
}

#[test]
fn options_cut_at_each_byte_are_survived() {
    for kind in [DISCOVER, REQUEST, INFORM] {
        let bytes = full(kind).bytes();
        for length in 0..bytes.len() {
            match server().handle(&link(), &bytes[..length], GUEST) {
                Ok(reply) => _ = Answer::of(reply.unwrap()),
                Err(reason) => {
                    assert!(matches!(reason, DropReason::Malformed | DropReason::Dhcp));
                }
            }
        }
    }
}

/// Whatever came in: a reply is the guest's own lease, or a refusal of it, and it fits.
fn check(bytes: &[u8], source: Ipv4Addr) {
    let Ok(Some(reply)) = server().handle(&link(), bytes, source) else { return };
    assert!([GUEST, Ipv4Addr::BROADCAST].contains(&reply.destination));
    assert!((300..=1280 - 28).contains(&reply.payload.len()));
    let packet = DhcpPacket::new_checked(&reply.payload[..]).unwrap();
    assert!(packet.your_ip() == GUEST || packet.your_ip().is_unspecified());
    assert_eq!(packet.client_hardware_address(), EthernetAddress(GUEST_MAC));
    assert_eq!(packet.transaction_id().to_be_bytes(), bytes[4..8]);
    assert!(packet.options().any(|option| option.kind == 54), "the end is in its place");
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..800)) {
        check(&bytes, NOBODY);
    }

    #[test]
    fn any_options_are_survived(
        options in prop::collection::vec(any::<u8>(), 0..600),
        sname in prop::collection::vec(any::<u8>(), 64),
        file in prop::collection::vec(any::<u8>(), 128),
        kind in 0..10_u8,
        overload in 0..4_u8,
    ) {
        let mut client = Client { sname, file, ..Client::says(kind).with(52, &[overload]) };
        client.options.extend_from_slice(&options);
        check(&client.bytes(), NOBODY);
        check(&client.has(GUEST).bytes(), GUEST);
    }

    #[test]
    fn any_changed_bytes_are_survived(
        kind in 1..9_u8,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        source in prop::sample::select(vec![NOBODY, GUEST, OTHER]),
    ) {
        let mut bytes = full(kind).bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check(&bytes, source);
    }
}

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, Icmpv6Packet, Icmpv6Repr, Ipv6Packet, NdiscNeighborFlags, NdiscRepr,
};

use super::*;
use crate::config::{Builder, Dns};
use crate::gateway::testing::{
    GATEWAY_MAC, GATEWAY_V6, GUEST_MAC, GUEST_V6, LINK_LOCAL, link, link_of,
};

const GUEST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x53, 0x4dff, 0xfe00, 2);
const NOBODY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fn at(seconds: i64) -> Instant {
    Instant::from_secs(seconds)
}

/// Is there a router? Asked from `source`; with the guest's link-layer address if `names_itself`.
fn solicitation(source: Ipv6Addr, names_itself: bool) -> Solicitation<'static> {
    let lladdr = names_itself.then(|| EthernetAddress(GUEST_MAC).into());
    let message = NdiscRepr::RouterSolicit { lladdr };
    Solicitation { message, source, destination: ALL_ROUTERS, hop_limit: 255 }
}

impl Router {
    #[track_caller]
    fn heard(&mut self, source: Ipv6Addr, now: Instant) -> Option<Advertised> {
        let names_itself = !source.is_unspecified();
        let solicitation = solicitation(source, names_itself);
        self.solicited(vec![7; 3], &link(), &solicitation, now).unwrap().map(Advertised::of)
    }

    fn due(&mut self, now: Instant) -> Option<Advertised> {
        self.expired(vec![], &link(), now).map(Advertised::of)
    }
}

/// What an advertisement says, taken apart without the code under test.
#[derive(Debug, PartialEq, Eq)]
struct Advertised {
    to: Ipv6Addr,
    flags: u8,
    route: u16,
    /// By type, without type and length.
    options: Vec<(u8, Vec<u8>)>,
}

impl Advertised {
    #[track_caller]
    fn of(frame: Vec<u8>) -> Self {
        assert_eq!(frame[..14], [&GUEST_MAC[..], &GATEWAY_MAC, &[0x86, 0xdd]].concat());
        let ip = Ipv6Packet::new_checked(&frame[14..]).unwrap();
        assert_eq!(ip.total_len(), frame.len() - 14);
        assert_eq!((ip.src_addr(), ip.hop_limit()), (LINK_LOCAL, 255), "RFC 4861 section 6.1.2");
        let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
        let body = ip.payload();
        assert_eq!((body[0], body[1], body[4]), (134, 0, 64), "type, code, hop limit");
        assert_eq!(body[8..16], [0; 8], "reachable and retransmission time are not specified");
        let (mut options, mut rest) = (Vec::new(), &body[16..]);
        while let [kind, length, ..] = *rest {
            let (option, others) = rest.split_at(usize::from(length) * 8);
            options.push((kind, option[2..].to_vec()));
            rest = others;
        }
        let route = u16::from_be_bytes([body[6], body[7]]);
        Self { to: ip.dst_addr(), flags: body[5], route, options }
    }

    #[track_caller]
    fn option(&self, kind: u8) -> &[u8] {
        let mut found = self.options.iter().filter(|(k, _)| *k == kind);
        let option = found.next().unwrap_or_else(|| panic!("no option {kind}: {self:?}"));
        assert!(found.next().is_none(), "one option of each kind");
        &option.1
    }

    /// The lifetime of the resolver, in seconds.
    fn resolver(&self) -> u32 {
        u32::from_be_bytes(self.option(25)[2..6].try_into().unwrap())
    }
}

// --- What an advertisement says ------------------------------------------------------------------

#[test]
fn an_advertisement_names_router_prefix_mtu_and_resolver() {
    let advertised = Router::new(true).heard(GUEST_LINK_LOCAL, at(0)).unwrap();
    assert_eq!((advertised.flags, advertised.route), (0, 9000), "no DHCPv6");
    assert_eq!(advertised.options.len(), 4);
    assert_eq!(advertised.option(1), GATEWAY_MAC);
    assert_eq!(advertised.option(5), [0, 0, 0, 0, 0x05, 0xdc]);
    let prefix = advertised.option(3);
    assert_eq!(prefix[..2], [64, 0xc0], "on-link, and addresses may be made of it");
    assert_eq!(prefix[2..6], 2_592_000_u32.to_be_bytes());
    assert_eq!(prefix[6..10], 604_800_u32.to_be_bytes());
    assert_eq!(prefix[10..14], [0; 4]);
    assert_eq!(prefix[14..], Ipv6Addr::new(0xfd53, 0x4d00, 0, 0, 0, 0, 0, 0).octets());
    let resolver = advertised.option(25);
    assert_eq!(resolver[..2], [0, 0]);
    assert_eq!(resolver[6..], GATEWAY_V6.octets());
}

#[test]
fn a_gateway_without_resolver_names_none() {
    let link = link_of(Builder::default().dns(Dns::Off), true);
    let solicitation = solicitation(GUEST_LINK_LOCAL, true);
    let frame = Router::new(true).solicited(vec![], &link, &solicitation, at(0));
    let advertised = Advertised::of(frame.unwrap().unwrap());
    let kinds: Vec<u8> = advertised.options.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [1, 5, 3]);
}

#[test]
fn addresses_are_made_of_prefixes_of_64_bits_alone() {
    for (prefix, flags) in [(48, 0x80), (63, 0x80), (64, 0xc0), (65, 0x80), (126, 0x80)] {
        let link = link_of(Builder::default().guest_ipv6(GUEST_V6, prefix), true);
        let solicitation = solicitation(GUEST_LINK_LOCAL, true);
        let frame = Router::new(true).solicited(vec![], &link, &solicitation, at(0));
        let advertised = Advertised::of(frame.unwrap().unwrap());
        assert_eq!(advertised.option(3)[..2], [prefix, flags]);
    }
}

#[test]
fn a_host_without_a_route_offers_none_but_its_prefix_and_resolver() {
    let advertised = Router::new(false).heard(GUEST_LINK_LOCAL, at(0)).unwrap();
    assert_eq!((advertised.flags, advertised.route), (0, 0));
    assert_eq!(advertised.resolver(), 9000);
    assert_eq!(advertised.option(3)[1], 0xc0);
}

#[test]
fn lifetimes_outlast_several_intervals() {
    let advertised = Router::new(true).heard(GUEST_LINK_LOCAL, at(0)).unwrap();
    let interval = INTERVAL.secs();
    assert!((4..=1800).contains(&interval), "RFC 4861 section 6.2.1");
    assert!((interval..=9000).contains(&advertised.route.into()), "RFC 4861 section 6.2.1");
    assert!(u64::from(advertised.resolver()) >= 3 * interval, "RFC 8106 section 5.1");
}

#[test]
fn a_jumbo_link_tells_its_mtu() {
    let builder = Builder::default().mtu(65_520);
    let solicitation = solicitation(GUEST_LINK_LOCAL, true);
    let frame = Router::new(true).solicited(vec![], &link_of(builder, true), &solicitation, at(0));
    let advertised = Advertised::of(frame.unwrap().unwrap());
    assert_eq!(advertised.option(5), [0, 0, 0, 0, 0xff, 0xf0]);
}

// --- RFC 4861 section 6.1.1 ----------------------------------------------------------------------

/// The reason why nothing is said, and nothing is started either.
#[track_caller]
fn dropped(solicitation: &Solicitation<'_>) {
    let mut router = Router::new(true);
    let refused = router.solicited(vec![], &link(), solicitation, at(0));
    assert_eq!(refused, Err(DropReason::Ndp), "{solicitation:?}");
    assert_eq!(router.next_deadline(), None);
}

#[test]
fn a_solicitation_with_another_hop_limit_is_dropped() {
    for hop_limit in [0, 1, 64, 254] {
        dropped(&Solicitation { hop_limit, ..solicitation(GUEST_LINK_LOCAL, true) });
    }
}

#[test]
fn a_solicitor_without_address_that_names_its_link_layer_address_is_dropped() {
    dropped(&solicitation(NOBODY, true));
}

#[test]
fn a_solicitation_to_others_than_routers_is_dropped() {
    for destination in ["ff02::16", "ff05::2", "fd53:4d00::9", "fe80::9"] {
        let destination = destination.parse().unwrap();
        dropped(&Solicitation { destination, ..solicitation(GUEST_LINK_LOCAL, true) });
    }
    for destination in [ALL_ROUTERS, LINK_LOCAL, GATEWAY_V6] {
        let asked = Solicitation { destination, ..solicitation(GUEST_LINK_LOCAL, true) };
        let answer = Router::new(true).solicited(vec![], &link(), &asked, at(0));
        assert!(answer.is_ok_and(|frame| frame.is_some()));
    }
}

#[test]
fn other_neighbour_messages_are_dropped() {
    let message = NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE,
        target_addr: GATEWAY_V6,
        lladdr: None,
    };
    dropped(&Solicitation { message, ..solicitation(GUEST_LINK_LOCAL, true) });
}

// --- When an advertisement is sent ---------------------------------------------------------------

#[test]
fn nothing_is_sent_before_the_guest_has_solicited() {
    let mut router = Router::new(true);
    router.set_default_route(false, at(1));
    assert_eq!((router.next_deadline(), router.due(at(1_000_000))), (None, None));
    assert_eq!(router.farewell(vec![], &link()), None);
}

#[test]
fn a_solicitor_is_answered_at_once_and_alone() {
    let mut router = Router::new(true);
    for (seconds, source) in [(0, GUEST_LINK_LOCAL), (0, GUEST_V6), (1, GUEST_LINK_LOCAL)] {
        assert_eq!(router.heard(source, at(seconds)).unwrap().to, source);
    }
    // It need not say where it is: that is known.
    let answer = router.solicited(vec![], &link(), &solicitation(GUEST_V6, false), at(2));
    assert!(answer.is_ok_and(|frame| frame.is_some()));
}

#[test]
fn a_solicitor_without_address_is_answered_to_all_no_oftener_than_in_three_seconds() {
    let mut router = Router::new(true);
    assert_eq!(router.heard(NOBODY, at(10)).unwrap().to, ALL_NODES);
    for now in [10, 11, 12] {
        assert_eq!(router.heard(NOBODY, at(now)), None);
        assert_eq!((router.next_deadline(), router.due(at(now))), (Some(at(13)), None));
    }
    assert_eq!(router.heard(GUEST_LINK_LOCAL, at(12)).unwrap().to, GUEST_LINK_LOCAL);
    assert_eq!(router.due(at(13)).unwrap().to, ALL_NODES);
    assert_eq!(router.next_deadline(), Some(at(13) + INTERVAL));
    assert_eq!(router.heard(NOBODY, at(16)).unwrap().to, ALL_NODES);
}

#[test]
fn a_guest_that_has_solicited_hears_the_router_from_time_to_time() {
    let mut router = Router::new(true);
    router.heard(GUEST_LINK_LOCAL, at(100)).unwrap();
    let mut due = at(100) + INTERVAL;
    for _ in 0..5 {
        assert_eq!(router.next_deadline(), Some(due));
        assert_eq!(router.due(due - Duration::from_micros(1)), None);
        let advertised = router.due(due).unwrap();
        assert_eq!((advertised.to, advertised.route), (ALL_NODES, 9000));
        due += INTERVAL;
    }
    // The machine was suspended: one advertisement, not one for each interval missed.
    let later = due + INTERVAL * 50;
    assert!(router.due(later).is_some());
    assert_eq!((router.due(later), router.next_deadline()), (None, Some(later + INTERVAL)));
}

#[test]
fn a_change_of_the_host_s_route_is_told_at_once() {
    let mut router = Router::new(true);
    router.heard(GUEST_LINK_LOCAL, at(0)).unwrap();
    router.set_default_route(true, at(5));
    assert_eq!(router.next_deadline(), Some(at(0) + INTERVAL), "that is no news");
    router.set_default_route(false, at(6));
    assert_eq!(router.due(at(6)).unwrap().route, 0);
    // And back, as soon as section 6.2.6 allows.
    router.set_default_route(true, at(7));
    assert_eq!((router.due(at(7)), router.next_deadline()), (None, Some(at(9))));
    assert_eq!(router.due(at(9)).unwrap().route, 9000);
}

#[test]
fn at_the_end_the_route_and_the_resolver_are_withdrawn() {
    let mut router = Router::new(true);
    router.heard(GUEST_LINK_LOCAL, at(0)).unwrap();
    let last = Advertised::of(router.farewell(vec![], &link()).unwrap());
    assert_eq!((last.to, last.route, last.resolver()), (ALL_NODES, 0, 0));
    assert_eq!((router.next_deadline(), router.farewell(vec![], &link())), (None, None));
}

// --- Through the parser --------------------------------------------------------------------------

/// The body of a message with this type and options, with a right checksum, as the gateway parses it.
fn parsed(kind: u8, options: &[u8]) -> Option<bool> {
    let mut body = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], options].concat();
    if kind == 135 {
        body.splice(8..8, GATEWAY_V6.octets());
    }
    let mut packet = Icmpv6Packet::new_unchecked(&mut body[..]);
    packet.fill_checksum(&GUEST_LINK_LOCAL, &ALL_ROUTERS);
    let packet = Icmpv6Packet::new_checked(&body[..]).ok()?;
    let caps = ChecksumCapabilities::default();
    let repr = Icmpv6Repr::parse(&GUEST_LINK_LOCAL, &ALL_ROUTERS, &packet, &caps).ok()?;
    let Icmpv6Repr::Ndisc(message) = repr else { return None };
    Some(match message {
        NdiscRepr::RouterSolicit { lladdr } | NdiscRepr::NeighborSolicit { lladdr, .. } => {
            lladdr.is_some()
        }
        other => panic!("{other:?}"),
    })
}

#[test]
fn an_option_without_length_drops_the_solicitation() {
    let source = [&[1, 1][..], &GUEST_MAC].concat();
    for kind in [133, 135] {
        assert_eq!(parsed(kind, &source), Some(true));
        for of in [0, 1, 2, 3, 4, 5, 14, 25, 255] {
            let empty = [of, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(parsed(kind, &empty), None, "option {of}");
            assert_eq!(parsed(kind, &[&source[..], &empty].concat()), None, "after another");
            assert_eq!(parsed(kind, &[&empty[..], &source].concat()), None, "before another");
        }
    }
}

#[test]
fn an_unknown_option_is_skipped_and_one_cut_short_drops_the_solicitation() {
    let source = [&[1, 1][..], &GUEST_MAC].concat();
    let unknown = [&[14, 2][..], &[0xaa; 14]].concat();
    for kind in [133, 135] {
        assert_eq!(parsed(kind, &[&unknown[..], &source].concat()), Some(true));
        assert_eq!(parsed(kind, &unknown), Some(false));
        for cut in 1..unknown.len() {
            assert_eq!(parsed(kind, &unknown[..cut]), None, "{cut} bytes of an option");
        }
    }
}

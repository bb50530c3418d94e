use super::*;
use crate::config::Builder;
use crate::gateway::testing::{GATEWAY, GATEWAY_V6, LINK_LOCAL, link, link_of};
use crate::policy::Policy;

fn egress(policy: &Policy) -> Egress {
    let hub = EventHub::new();
    Egress::without_host(Compiled::new(policy).unwrap(), &hub, Arc::default())
}

fn policy(default: Action, rules: &[&str]) -> Policy {
    rules.iter().fold(Policy::new(default), |policy, rule| policy.rule(rule.parse().unwrap()))
}

fn decide(remote: SocketAddr, link: &Link) -> Decision {
    Egress::default().decide(Protocol::Tcp, remote, link, Instant::ZERO)
}

fn decision(link: &Link, address: &str) -> Decision {
    decide(SocketAddr::new(address.parse().unwrap(), 80), link)
}

/// The 32 bits of an IPv4 address in IPv6 notation.
fn halves(address: &str) -> (u16, u16) {
    let [a, b, c, d] = address.parse::<Ipv4Addr>().unwrap().octets();
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// Every IPv6 form that carries an IPv4 address.
fn disguises(address: &str) -> Vec<Ipv6Addr> {
    let (high, low) = halves(address);
    let [a, b, c, d] = address.parse::<Ipv4Addr>().unwrap().octets();
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    vec![
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low), // mapped
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),      // compatible
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low), // NAT64
        Ipv6Addr::new(0x64, 0xff9b, 1, high, word(0, c), word(d, 0), 0, 0), // its local prefix, /48
        Ipv6Addr::new(0x64, 0xff9b, 1, word(9, a), word(0, b), word(c, d), 0, 0), // /56
        Ipv6Addr::new(0x64, 0xff9b, 1, 0x0909, word(0, a), word(b, c), word(d, 0), 0), // /64
        Ipv6Addr::new(0x64, 0xff9b, 1, 0x0909, 9, 0x0909, high, low), // /96
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low), // translated
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1), // 6to4
        Ipv6Addr::new(0x2002, high, low, 0xffff, 1, 2, 3, 4),
        Ipv6Addr::new(0x2001, 0, 0x0909, 0x0909, 0, 0, !high, !low), // Teredo: the client
        Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !0x0909, !0x0909), // the server
        Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0x5efe, high, low),    // ISATAP
        Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0x200, 0x5efe, high, low),
    ]
}

/// Addresses of metadata services, in one table for all tests.
fn metadata() -> impl Iterator<Item = &'static str> {
    include_str!("../../../tests/support_guest/metadata.txt")
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| *word != "#")
}

#[test]
fn the_gateway_is_refused_without_host_loopback() {
    let link = link();
    for address in [GATEWAY.to_string(), GATEWAY_V6.to_string(), LINK_LOCAL.to_string()] {
        assert_eq!(decision(&link, &address), Decision::Refuse, "{address}");
    }
}

#[test]
fn the_gateway_is_the_host_s_loopback_where_that_is_allowed() {
    let link = link_of(Builder::default().host_loopback(true), true);
    let connect = |text: &str| Decision::Connect(text.parse().unwrap());
    assert_eq!(decision(&link, &GATEWAY.to_string()), connect("127.0.0.1:80"));
    assert_eq!(decision(&link, &GATEWAY_V6.to_string()), connect("[::1]:80"));
    assert_eq!(decision(&link, &LINK_LOCAL.to_string()), connect("[::1]:80"));
}

#[test]
fn metadata_is_denied_in_every_form() {
    assert!(metadata().count() > 20);
    for loopback in [false, true] {
        let link = link_of(Builder::default().host_loopback(loopback), true);
        for address in metadata() {
            assert_eq!(decision(&link, address), Decision::Deny, "{address}");
            if !address.contains(':') {
                for disguise in disguises(address) {
                    assert_eq!(
                        decision(&link, &disguise.to_string()),
                        Decision::Deny,
                        "{disguise}"
                    );
                }
            }
        }
    }
}

#[test]
fn no_rule_opens_the_floor_and_each_part_has_its_switch() {
    let open = policy(Action::Allow, &["allow *", "allow 169.254.0.0/16", "allow fd00::/8"]);
    let link = link();
    let ask = |policy: &Policy, address: &str| {
        let to = SocketAddr::new(address.parse().unwrap(), 80);
        let mut egress = egress(policy);
        let decision = egress.decide(Protocol::Tcp, to, &link, Instant::ZERO);
        (decision, egress.counters.snapshot())
    };
    for address in metadata() {
        let (decision, stats) = ask(&open, address);
        assert_eq!(decision, Decision::Deny, "{address}");
        assert_eq!((stats.policy_denied, stats.denied_metadata), (1, 1), "{address}");
        let to = SocketAddr::new(address.parse().unwrap(), 80);
        let with_switch = open.clone().metadata(true);
        assert_eq!(ask(&with_switch, address).0, Decision::Connect(to), "{address}");
        let and_a_rule = policy(Action::Deny, &[]).metadata(true);
        assert_eq!(ask(&and_a_rule, address).0, Decision::Deny, "{address}");
    }
    for address in ["::ffff:127.0.0.1", "64:ff9b::7f00:1", "::ffff:169.254.169.254"] {
        let all = open.clone().metadata(true).host_addresses(true);
        assert_eq!(ask(&all, address).0, Decision::Deny, "{address}");
    }
    let (refused, stats) = ask(&open, &GATEWAY.to_string());
    assert_eq!(refused, Decision::Refuse);
    assert_eq!(stats.denied_host_loopback, 1);
}

#[test]
fn the_host_s_own_addresses_are_denied_in_every_form() {
    let poll = mio::Poll::new().unwrap();
    let link = link();
    let with_host = |policy: &Policy| {
        let addresses = HostAddresses::new(poll.registry(), mio::Token(0)).unwrap();
        Egress { addresses: Some(addresses), ..egress(policy) }
    };
    let mut closed = with_host(&policy(Action::Allow, &["allow *"]));
    let mut open = with_host(&Policy::default().host_addresses(true));
    let all = closed.addresses.as_ref().unwrap().all().to_vec();
    let mut asked = 0;
    for address in all {
        let forms = match address {
            IpAddr::V4(v4) if is_forwardable_v4(v4, &link) && !v4.is_link_local() => {
                disguises(&v4.to_string())
            }
            IpAddr::V6(v6) if is_forwardable_v6(v6, &link) => vec![],
            _ => continue,
        };
        asked += 1;
        let plain = SocketAddr::new(address, 22);
        let connect = open.decide(Protocol::Tcp, plain, &link, Instant::ZERO);
        assert_eq!(connect, Decision::Connect(plain));
        for to in [address].into_iter().chain(forms.into_iter().map(IpAddr::V6)) {
            let decision =
                closed.decide(Protocol::Udp, SocketAddr::new(to, 22), &link, Instant::ZERO);
            assert_eq!(decision, Decision::Deny, "{to}");
        }
        assert!(closed.counters.snapshot().denied_host_address >= asked);
    }
}

#[test]
fn no_alias_leads_to_the_loopback_or_to_the_link() {
    for loopback in [false, true] {
        let link = link_of(Builder::default().host_loopback(loopback), true);
        for address in [
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "0.0.0.1",
            "255.255.255.255",
            "224.0.0.1",
            "100.96.0.1", // the gateway, which is not reached by a disguise
            "100.96.0.2",
            "100.96.0.3",
        ] {
            for disguise in disguises(address) {
                let text = disguise.to_string();
                let forwarded = is_forwardable_v6(disguise, &link);
                assert!(
                    !forwarded || decision(&link, &text) == Decision::Deny,
                    "{text} for {address}"
                );
            }
        }
    }
}

#[test]
fn mapped_and_compatible_addresses_are_denied_whole() {
    for address in ["::ffff:8.8.8.8", "::8.8.8.8", "::ffff:10.0.0.1"] {
        assert_eq!(decision(&link(), address), Decision::Deny, "{address}");
    }
}

#[test]
fn everything_else_is_connected_to_as_it_is() {
    let link = link();
    for address in [
        "8.8.8.8",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "169.253.255.255",
        "169.255.0.0",
        "223.255.255.255",
        "2001:4860:4860::8888",
        "fd00:1::1",
        "64:ff9b::808:808",
        "2002:808:808::1",
        "2001:0:808:808::f7f7:f7f7",
        "2001:db9::5efe:808:808",
        "fd00:c1::1",
        "fd20:ce::1",
    ] {
        let address: SocketAddr = SocketAddr::new(address.parse().unwrap(), 80);
        assert_eq!(decide(address, &link), Decision::Connect(address));
    }
}

#[test]
fn what_no_router_forwards_is_not_forwardable() {
    let link = link();
    for (address, wanted) in [
        ("8.8.8.8", true),
        ("100.96.0.1", true),
        ("100.96.0.2", false),
        ("100.96.0.0", false),
        ("100.96.0.3", false),
        ("100.96.0.7", true), // another subnet's
        ("0.0.0.0", false),
        ("0.255.255.255", false),
        ("127.0.0.1", false),
        ("223.255.255.255", true),
        ("224.0.0.0", false),
        ("240.0.0.0", false),
        ("255.255.255.255", false),
    ] {
        assert_eq!(is_forwardable_v4(address.parse().unwrap(), &link), wanted, "{address}");
    }
    for (address, wanted) in [
        ("2001:db9::1", true),
        ("fd53:4d00::1", true),
        ("fe80::53:4dff:fe00:1", true),
        ("fd53:4d00::2", false),
        ("fd53:4d00:0:1::1", true),
        ("::", false),
        ("::1", false),
        ("fe80::1", false),
        ("ff02::1", false),
    ] {
        assert_eq!(is_forwardable_v6(address.parse().unwrap(), &link), wanted, "{address}");
    }
}

#[test]
fn the_guest_s_subnet_follows_the_prefix() {
    for (guest, prefix, gateway, on_link, others) in [
        ([10, 1, 2, 3], 24, [10, 1, 2, 1], ["10.1.2.255", "10.1.2.4"], ["10.1.3.255", "10.1.3.4"]),
        (
            [10, 1, 2, 3],
            8,
            [10, 0, 0, 1],
            ["10.255.255.255", "10.0.0.0"],
            ["9.255.255.255", "11.0.0.0"],
        ),
        ([10, 1, 2, 2], 30, [10, 1, 2, 1], ["10.1.2.3", "10.1.2.0"], ["10.1.2.7", "10.1.2.4"]),
    ] {
        let builder = Builder::default()
            .guest_ipv4(Ipv4Addr::from(guest), prefix)
            .gateway_ipv4(Ipv4Addr::from(gateway));
        let link = link_of(builder, true);
        for address in on_link {
            assert!(!is_forwardable_v4(address.parse().unwrap(), &link), "{address}/{prefix}");
        }
        for address in others {
            assert!(is_forwardable_v4(address.parse().unwrap(), &link), "{address}/{prefix}");
        }
    }
}

#[test]
fn a_rule_treats_all_forms_of_an_address_alike() {
    let link = link();
    let mut deny = egress(&policy(Action::Allow, &["deny 10.0.0.0/8"]));
    let mut allow = egress(&policy(Action::Deny, &["allow 10.0.0.0/8", "allow 9.0.0.0/8"]));
    for (address, inside) in [("10.1.2.3", true), ("10.255.0.9", true), ("11.0.0.9", false)] {
        for (n, form) in disguises(address).into_iter().enumerate() {
            let to = SocketAddr::new(form.into(), 80);
            // Mapped and compatible addresses are forwarded by nobody.
            let forwarded = n > 1;
            let decision = deny.decide(Protocol::Tcp, to, &link, Instant::ZERO);
            let wanted = forwarded && !inside;
            // What else a NAT64 form with a local prefix may mean has a test of its own.
            if form.segments()[..3] == [0x64, 0xff9b, 1] {
                assert!(!inside || decision == Decision::Deny, "{form}");
                continue;
            }
            assert_eq!(decision == Decision::Connect(to), wanted, "{form}");
            let decision = allow.decide(Protocol::Tcp, to, &link, Instant::ZERO);
            // An interface identifier in the form of ISATAP does not make a prefix trustworthy.
            let isatap = form.segments()[5] == 0x5efe;
            let wanted = forwarded && inside && !isatap;
            assert_eq!(decision == Decision::Connect(to), wanted, "{form}");
        }
    }
}

#[test]
fn every_reading_of_an_ambiguous_address_must_be_allowed() {
    let link = link();
    // As /96: 10.1.2.3; as /48: 9.9.9.9; /56: 9.9.9.9; /64: 9.9.9.10.
    let form: Ipv6Addr = "64:ff9b:1:909:9:909:a01:203".parse().unwrap();
    let to = SocketAddr::new(form.into(), 80);
    for (rules, wanted) in [
        (&["allow 10.0.0.0/8"][..], false),
        (&["allow 9.0.0.0/8"], false),
        (&["allow 10.0.0.0/8", "allow 9.0.0.0/8"], true),
        (&["allow 64:ff9b:1::/48"], true),
        (&["deny 10.1.2.3", "allow *"], false),
        (&["deny 9.9.9.10", "allow *"], false),
    ] {
        let mut egress = egress(&policy(Action::Deny, rules));
        let decision = egress.decide(Protocol::Tcp, to, &link, Instant::ZERO);
        assert_eq!(decision == Decision::Connect(to), wanted, "{rules:?}");
    }
}

#[test]
fn names_open_what_dns_gave_for_as_long_as_it_said() {
    let link = link();
    let mut egress = egress(&policy(Action::Deny, &["allow tcp:.example.com:443"]));
    let ask = |egress: &mut Egress, to: &str, second: i64| {
        let to: SocketAddr = to.parse().unwrap();
        egress.decide(Protocol::Tcp, to, &link, Instant::from_secs(second)) == Decision::Connect(to)
    };
    assert!(!ask(&mut egress, "192.0.2.1:443", 0));
    assert!(egress.may_resolve("www.example.com"));
    assert!(!egress.may_resolve("www.example.org"));
    let answers = [
        ("edge.cdn.test", "192.0.2.1".parse().unwrap(), 60),
        ("www.example.com", "2001:db9::1".parse().unwrap(), 60),
        ("www.example.com", "::ffff:192.0.2.9".parse().unwrap(), 60),
    ];
    egress.learn("WWW.example.com.", answers, Instant::ZERO);
    for to in ["192.0.2.1:443", "[2001:db9::1]:443", "192.0.2.9:443", "[64:ff9b::c000:201]:443"] {
        assert!(ask(&mut egress, to, 59), "{to}");
        assert!(!ask(&mut egress, to, 60), "{to}");
    }
    for to in ["192.0.2.1:80", "192.0.2.2:443", "[::ffff:192.0.2.9]:443"] {
        assert!(!ask(&mut egress, to, 59), "{to}");
    }
    // What is live stays, though its name is over.
    let to: SocketAddr = "192.0.2.1:443".parse().unwrap();
    assert_eq!(egress.recheck(Protocol::Tcp, to, &link), Decision::Connect(to));
    // A name leads nowhere that the floor denies.
    egress.learn(
        "evil.example.com",
        [("evil.example.com", "169.254.169.254".parse().unwrap(), 60)],
        Instant::ZERO,
    );
    assert!(!ask(&mut egress, "169.254.169.254:443", 1));
}

#[test]
fn an_alias_on_the_way_counts_as_a_name() {
    let link = link();
    let mut egress = egress(&policy(Action::Allow, &["deny edge.cdn.test"]));
    let to: SocketAddr = "192.0.2.1:443".parse().unwrap();
    assert_eq!(egress.decide(Protocol::Udp, to, &link, Instant::ZERO), Decision::Connect(to));
    egress.learn("www.example.com", [("edge.cdn.test", to.ip(), 60)], Instant::ZERO);
    assert_eq!(egress.decide(Protocol::Udp, to, &link, Instant::ZERO), Decision::Deny);
}

#[test]
fn the_generation_changes_when_what_is_live_must_be_decided_again() {
    let link = link();
    let to: SocketAddr = "192.0.2.1:443".parse().unwrap();
    let mut egress = Egress::default();
    let deny = || Box::new(Compiled::new(&Policy::new(Action::Deny)).unwrap());
    egress.set_policy(deny(), LiveFlows::Keep);
    assert_eq!(egress.generation(), 0);
    assert_eq!(egress.decide(Protocol::Tcp, to, &link, Instant::ZERO), Decision::Deny);
    egress.set_policy(deny(), LiveFlows::Recheck);
    assert_eq!(egress.generation(), 1);
    assert_eq!(egress.recheck(Protocol::Tcp, to, &link), Decision::Deny);
}

#[test]
fn events_say_what_was_decided_and_why() {
    let link = link();
    let hub = EventHub::new();
    let rules = policy(Action::Deny, &["allow tcp:example.com"]);
    let mut egress = Egress::without_host(Compiled::new(&rules).unwrap(), &hub, Arc::default());
    let to: SocketAddr = "192.0.2.1:443".parse().unwrap();
    egress.decide(Protocol::Tcp, to, &link, Instant::ZERO);
    let mut reader = hub.reader().unwrap().unwrap();
    egress.may_resolve("example.com");
    egress.learn("example.com", [("example.com", to.ip(), 60)], Instant::ZERO);
    egress.decide(Protocol::Tcp, to, &link, Instant::ZERO);
    egress.decide(Protocol::Udp, to, &link, Instant::ZERO);
    egress.decide(Protocol::Icmp, "169.254.169.254:0".parse().unwrap(), &link, Instant::ZERO);
    let lines: Vec<String> =
        std::iter::from_fn(|| reader.try_next()).map(|event| event.to_string()).collect();
    assert_eq!(
        lines,
        [
            "allow dns:example.com by rule 0",
            "allow tcp:192.0.2.1:443 (example.com) by rule 0",
            "deny udp:192.0.2.1:443 (example.com) by default",
            "deny icmp:169.254.169.254:0 by the floor: Metadata",
        ]
    );
    assert_eq!(egress.counters.snapshot().policy_allowed, 2);
    assert_eq!(egress.counters.snapshot().policy_denied, 3);
}

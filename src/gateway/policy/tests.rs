use super::*;
use crate::config::Builder;
use crate::gateway::testing::{GATEWAY, GATEWAY_V6, LINK_LOCAL, link, link_of};

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
    vec![
        Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low), // mapped
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),      // compatible
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low), // NAT64
        Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low), // translated
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1), // 6to4
        Ipv6Addr::new(0x2002, high, low, 0xffff, 1, 2, 3, 4),
    ]
}

const METADATA: [&str; 5] =
    ["169.254.169.254", "169.254.170.2", "169.254.0.1", "100.100.100.200", "168.63.129.16"];

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
    for loopback in [false, true] {
        let link = link_of(Builder::default().host_loopback(loopback), true);
        for address in METADATA {
            assert_eq!(decision(&link, address), Decision::Deny, "{address}");
            for disguise in disguises(address) {
                assert_eq!(decision(&link, &disguise.to_string()), Decision::Deny, "{disguise}");
            }
        }
        for address in ["fd00:ec2::254", "fd20:ce::254"] {
            assert_eq!(decision(&link, address), Decision::Deny, "{address}");
        }
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

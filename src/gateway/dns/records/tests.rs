use super::super::testing::name;
use super::*;

fn question(name: &str, qtype: Rtype) -> Question {
    Question { name: name.to_owned(), qtype, qclass: Class::IN }
}

fn addresses(lookup: Lookup) -> Vec<IpAddr> {
    let Lookup::Found(records) = lookup else { panic!("{lookup:?}") };
    records
        .into_iter()
        .map(|record| match record {
            Own::Address(address) => address,
            Own::Name(_) => panic!("{record:?}"),
        })
        .collect()
}

fn with_host(given: &[(String, IpAddr)]) -> Records {
    Records::new(given, Some(([100, 96, 0, 1].into(), "fd53:4d00::1".parse().unwrap())))
}

#[test]
fn the_host_is_found_by_name_and_by_address() {
    let records = with_host(&[]);
    let v4: IpAddr = [100, 96, 0, 1].into();
    let v6: IpAddr = "fd53:4d00::1".parse().unwrap();
    assert_eq!(addresses(records.look_up(&question(HOST, Rtype::A))), [v4]);
    assert_eq!(addresses(records.look_up(&question(HOST, Rtype::AAAA))), [v6]);
    assert_eq!(addresses(records.look_up(&question(HOST, Rtype::ANY))), [v4, v6]);
    assert_eq!(records.look_up(&question(HOST, Rtype::TXT)), Lookup::Found(vec![]));
    let own = Lookup::Found(vec![Own::Name(name(HOST))]);
    let v6_name = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.4.3.5.d.f.ip6.arpa";
    for address in ["1.0.96.100.in-addr.arpa", v6_name] {
        assert_eq!(records.look_up(&question(address, Rtype::PTR)), own);
    }
    let chaos = Question { qclass: Class::CH, ..question(HOST, Rtype::A) };
    assert_eq!(records.look_up(&chaos), Lookup::Found(vec![]), "no class leaks upstream");
}

#[test]
fn without_host_loopback_the_zone_is_empty_and_still_ours() {
    let records = Records::new(&[], None);
    for name in [HOST, "other.framegate.internal", "a.b.framegate.internal"] {
        assert_eq!(records.look_up(&question(name, Rtype::A)), Lookup::NoName, "{name}");
    }
    assert_eq!(records.look_up(&question(ZONE, Rtype::A)), Lookup::Found(vec![]));
    for name in [
        "framegate.internal.example",
        "xframegate.internal",
        "internal",
        "",
        "1.0.96.100.in-addr.arpa",
    ] {
        assert_eq!(records.look_up(&question(name, Rtype::A)), Lookup::Elsewhere, "{name}");
    }
}

#[test]
fn given_records_are_found_whatever_their_case() {
    let given: Vec<(String, IpAddr)> = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "192.0.2.1"]
        .map(|address| ("DB.Example.Test.".to_owned(), address.parse().unwrap()))
        .to_vec();
    let records = with_host(&given);
    let found = addresses(records.look_up(&question("db.example.test", Rtype::A)));
    assert_eq!(found, [given[0].1, given[1].1]);
    assert_eq!(records.look_up(&question("db.example.test", Rtype::MX)), Lookup::Found(vec![]));
}

#[test]
fn host_names_are_told_from_others() {
    for good in ["a", "host.example.", "_srv.example", "xn--bcher-kva.example", "1.2"] {
        assert!(is_host_name(good), "{good}");
    }
    let long = "a".repeat(64);
    let many = "a.".repeat(130);
    for bad in ["", ".", "a..b", "a b", "*.example", "bücher.example", &long, &many] {
        assert!(!is_host_name(bad), "{bad}");
    }
}

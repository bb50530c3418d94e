use super::*;

fn parsed(text: &str) -> String {
    text.parse::<Publish>().unwrap().to_string()
}

#[test]
fn every_form_is_parsed() {
    for (text, meaning) in [
        ("8080:80", "tcp:127.0.0.1:8080:80"),
        ("tcp:8080:80", "tcp:127.0.0.1:8080:80"),
        ("udp:5353:53", "udp:127.0.0.1:5353:53"),
        ("0.0.0.0:8080:80", "tcp:0.0.0.0:8080:80"),
        ("udp:192.0.2.1:1:2", "udp:192.0.2.1:1:2"),
        ("[::1]:8080:80", "tcp:[::1]:8080:80"),
        ("udp:[::]:8080-8090:80-90", "udp:[::]:8080-8090:80-90"),
        ("1-65535:1-65535", "tcp:127.0.0.1:1-65535:1-65535"),
        ("65535:1", "tcp:127.0.0.1:65535:1"),
        ("1:65535", "tcp:127.0.0.1:1:65535"),
        ("7-7:9", "tcp:127.0.0.1:7:9"),
        ("0:80", "tcp:127.0.0.1:0:80"),
    ] {
        assert_eq!(parsed(text), meaning);
        assert_eq!(parsed(meaning), meaning, "what is printed can be parsed");
    }
}

#[test]
fn what_is_no_port_is_refused() {
    for text in [
        "",
        ":",
        "::",
        "80",
        "80:",
        ":80",
        "sctp:1:2",
        "tcp:80",
        "a:b",
        "1:2:3",
        "::1:80:80",
        "[::1]80:80",
        "[::1:80:80",
        "::1]:80:80",
        "[127.0.0.1]:1:2",
        "localhost:1:2",
        "+1:2",
        "1:+2",
        "65536:1",
        "1:65536",
        "1-:2",
        "-1:2",
        "1-2-3:4",
        "1:2 ",
        " 1:2",
        "TCP:1:2",
        "tcp:tcp:1:2",
        "999999999999:1",
    ] {
        let error = text.parse::<Publish>().unwrap_err();
        assert!(matches!(error, PublishError::Syntax(_)), "{text:?}: {error}");
    }
}

#[test]
fn ranges_have_one_length_and_no_port_zero() {
    for text in [
        "1-2:1",
        "1:1-2",
        "1-3:1-2",
        "2-1:2-1",
        "0-1:1-2",
        "1-2:0-1",
        "1:0",
        "0:0",
        "0-0:1-2",
        "0-65535:0-65535",
    ] {
        let error = text.parse::<Publish>().unwrap_err();
        assert!(matches!(error, PublishError::Ports { .. }), "{text:?}: {error}");
    }
    let none = Publish::tcp_port(0, 0).bind().unwrap_err();
    assert!(matches!(none, PublishError::Ports { .. }));
}

#[test]
fn a_range_is_bound_whole_or_not_at_all() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let first = port.saturating_sub(3).max(1);
    let publish =
        Publish::tcp_ports(Ipv4Addr::LOCALHOST.into(), first..=port, 1..=port - first + 1).unwrap();
    let error = publish.bind().unwrap_err();
    // Another program may have one of the ports below.
    assert!(matches!(
        error,
        PublishError::Bind { address, source }
            if (first..=port).contains(&address.port()) && source.kind() == io::ErrorKind::AddrInUse
    ));
}

#[test]
fn the_families_of_one_port_do_not_exclude_each_other() {
    let four = Publish::tcp(([0, 0, 0, 0], 0).into(), 80).bind().unwrap();
    let port = four[0].host.port();
    let six = Publish::tcp(("::".parse::<IpAddr>().unwrap(), port).into(), 80).bind();
    match six {
        Ok(six) => assert_eq!((six[0].host.port(), six[0].family), (port, IpFamily::V6)),
        // Somebody else's, or a host without IPv6.
        Err(PublishError::Bind { source, .. }) => {
            assert_ne!(source.kind(), io::ErrorKind::InvalidInput);
        }
        Err(error) => panic!("{error}"),
    }
}

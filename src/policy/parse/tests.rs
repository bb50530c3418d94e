use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> String {
    Rule::allow(text).unwrap().to_string()
}

#[test]
fn every_form_of_a_rule_is_read() {
    for (text, wanted) in [
        ("*", "allow *"),
        ("tcp:*", "allow tcp:*"),
        ("UDP:*:53", "allow udp:*:53"),
        ("icmp:*", "allow icmp:*"),
        (" 192.0.2.7 ", "allow 192.0.2.7"),
        ("192.0.2.7/24", "allow 192.0.2.0/24"),
        ("192.0.2.7:80", "allow 192.0.2.7:80"),
        ("tcp:10.0.0.0/8:1-1023", "allow tcp:10.0.0.0/8:1-1023"),
        ("2001:db8::1", "allow 2001:db8::1"),
        ("tcp:2001:db8::/32", "allow tcp:2001:db8::/32"),
        ("[2001:db8::]", "allow 2001:db8::"),
        ("[2001:db8::/32]:443", "allow [2001:db8::/32]:443"),
        ("udp:[::]:65535", "allow udp:[::]:65535"),
        ("::ffff:10.1.2.3", "allow 10.1.2.3"),
        ("::ffff:10.0.0.0/104", "allow 10.0.0.0/8"),
        ("Example.COM.", "allow example.com"),
        ("*.example.com", "allow .example.com"),
        (".example.com:443", "allow .example.com:443"),
        ("tcp:xn--bcher-kva.example:80-81", "allow tcp:xn--bcher-kva.example:80-81"),
        ("_dns.example", "allow _dns.example"),
    ] {
        assert_eq!(parsed(text), wanted, "{text}");
        assert_eq!(wanted.parse::<Rule>().unwrap(), Rule::allow(text).unwrap(), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    use ParseRuleError as E;
    let cases = [
        ("10.0.0.0/33", E::Address(String::new())),
        ("10.0.0.256", E::Address(String::new())),
        ("10.0.0", E::Address(String::new())),
        ("443", E::Address(String::new())),
        ("2001:db8::1::2", E::Address(String::new())),
        ("[10.0.0.1]:80", E::Address(String::new())),
        ("example.com/24", E::Address(String::new())),
        ("a b", E::Name(String::new())),
        ("a..b", E::Name(String::new())),
        (".", E::Name(String::new())),
        ("*.*.example.com", E::Name(String::new())),
        ("bücher.example", E::Name(String::new())),
        ("*:0", E::Ports(String::new())),
        ("*:65536", E::Ports(String::new())),
        ("*:2-1", E::Ports(String::new())),
        ("*:+1", E::Ports(String::new())),
        ("[::1", E::Brackets(String::new())),
    ];
    for (text, wanted) in cases {
        let error = Rule::deny(text).unwrap_err();
        assert_eq!(
            std::mem::discriminant(&error),
            std::mem::discriminant(&wanted),
            "{text}: {error}"
        );
        assert!(!error.to_string().contains('\n'));
    }
    assert_eq!(Rule::deny("tcp:"), Err(E::Empty));
    assert_eq!(Rule::deny("icmp:*:8"), Err(E::IcmpPorts));
    assert_eq!(Rule::deny("[::1]80"), Err(E::Brackets("[::1]80".into())));
    assert!(matches!("permit *".parse::<Rule>(), Err(E::Action(_))));
    assert!(Rule::allow(&format!("{}.example", "a".repeat(64))).is_err());
    assert!(Rule::allow(&["a"; 128].join(".")).is_err());
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = text.parse::<Rule>();
        let _ = Rule::allow(&text);
    }

    #[test]
    fn what_is_read_is_written_and_read_again(
        text in "(tcp:|udp:)?([a-z0-9.-]{1,20}|[0-9.]{7,15}(/[0-9]{1,2})?|\\[[0-9a-f:]{2,20}(/[0-9]{1,3})?\\]|\\*)(:[0-9]{1,5}(-[0-9]{1,5})?)?"
    ) {
        if let Ok(rule) = Rule::deny(&text) {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
        }
    }
}

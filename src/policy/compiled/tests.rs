//! The compiled form against the definition: the first rule that matches decides.

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::policy::forms::meanings;

/// The definition, word for word.
fn first_match(
    policy: &Policy,
    protocol: Protocol,
    meaning: Meaning,
    port: u16,
    names: &[&str],
) -> (Action, Because) {
    let in_net = |net: &IpNet| {
        let net = canonical(*net);
        net.contains(&meaning.address)
            || meaning.embedded.is_some_and(|address| net.contains(&IpAddr::V4(address)))
    };
    let under = |suffix: &str, name: &str| {
        name == suffix || name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
    };
    for (index, rule) in policy.rules.iter().enumerate() {
        let target = match &rule.to {
            Target::Any => true,
            Target::Net(net) => in_net(net),
            Target::Name(name) => names.contains(&name.as_str()),
            Target::Suffix(suffix) => names.iter().any(|name| under(suffix.as_str(), name)),
        };
        let protocols = rule.protocol.is_none_or(|wanted| wanted == protocol);
        let ports = rule
            .ports
            .as_ref()
            .is_none_or(|ports| protocol != Protocol::Icmp && ports.contains(&port));
        if target && protocols && ports {
            return (rule.action, Because::Rule(index));
        }
    }
    (policy.default, Because::Default)
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![Just(Action::Allow), Just(Action::Deny)]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Icmp)]
}

/// Few addresses and ports, so that rules overlap and destinations hit their edges.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = prop::sample::select(vec![
        0x0a00_0000_u32,
        0x0a00_00ff,
        0x0a01_0203,
        0x0aff_ffff,
        0xc0a8_0101,
    ]);
    let v6 = prop::sample::select(vec![
        "2001:db8::1",
        "2001:db8:0:1::1",
        "64:ff9b::a00:1",
        "64:ff9b:1:a00:0:100::",
        "2002:a01:203::1",
        "2001:0:a00:ff:0:0:f5fe:fdfc",
        "fd00::5efe:a00:1",
    ]);
    prop_oneof![
        v4.prop_map(|bits| IpAddr::V4(bits.into())),
        v6.prop_map(|text| text.parse().unwrap()),
    ]
}

const NAMES: [&str; 5] = ["example.com", "a.example.com", "b.a.example.com", "ample.com", "com"];

fn target() -> impl Strategy<Value = Target> {
    let net = (address(), 0..=128_u8).prop_map(|(address, prefix)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        Target::Net(IpNet::new(address, prefix.min(most)).unwrap())
    });
    let name = prop::sample::select(NAMES.to_vec());
    prop_oneof![
        1 => Just(Target::Any),
        6 => net,
        1 => name.clone().prop_map(|name| Target::Name(name.parse().unwrap())),
        1 => name.prop_map(|name| Target::Suffix(name.parse().unwrap())),
    ]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![1..=6_u16, Just(443), Just(u16::MAX)]
}

fn rule() -> impl Strategy<Value = Rule> {
    let ports = (port(), port()).prop_map(|(a, b)| a.min(b)..=a.max(b));
    (action(), target(), prop::option::of(protocol()), prop::option::of(ports)).prop_map(
        |(action, to, protocol, ports)| {
            let ports = ports.filter(|_| protocol != Some(Protocol::Icmp));
            Rule { action, to, protocol, ports }
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    (prop::collection::vec(rule(), 0..40), action())
        .prop_map(|(rules, default)| Policy { rules, ..Policy::new(default) })
}

proptest! {
    #[test]
    fn the_compiled_form_is_first_match(
        policy in policy(),
        asked in prop::collection::vec(
            (protocol(), address(), port(), prop::sample::subsequence(NAMES.to_vec(), 0..3)),
            1..40,
        ),
    ) {
        let compiled = Compiled::new(&policy).unwrap();
        for (protocol, address, port, names) in asked {
            let port = if protocol == Protocol::Icmp { 0 } else { port };
            for meaning in meanings(address) {
                let patterns: Vec<_> =
                    names.iter().flat_map(|name| compiled.patterns_of(name)).collect();
                prop_assert_eq!(
                    compiled.decide(protocol, meaning, port, patterns),
                    first_match(&policy, protocol, meaning, port, &names),
                    "{:?} {:?} {} {:?}", protocol, meaning, port, names
                );
            }
        }
    }
}

fn compiled(default: Action, rules: &[&str]) -> Compiled {
    let policy =
        rules.iter().fold(Policy::new(default), |policy, rule| policy.rule(rule.parse().unwrap()));
    Compiled::new(&policy).unwrap()
}

#[test]
fn a_name_is_resolved_if_a_rule_may_let_the_guest_go_there() {
    use Action::{Allow, Deny};
    for (default, rules, name, wanted) in [
        (Allow, &[][..], "example.com", Allow),
        (Deny, &[], "example.com", Deny),
        (Deny, &["allow 10.0.0.0/8"], "example.com", Deny),
        (Deny, &["allow tcp:example.com:443"], "EXAMPLE.com.", Allow),
        (Deny, &["allow tcp:example.com:443"], "www.example.com", Deny),
        (Deny, &["allow .example.com"], "www.example.com", Allow),
        (Deny, &["allow .example.com"], "badexample.com", Deny),
        (Deny, &["allow .example.com"], "com", Deny),
        (Deny, &["deny a.example.com", "allow .example.com"], "a.example.com", Deny),
        (Deny, &["deny a.example.com", "allow .example.com"], "b.a.example.com", Allow),
        (Deny, &["deny tcp:a.example.com", "allow .example.com"], "a.example.com", Allow),
        (Deny, &["allow tcp:*:443"], "example.com", Allow),
        (Allow, &["deny .example.com"], "www.example.com", Deny),
        (Allow, &["deny tcp:.example.com:25"], "www.example.com", Allow),
        (Allow, &["allow www.example.com", "deny .example.com"], "www.example.com", Allow),
        (Allow, &["allow www.example.com", "deny *"], "example.com", Deny),
        (Deny, &[], "", Deny),
        (Allow, &[], "", Allow),
        (Deny, &["allow *"], "odd name.example", Allow),
    ] {
        let verdict = compiled(default, rules).may_resolve(name);
        assert_eq!(verdict.0, wanted, "{name} with {rules:?}");
    }
}

#[test]
fn resolve_all_resolves_what_no_name_rule_denies() {
    let all = |rules: &[&str]| {
        let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let policy = Policy { rules, ..Policy::new(Action::Deny).resolve_all(true) };
        Compiled::new(&policy).unwrap()
    };
    assert_eq!(all(&[]).may_resolve("example.com").0, Action::Allow);
    assert_eq!(all(&["deny *"]).may_resolve("example.com").0, Action::Allow);
    assert_eq!(all(&["deny example.com"]).may_resolve("example.com").0, Action::Deny);
    assert_eq!(all(&["deny *"]).may_resolve("odd name").0, Action::Allow);
}

#[test]
fn names_of_metadata_services_are_resolved_with_their_switch_alone() {
    for name in ["metadata.google.internal", "METADATA.google.internal.", "metadata.goog"] {
        let wanted = (Action::Deny, Because::Floor(Floor::Metadata));
        assert_eq!(compiled(Action::Allow, &["allow *"]).may_resolve(name), wanted);
        let open = Compiled::new(&Policy::default().metadata(true)).unwrap();
        assert_eq!(open.may_resolve(name).0, Action::Allow);
    }
}

/// Prints what a decision costs; asserts nothing about time.
#[test]
fn the_cost_of_a_decision() {
    let nested = (0..=32).map(|prefix| format!("deny tcp:10.0.0.0/{prefix}:{}", prefix + 1));
    let flat = (0..4000).map(|n| format!("allow tcp:172.{}.{}.0/24:443", n / 256, n % 256));
    let ports = (0..4096).map(|n| format!("deny tcp:10.0.0.0/8:{}", n + 1000));
    let one = ["allow 10.0.0.0/8".to_owned()];
    for (what, rules) in [
        ("no rule", vec![]),
        ("1 rule", one.to_vec()),
        ("33 nested prefixes", nested.clone().collect()),
        ("4000 prefixes, 33 nested", flat.chain(nested).collect::<Vec<_>>()),
        ("4096 ports of a prefix", ports.collect()),
    ] {
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let started = Instant::now();
        let compiled = compiled(Action::Deny, &rules);
        let built = started.elapsed();
        let started = Instant::now();
        let rounds = 100_000_u32;
        let mut allowed = 0;
        for n in 0..rounds {
            let address = Ipv4Addr::from(0x0a00_0000 | n & 1);
            for meaning in meanings(address.into()) {
                let port = (n & 0xffff) as u16;
                let verdict = compiled.decide(Protocol::Tcp, meaning, port, []);
                allowed += u32::from(verdict.0 == Action::Allow);
            }
        }
        let each = started.elapsed() / rounds;
        println!("{what}: {each:?} a decision ({allowed} allowed), built in {built:?}");
    }
}

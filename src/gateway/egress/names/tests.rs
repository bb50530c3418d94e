use std::net::Ipv4Addr;

use super::*;
use crate::policy::{Action, Policy};

fn policy(rules: &[&str]) -> Compiled {
    let policy = rules
        .iter()
        .fold(Policy::new(Action::Deny), |policy, rule| policy.rule(rule.parse().unwrap()));
    Compiled::new(&policy).unwrap()
}

fn address(n: u32) -> IpAddr {
    Ipv4Addr::from(0x0100_0000 + n).into()
}

fn valid(names: &Names, n: u32, second: i64) -> usize {
    names.patterns(address(n), Some(Instant::from_secs(second))).count()
}

#[test]
fn a_name_holds_for_its_ttl_and_half_a_minute_at_the_least() {
    let policy = policy(&["allow example.com"]);
    let name: Arc<str> = "example.com".into();
    let mut names = Names::default();
    for (n, ttl) in [(0, 0), (1, 30), (2, 31), (3, 300), (4, u32::MAX)] {
        names.learn(&policy, &name, address(n), ttl, Instant::ZERO);
        let until = i64::from(ttl.clamp(30, 24 * 3600));
        assert_eq!(valid(&names, n, until - 1), 1, "a TTL of {ttl}");
        assert_eq!(valid(&names, n, until), 0, "a TTL of {ttl}");
        assert_eq!(names.patterns(address(n), None).count(), 1, "known to what is live");
    }
    // A later answer extends, and a shorter one takes nothing back.
    names.learn(&policy, &name, address(3), 300, Instant::from_secs(200));
    names.learn(&policy, &name, address(3), 30, Instant::from_secs(201));
    assert_eq!((valid(&names, 3, 499), valid(&names, 3, 500)), (1, 0));
    assert_eq!(names.len(), 5);
}

#[test]
fn only_names_that_a_rule_mentions_are_kept() {
    let policy = policy(&["allow example.com", "deny .test"]);
    let mut names = Names::default();
    for name in ["example.org", "www.example.com", "com", "contest"] {
        names.learn(&policy, &name.into(), address(1), 60, Instant::ZERO);
    }
    assert_eq!(names.len(), 0);
    for name in ["example.com", "test", "a.b.test"] {
        names.learn(&policy, &name.into(), address(1), 60, Instant::ZERO);
    }
    assert_eq!(names.len(), 2, "a name and a suffix");
}

#[test]
fn the_table_is_bounded_and_what_ends_first_gives_way() {
    let policy = policy(&["allow .example.com"]);
    let name: Arc<str> = "www.example.com".into();
    let mut names = Names::default();
    let many = u32::try_from(PAIRS).unwrap();
    for n in 0..many {
        assert_eq!(names.learn(&policy, &name, address(n), 60 + n, Instant::ZERO), 0);
    }
    assert_eq!(names.learn(&policy, &name, address(many), 3600 * 20, Instant::ZERO), 1);
    assert_eq!(names.len(), PAIRS);
    assert_eq!((valid(&names, 0, 1), valid(&names, 1, 1), valid(&names, many, 1)), (0, 1, 1));
    // What has expired gives way uncounted.
    let later = Instant::from_secs(62);
    assert_eq!(names.learn(&policy, &name, address(many + 1), 3600 * 20, later), 0);
}

#[test]
fn the_patterns_of_an_address_are_bounded() {
    let rules: Vec<String> = (0..40).map(|n| format!("allow {n}.example.com")).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let policy = policy(&rules);
    let mut names = Names::default();
    let mut evicted = 0;
    for n in 0..40 {
        let name = format!("{n}.example.com").into();
        evicted += names.learn(&policy, &name, address(1), 100 + n, Instant::ZERO);
    }
    assert_eq!((names.len(), evicted), (PATTERNS, 40 - PATTERNS as u64));
    assert_eq!(valid(&names, 1, 123), 16);
    assert_eq!(valid(&names, 1, 124), 15, "those that end last are kept");
}

#[test]
fn another_policy_keeps_the_names_that_it_mentions() {
    let before = policy(&["allow a.example.com", "allow .test"]);
    let mut names = Names::default();
    for (n, name) in [(1, "a.example.com"), (2, "b.test")] {
        names.learn(&before, &name.into(), address(n), 60, Instant::ZERO);
    }
    let after = policy(&["deny b.test", "allow x.example", "deny .test"]);
    names.adopt(&after);
    assert_eq!((valid(&names, 1, 1), valid(&names, 2, 1)), (0, 2));
    assert_eq!(valid(&names, 2, 60), 0);
    assert_eq!(names.len(), 2);
    assert_eq!(names.name(address(2)).as_deref(), Some("b.test"));
}

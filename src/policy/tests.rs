use super::*;

#[test]
fn the_bounds_of_a_policy_are_checked() {
    let rule = || Rule::allow("*").unwrap();
    let rules = |n: usize| (0..n).fold(Policy::default(), |policy, _| policy.rule(rule()));
    assert_eq!(rules(MAX_RULES).check(), Ok(()));
    assert_eq!(rules(MAX_RULES + 1).check(), Err(PolicyError::TooManyRules(MAX_RULES + 1)));
    let icmp = Rule { protocol: Some(Protocol::Icmp), ports: Some(1..=2), ..rule() };
    assert_eq!(Policy::default().rule(rule()).rule(icmp).check(), Err(PolicyError::IcmpPorts(1)));
    for ports in [0..=1, RangeInclusive::new(2, 1)] {
        let rule = Rule { ports: Some(ports), ..rule() };
        assert_eq!(Policy::default().rule(rule).check(), Err(PolicyError::Ports(0)));
    }
}

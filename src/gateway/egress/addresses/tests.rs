use std::net::Ipv4Addr;

use super::*;

#[test]
fn the_host_s_addresses_are_read_and_sorted() {
    let poll = mio::Poll::new().unwrap();
    let mut addresses = HostAddresses::new(poll.registry(), Token(0)).unwrap();
    assert!(addresses.contains(Ipv4Addr::LOCALHOST.into()));
    assert!(!addresses.contains(Ipv4Addr::new(192, 0, 2, 1).into()));
    assert!(addresses.all().is_sorted());
    assert!(!addresses.heard(Instant::ZERO), "nothing has changed");
    assert!(!addresses.catch_up(Instant::ZERO));
}

#[test]
fn a_look_that_failed_is_made_up_for_by_a_later_decision() {
    let poll = mio::Poll::new().unwrap();
    let mut addresses = HostAddresses::new(poll.registry(), Token(0)).unwrap();
    let all = std::mem::take(&mut addresses.all);
    addresses.retry = Some(Instant::from_millis(100));
    assert!(!addresses.catch_up(Instant::from_millis(99)), "not yet");
    assert!(addresses.catch_up(Instant::from_millis(100)));
    assert_eq!(addresses.all(), all);
    assert!(!addresses.catch_up(Instant::from_millis(200)));
}

#[test]
fn a_failed_look_keeps_what_was_known() {
    let poll = mio::Poll::new().unwrap();
    let mut addresses = HostAddresses::new(poll.registry(), Token(0)).unwrap();
    let all = addresses.all().to_vec();
    assert!(!addresses.take(Err(Errno::EMFILE.into()), Instant::ZERO));
    assert_eq!(addresses.all(), all);
    assert_eq!(addresses.retry, Some(Instant::ZERO + RETRY));
}

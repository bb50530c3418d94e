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

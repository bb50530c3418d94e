//! A network two routers away from the host, over a link with a small MTU:
//!
//! ```text
//! host ── server ──(small)── middle ── far
//! ```
//!
//! Both ends see an MTU of 1500 on their own links, so that each has to discover the path's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::lab::Lab;
use super::namespace::Namespace;

/// The far host.
pub(crate) const FAR_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
pub(crate) const FAR_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1));

/// The far host and the router before it; the router on the near side of the small link is the lab's
/// server.
pub(crate) struct Beyond {
    pub(crate) far: Namespace,
    _middle: Namespace,
}

impl Beyond {
    /// Builds the network beyond the server of `lab`; its first link has this MTU, in bytes.
    pub(crate) fn of(lab: &Lab, mtu: u16) -> Self {
        let [middle, far] = [(); 2].map(|()| Namespace::new().unwrap());
        let near = &lab.server;
        near.ip(&format!("link add e0 mtu {mtu} type veth peer name e1 netns {}", middle.path()));
        middle.ip(&format!("link add f0 type veth peer name f1 netns {}", far.path()));
        near.ip("addr add 203.0.113.1/30 dev e0
             addr add 2001:db8:e::1/64 dev e0 nodad
             link set e0 up
             route add 198.51.100.0/24 via 203.0.113.2
             route add 2001:db8:f::/64 via 2001:db8:e::2");
        middle.ip(&format!(
            "addr add 203.0.113.2/30 dev e1
             addr add 2001:db8:e::2/64 dev e1 nodad
             link set e1 mtu {mtu} up
             addr add 198.51.100.2/24 dev f0
             addr add 2001:db8:f::2/64 dev f0 nodad
             link set f0 up
             route add default via 203.0.113.1
             route add default via 2001:db8:e::1"
        ));
        far.ip("addr add 198.51.100.1/24 dev f1
             addr add 2001:db8:f::1/64 dev f1 nodad
             link set f1 up
             route add default via 198.51.100.2
             route add default via 2001:db8:f::2");
        for router in [near, &middle] {
            router.sysctl("ipv4/ip_forward", "1");
            router.sysctl("ipv6/conf/all/forwarding", "1");
        }
        for host in [near, &middle, &far] {
            // Errors as often as they are due, so that no tool has to wait for one.
            host.sysctl("ipv4/icmp_ratelimit", "0");
            host.sysctl("ipv6/icmp/ratelimit", "0");
        }
        Self { far, _middle: middle }
    }
}

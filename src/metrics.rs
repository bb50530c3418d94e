//! What was moved, and every frame that was refused, by its reason.

use std::fmt;

use crate::sync::{Arc, Tally};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Why a frame of the guest, or a flow, went no further. Each has a counter in [`Stats`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum DropReason { $($(#[$doc])* $variant,)* }

        impl DropReason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name that logs and statistics use.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

drop_reasons! {
    /// The queue to the poll loop was full ([`Overflow::Drop`](crate::Overflow)).
    QueueFull => "queue_full",
    /// A header is cut short or contradicts itself.
    Malformed => "malformed",
    /// The source MAC address is not the guest's.
    SourceMac => "source_mac",
    /// The destination MAC address is neither the gateway's nor a group's.
    DestinationMac => "destination_mac",
    /// The source IP address is not the guest's.
    SourceAddress => "source_address",
    /// The destination is no unicast address that a gateway may forward to: loopback, unspecified,
    /// broadcast, multicast, reserved.
    DestinationAddress => "destination_address",
    /// An EtherType other than ARP, IPv4 and IPv6.
    EtherType => "ether_type",
    /// An IP protocol that the gateway does not carry.
    Protocol => "protocol",
    /// An IP fragment that fits no packet: overlapping (RFC 5722), beyond the largest packet, or cut at
    /// a place where none can be cut.
    Fragment => "fragment",
    /// Fragments whose packet did not become whole in time.
    FragmentTimeout => "fragment_timeout",
    /// Fragments of the oldest packet, which gave way: the limits on fragments.
    FragmentLimit => "fragment_limit",
    /// An IPv6 extension header, or a routing header, that the gateway does not accept.
    ExtensionHeader => "extension_header",
    /// An ARP packet that asks for nothing of ours.
    Arp => "arp",
    /// An NDP message that asks for nothing of ours, or breaks RFC 4861's rules for it.
    Ndp => "ndp",
    /// A DHCP message that breaks the protocol's rules, or asks for nothing that a server gives, or
    /// comes while the server is off ([`Builder::dhcp`](crate::Builder::dhcp)).
    Dhcp => "dhcp",
    /// A DHCP message for a client whose hardware address is not the guest's.
    DhcpClient => "dhcp_client",
    /// An ICMP message other than an echo request to the gateway.
    Icmp => "icmp",
    /// A TCP segment of no flow.
    NoFlow => "no_flow",
    /// TCP flags that contradict each other, or a port of zero.
    TcpFlags => "tcp_flags",
    /// A UDP port of zero.
    UdpPort => "udp_port",
    /// The policy denies the destination.
    Policy => "policy",
    /// The host refused the connection.
    HostRefused => "host_refused",
    /// The host has no route to the destination.
    HostUnreachable => "host_unreachable",
    /// The host's connection timed out.
    HostTimedOut => "host_timed_out",
    /// A host resource ran out: descriptors, ports, memory.
    HostResource => "host_resource",
    /// A DNS message that is no query, or none that can be read.
    Dns => "dns",
    /// The policy denies the name: the guest is told that there is none.
    DnsName => "dns_name",
    /// The limit on DNS queries under way, or on connections to the DNS forwarder.
    DnsLimit => "dns_limit",
    /// The limit on flows.
    FlowLimit => "flow_limit",
    /// The limit on UDP mappings, or on those of pings: the mapping closest to its end gave way.
    MappingLimit => "mapping_limit",
    /// A datagram of the guest that found too many waiting for the host.
    DatagramQueue => "datagram_queue",
    /// A datagram that may not be fragmented and is larger than the path's MTU.
    TooBig => "too_big",
    /// A packet whose hop limit ran out at the gateway.
    HopLimit => "hop_limit",
    /// A datagram or an echo reply from somebody whom the guest has not sent to.
    Filtered => "filtered",
    /// The host forbids ping sockets (net.ipv4.ping_group_range).
    PingForbidden => "ping_forbidden",
    /// An ICMP error, of the guest or from outside, about a packet of no mapping.
    IcmpUnmatched => "icmp_unmatched",
    /// The limit on the memory of windows: data of the guest that the host did not take at once.
    WindowMemory => "window_memory",
    /// The limit on half-open flows.
    HalfOpenLimit => "half_open_limit",
    /// The limit on the threads of in-process services.
    RelayLimit => "relay_limit",
    /// The guest refused a connection from a published port.
    GuestRefused => "guest_refused",
    /// The guest did not answer a connection from a published port.
    GuestTimedOut => "guest_timed_out",
    /// The rate limit of the direction ([`RateLimit`](crate::RateLimit)).
    RateLimit => "rate_limit",
    /// A reply that had no room in the queue to the guest.
    ReplyNoRoom => "reply_no_room",
    /// An ICMP error for the guest above the rate of such errors (RFC 1812 section 4.3.2.8).
    IcmpRate => "icmp_rate",
    /// A frame for the guest that is shorter than an Ethernet header, or longer than the guest's
    /// buffers and no TCP segment that could be cut.
    BadLength => "bad_length",
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters behind [`Stats`], shared by the threads of one NIC.
        #[derive(Debug)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Tally,)*
            drops: [Tally; DropReason::ALL.len()],
        }

        impl Default for Counters {
            fn default() -> Self {
                Self {
                    $($name: Tally::default(),)*
                    drops: std::array::from_fn(|_| Tally::default()),
                }
            }
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Stats {
                Stats {
                    $($name: self.$name.get(),)*
                    drops: std::array::from_fn(|i| self.drops.get(i).map_or(0, Tally::get)),
                }
            }
        }

        /// A moment's view of one NIC's counters. They only grow, but for those that say
        /// "at this moment", and `tcp_half_open`.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
            drops: [u64; DropReason::ALL.len()],
        }

        impl fmt::Display for Stats {
            /// `name=value` pairs on one line; drop reasons that never occurred are left out.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut space = "";
                $(
                    write!(f, "{space}{}={}", stringify!($name), self.$name)?;
                    space = " ";
                )*
                for (reason, n) in self.drops() {
                    write!(f, "{space}drop_{}={n}", reason.name())?;
                }
                Ok(())
            }
        }
    };
}

counters! {
    /// Frames that the guest sent.
    frames_from_guest,
    /// Bytes of those frames.
    bytes_from_guest,
    /// Frames sent to the guest.
    frames_to_guest,
    /// Bytes of those frames.
    bytes_to_guest,
    /// Frames of the guest that the reader appended to the one before.
    frames_merged,
    /// TCP flows that the guest, or a client of a published port, has asked for.
    tcp_opened,
    /// Those of them that a client of a published port has asked for.
    tcp_inbound,
    /// TCP flows whose connection came about at the end that was asked.
    tcp_established,
    /// TCP flows that are gone again.
    tcp_closed,
    /// Flows that ended by a reset of either side.
    tcp_reset,
    /// TCP flows at this moment.
    tcp_flows,
    /// Those of them that are not established at both ends yet.
    tcp_half_open,
    /// Payload bytes relayed from guest to host.
    tcp_bytes_to_host,
    /// Payload bytes relayed from host to guest.
    tcp_bytes_to_guest,
    /// Handlers of in-process services that panicked.
    relay_panics,
    /// UDP mappings that the guest has asked for.
    udp_opened,
    /// UDP mappings at this moment.
    udp_mappings,
    /// Datagrams of the guest that the host took.
    udp_datagrams_to_host,
    /// Their payload, in bytes.
    udp_bytes_to_host,
    /// Datagrams sent to the guest.
    udp_datagrams_to_guest,
    /// Their payload, in bytes.
    udp_bytes_to_guest,
    /// Clients of published UDP ports at this moment.
    udp_clients,
    /// Mappings of echo identifiers at this moment.
    ping_mappings,
    /// Echo requests of the guest that the host took.
    pings_to_host,
    /// Echo replies from beyond the gateway sent to the guest.
    pings_to_guest,
    /// ICMP errors of the guest about what a mapping has brought it.
    icmp_errors_from_guest,
    /// Echo requests that the gateway has answered.
    echo_replies,
    /// ARP and NDP questions that the gateway has answered.
    neighbor_replies,
    /// Flows, destinations and names that the policy allowed.
    policy_allowed,
    /// Flows, destinations and names that the policy denied.
    policy_denied,
    /// Those of them that were the gateway's address, without host loopback.
    denied_host_loopback,
    /// Those of them that were an address of the host.
    denied_host_address,
    /// Those of them that were a cloud's metadata service.
    denied_metadata,
    /// Names that DNS gave to addresses and that gave way to newer ones before their TTL was over.
    policy_names_evicted,
    /// Events of the policy that their reader was too slow for.
    policy_events_lost,
    /// DNS queries of the guest.
    dns_queries,
    /// Answers given to them.
    dns_answers,
    /// Those of them that the gateway gave from what it knows: its own names, and names that the policy
    /// denies.
    dns_local,
    /// Those of them that were SERVFAIL because no upstream has answered or could be asked.
    dns_failures,
    /// Datagrams that repeated a query under way.
    dns_repeated,
    /// Times that an upstream was silent for so long that another was asked too.
    dns_timeouts,
    /// Datagrams of an upstream that were no answer to what it was asked.
    dns_mismatched,
    /// ICMP errors sent to the guest.
    icmp_errors,
    /// Packets of the guest that were put together from fragments.
    reassembled,
    /// DHCP messages that the gateway has answered.
    dhcp_replies,
    /// Router advertisements sent.
    router_advertisements,
    /// Messages of ARP's, NDP's and DHCP's kind that want no answer: duplicate address detection for
    /// the guest's own addresses, a lease declined or given back, a router solicitation that the next
    /// advertisement answers.
    link_notices,
    /// Frames that the capture has written.
    capture_frames,
    /// Frames that the capture has lost: its queue was full, or its destination had failed.
    capture_lost,
    /// Turns of the poll loop.
    turns,
}

impl Counters {
    pub(crate) fn dropped(&self, reason: DropReason) {
        self.dropped_many(reason, 1);
    }

    pub(crate) fn dropped_many(&self, reason: DropReason, n: u64) {
        if let Some(counter) = self.drops.get(reason as usize) {
            counter.add(n);
        }
    }
}

/// Reads one NIC's counters, from any thread, also after the runtime is gone.
#[derive(Clone, Debug)]
pub struct StatsReader(pub(crate) Arc<Counters>);

impl StatsReader {
    /// The counters at this moment.
    pub fn read(&self) -> Stats {
        self.0.snapshot()
    }
}

impl Stats {
    /// The reasons for which something was dropped, with their counts.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().copied().zip(self.drops).filter(|(_, n)| *n > 0)
    }

    /// How often something was dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or(0)
    }
}

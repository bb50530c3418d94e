//! What an embedder can choose, with the cost of each choice.

mod check;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::capture::Capture;
use crate::error::{ConfigError, StartError};
use crate::policy::Policy;
use crate::publish::Publish;
use crate::queues::{self, NetworkFrameQueues};
use crate::rate::RateLimit;
use crate::relay::{RelayStream, Service};
use crate::runtime::Runtime;
use crate::sync::Arc;

/// An Ethernet address.
pub type MacAddress = [u8; 6];

/// Which frames may cross the link, by the features that the VMM negotiated with the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offload {
    /// No virtio-net offload: full checksums both ways, frames of `mtu + 14` bytes at the most.
    #[default]
    None,
    /// `CSUM | HOST_TSO4 | HOST_TSO6`: the guest sends frames up to 65,550 bytes with partial
    /// checksums; towards the guest as [`None`](Self::None).
    Upload,
    /// The guest's receive buffers hold 64 KiB (`GUEST_CSUM | GUEST_TSO4`) and its MTU is ours: frames
    /// up to `mtu + 14` bytes both ways.
    Jumbo,
}

/// What the reader does with a guest frame when the queue to the poll loop is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// Stop reading: the stream fills up and the guest waits. Nothing is lost. For QEMU and for
    /// libkrun from 1.18 on.
    #[default]
    Backpressure,
    /// Drop the frame and count it. For libkrun up to 1.17, whose worker spins, and serves the other
    /// direction no more, while nobody reads.
    Drop,
}

/// Whom the DNS forwarder asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dns {
    /// The nameservers of the host's `/etc/resolv.conf`, as it is at each query. A resolver on the host's
    /// loopback works: the host asks it, not the guest.
    #[default]
    Host,
    /// These servers, in this order: the first that answers is asked. Eight at the most are used.
    Servers(Vec<SocketAddr>),
    /// Nobody: there is no forwarder.
    Off,
}

/// Who outside may send to a UDP mapping of the guest (RFC 4787 section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UdpFiltering {
    /// An address that the guest has sent to through this mapping, from any port.
    #[default]
    AddressDependent,
    /// Anyone whom the policy lets the guest send to.
    EndpointIndependent,
}

/// The bounds of what one guest can make the host spend. Each says what it costs and what happens
/// when it is reached.
///
/// | what is bounded | by | at the limit |
/// |---|---|---|
/// | descriptors, and the flow table | `tcp_flows`; of them, connections under way: `tcp_half_open` | the new flow is refused, the old are kept |
/// | memory of windows | `tcp_window` for each flow, `tcp_memory` for all | the sender waits; flows go on with small windows |
/// | memory of frames | `queue_frames` and `queue_bytes`, in each direction | the sender waits, or a counted drop ([`Overflow`]) |
/// | time that a flow may hold what it has | `tcp_connect`, `tcp_transitory`, `tcp_idle` | the flow is reset |
/// | what passes in a second | [`Builder::rate_from_guest`], [`Builder::rate_to_guest`] | [`RateLimit`] |
/// | memory of a capture | 8 MiB | records are lost and counted ([`Capture`]) |
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// TCP flows at once, in every state. Each costs one host socket and about 1 KiB, and its windows
    /// once it is established. A SYN above the limit is answered with RST. Default 16,384.
    pub tcp_flows: usize,
    /// TCP flows at once that are not established at both ends yet; part of `tcp_flows`. Each
    /// costs one host socket and the guest's SYN. A SYN above it is answered with RST. Clients of
    /// published ports that the guest has not answered have half of it at the most, and are reset above
    /// that, so that they do not keep the guest from connecting. Default 1,024.
    pub tcp_half_open: usize,
    /// The window of a flow, in bytes: what the guest may send ahead of the host, 65,536 to 4 MiB, rounded up to
    /// a power of two. As much, but 1 MiB at the most, is received ahead of the guest. Both are address space;
    /// memory is what the flow has used of them. Default 4 MiB.
    pub tcp_window: usize,
    /// What the flows may use of their windows, all together, in bytes, beyond the first 64 KiB that each has in
    /// each direction. Above it a flow that would use more is sent to 64 KiB at a time; and what it sends that
    /// the host does not take at once is dropped, counted, and for the guest to send again. Default 1 GiB.
    pub tcp_memory: usize,
    /// How long a host connection may take. Then the guest gets ICMP host unreachable. As long may the
    /// guest take to answer a client of a published port. Default 30 s.
    pub tcp_connect: Duration,
    /// How long an established flow may be silent before both ends are reset (RFC 5382 REQ-5: not
    /// less than 2 h 4 min). Default 2 h 4 min.
    pub tcp_idle: Duration,
    /// How long a flow may be silent whose handshake with the guest is not over, or that both ends have
    /// closed (RFC 5382 REQ-5: not less than 4 min). Default 4 min.
    pub tcp_transitory: Duration,
    /// Connections to in-process services at once. Each costs a thread, two descriptors, and up to 512
    /// KiB in its pipes. A SYN above it is answered with RST. Default 64.
    pub relay_threads: usize,
    /// DNS queries under way at once: 1 to 65,536. Each costs one host socket, more while upstreams are
    /// silent, and what it and its answer hold; all of them hold 32 MiB at the most. A query above it is
    /// answered with SERVFAIL. Default 4,096.
    pub dns_queries: usize,
    /// Connections of the guest to the DNS forwarder at once; part of `tcp_flows`. Each may hold
    /// 128 KiB of queries and 1 MiB of answers, and its windows. A SYN above it is answered with RST.
    /// Default 64.
    pub dns_connections: usize,
    /// UDP mappings at once: endpoints of the guest, each with a host socket and about 1 KiB, and what
    /// the kernel holds of datagrams that come faster than they are taken (net.core.rmem_max). Clients of
    /// published UDP ports are limited by the same number. Above it the mapping that is closest to its end
    /// gives way. Default 4,096.
    pub udp_mappings: usize,
    /// How long a UDP mapping may be silent (RFC 4787 REQ-5: not less than 2 min, 5 min recommended).
    /// Default 5 min.
    pub udp_idle: Duration,
    /// As `udp_idle`, for a mapping that has only ever sent to port 53. Default 30 s.
    pub udp_dns_idle: Duration,
    /// Echo identifiers of the guest at once, each with a ping socket. Above it the one that is closest to
    /// its end gives way. Default 256.
    pub ping_mappings: usize,
    /// How long the mapping of an echo identifier may be silent (RFC 5508 REQ-2: not less than 60 s).
    /// Default 60 s.
    pub ping_idle: Duration,
    /// The bound of each frame queue, in frames. Default 1,024.
    pub queue_frames: usize,
    /// The bound of each frame queue, in bytes. Default 4 MiB.
    pub queue_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_flows: 16_384,
            tcp_half_open: 1_024,
            tcp_window: 4 << 20,
            tcp_memory: 1 << 30,
            tcp_connect: Duration::from_secs(30),
            tcp_idle: Duration::from_secs(2 * 3600 + 4 * 60),
            tcp_transitory: Duration::from_secs(4 * 60),
            relay_threads: 64,
            dns_queries: 4_096,
            dns_connections: 64,
            udp_mappings: 4_096,
            udp_idle: Duration::from_secs(5 * 60),
            udp_dns_idle: Duration::from_secs(30),
            ping_mappings: 256,
            ping_idle: Duration::from_secs(60),
            queue_frames: queues::DEFAULT_CAPACITY,
            queue_bytes: queues::DEFAULT_BYTES,
        }
    }
}

/// A configuration that was checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) guest_mac: MacAddress,
    pub(crate) gateway_mac: MacAddress,
    pub(crate) guest_ipv4: Ipv4Addr,
    pub(crate) ipv4_prefix: u8,
    pub(crate) gateway_ipv4: Ipv4Addr,
    pub(crate) guest_ipv6: Ipv6Addr,
    pub(crate) ipv6_prefix: u8,
    pub(crate) gateway_ipv6: Ipv6Addr,
    pub(crate) mtu: u16,
    pub(crate) offload: Offload,
    pub(crate) overflow: Overflow,
    pub(crate) host_loopback: bool,
    pub(crate) policy: Policy,
    pub(crate) dns: Dns,
    pub(crate) dns_intercept: bool,
    pub(crate) dns_records: Vec<(String, IpAddr)>,
    pub(crate) resolver_file: PathBuf,
    pub(crate) udp_filtering: UdpFiltering,
    pub(crate) dhcp: bool,
    pub(crate) dhcp_lease: Duration,
    pub(crate) router_advertisements: bool,
    pub(crate) limits: Limits,
    pub(crate) published: Vec<Publish>,
    pub(crate) services: Vec<(SocketAddr, Service)>,
    pub(crate) rate_from_guest: RateLimit,
    pub(crate) rate_to_guest: RateLimit,
    pub(crate) capture: Option<Capture>,
}

impl Config {
    /// The largest frame that the guest's buffers hold, in bytes.
    pub(crate) fn max_frame_to_guest(&self) -> usize {
        usize::from(self.mtu) + 14
    }
}

/// Describes a gateway before it starts. The defaults are those of the nearest peers, so that a guest
/// image made for them works: guest 100.96.0.2/30 and fd53:4d00::2/64, gateway 100.96.0.1 and
/// fd53:4d00::1, MAC addresses 02:53:4d:00:00:02 and 02:53:4d:00:00:01, MTU 1500, no offload.
#[derive(Clone, Debug)]
#[must_use = "a builder starts nothing until `start`"]
pub struct Builder(Config);

impl Default for Builder {
    fn default() -> Self {
        Self(Config {
            guest_mac: [0x02, 0x53, 0x4d, 0, 0, 2],
            gateway_mac: [0x02, 0x53, 0x4d, 0, 0, 1],
            guest_ipv4: Ipv4Addr::new(100, 96, 0, 2),
            ipv4_prefix: 30,
            gateway_ipv4: Ipv4Addr::new(100, 96, 0, 1),
            guest_ipv6: Ipv6Addr::new(0xfd53, 0x4d00, 0, 0, 0, 0, 0, 2),
            ipv6_prefix: 64,
            gateway_ipv6: Ipv6Addr::new(0xfd53, 0x4d00, 0, 0, 0, 0, 0, 1),
            mtu: 1500,
            offload: Offload::None,
            overflow: Overflow::Backpressure,
            host_loopback: false,
            policy: Policy::default(),
            dns: Dns::Host,
            dns_intercept: false,
            dns_records: Vec::new(),
            resolver_file: PathBuf::from("/etc/resolv.conf"),
            udp_filtering: UdpFiltering::AddressDependent,
            dhcp: true,
            dhcp_lease: Duration::from_secs(24 * 3600),
            router_advertisements: true,
            limits: Limits::default(),
            published: Vec::new(),
            services: Vec::new(),
            rate_from_guest: RateLimit::default(),
            rate_to_guest: RateLimit::default(),
            capture: None,
        })
    }
}

impl Builder {
    /// The guest's IPv4 address and the length of its subnet's prefix.
    pub fn guest_ipv4(mut self, address: Ipv4Addr, prefix: u8) -> Self {
        self.0.guest_ipv4 = address;
        self.0.ipv4_prefix = prefix;
        self
    }

    /// The gateway's IPv4 address, in the guest's subnet.
    pub fn gateway_ipv4(mut self, address: Ipv4Addr) -> Self {
        self.0.gateway_ipv4 = address;
        self
    }

    /// The guest's IPv6 address and the length of its prefix.
    pub fn guest_ipv6(mut self, address: Ipv6Addr, prefix: u8) -> Self {
        self.0.guest_ipv6 = address;
        self.0.ipv6_prefix = prefix;
        self
    }

    /// The gateway's IPv6 address, in the guest's prefix. It answers for its link-local address too.
    pub fn gateway_ipv6(mut self, address: Ipv6Addr) -> Self {
        self.0.gateway_ipv6 = address;
        self
    }

    /// The MAC address that the VMM gives the guest. Frames from any other are dropped.
    pub fn guest_mac(mut self, mac: MacAddress) -> Self {
        self.0.guest_mac = mac;
        self
    }

    /// The gateway's MAC address.
    pub fn gateway_mac(mut self, mac: MacAddress) -> Self {
        self.0.gateway_mac = mac;
        self
    }

    /// The guest's MTU in bytes: 1280 to 1500, or up to 65,520 with [`Offload::Jumbo`]. A frame to the
    /// guest is never longer than this plus 14: a larger one would wedge libkrun's receive queue.
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.0.mtu = mtu;
        self
    }

    /// What the VMM negotiated with the guest.
    pub fn offload(mut self, offload: Offload) -> Self {
        self.0.offload = offload;
        self
    }

    /// What the reader does when the queue to the poll loop is full.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.0.overflow = overflow;
        self
    }

    /// Whether TCP to the gateway's address reaches the host's loopback. Off by default: services that
    /// listen there trust everyone who reaches them.
    pub fn host_loopback(mut self, allowed: bool) -> Self {
        self.0.host_loopback = allowed;
        self
    }

    /// Where the guest may go. By default everywhere, but for what the [floor](Policy#the-floor) denies.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.0.policy = policy;
        self
    }

    /// Whom the DNS forwarder asks. It answers at the gateway's addresses, port 53, over UDP and TCP.
    pub fn dns(mut self, dns: Dns) -> Self {
        self.0.dns = dns;
        self
    }

    /// Whether the DNS forwarder also answers what the guest sends to port 53 of any other address, in
    /// that address's name. Off by default: the guest may ask any server that the policy lets it reach
    /// (RFC 5625 section 5). Has no effect with [`Dns::Off`].
    pub fn dns_intercept(mut self, intercepts: bool) -> Self {
        self.0.dns_intercept = intercepts;
        self
    }

    /// Has the DNS forwarder answer for a name itself: A or AAAA with this address, nothing for other
    /// types, and no upstream hears of it. A name may have several addresses. `host.framegate.internal` is
    /// the gateway while [`host_loopback`](Self::host_loopback) is allowed, and nothing else under
    /// `framegate.internal` exists but what is added here.
    pub fn dns_record(mut self, name: &str, address: IpAddr) -> Self {
        self.0.dns_records.push((name.to_owned(), address));
        self
    }

    /// The resolver configuration that [`Dns::Host`] follows, in place of `/etc/resolv.conf`. For tests.
    #[doc(hidden)]
    pub fn resolver_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.resolver_file = path.into();
        self
    }

    /// Who outside may send to the guest's UDP mappings.
    pub fn udp_filtering(mut self, filtering: UdpFiltering) -> Self {
        self.0.udp_filtering = filtering;
        self
    }

    /// Whether the gateway is the guest's DHCP server (RFC 2131): it gives the guest's IPv4 address,
    /// the gateway as router and resolver, and the MTU. On by default; a guest that is configured
    /// otherwise does not ask.
    pub fn dhcp(mut self, on: bool) -> Self {
        self.0.dhcp = on;
        self
    }

    /// How long a lease is, in whole seconds: a minute to 136 years, by default 24 hours. The guest asks
    /// again after half of it, which wakes it.
    pub fn dhcp_lease(mut self, time: Duration) -> Self {
        self.0.dhcp_lease = time;
        self
    }

    /// Whether the gateway answers router solicitations (RFC 4861) with the guest's IPv6 prefix, the
    /// MTU, itself as resolver, and itself as default router while the host has an IPv6 default route.
    /// On by default; a guest that never solicits hears nothing. With a prefix of 64 bits the guest
    /// makes its own addresses.
    pub fn router_advertisements(mut self, on: bool) -> Self {
        self.0.router_advertisements = on;
        self
    }

    /// The bounds of what the guest can make the host spend.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.0.limits = limits;
        self
    }

    /// Leads ports of the host to the guest from the start on. See
    /// [`RuntimeHandle::publish`](crate::RuntimeHandle::publish), which does so later, and
    /// [`RuntimeHandle::published`](crate::RuntimeHandle::published), which has the addresses.
    pub fn publish(mut self, ports: Publish) -> Self {
        self.0.published.push(ports);
        self
    }

    /// Serves the guest in this process: each connection of the guest to `address` is handed to
    /// `handler`, on a thread of its own. The address may be any that the guest sends through its
    /// gateway, such as the gateway's own or 169.254.169.254; no policy applies to it, since it is the
    /// embedder's.
    ///
    /// A handler that panics resets its connection and nothing else. There are
    /// [`Limits::relay_threads`] connections at once. When the network stops, every read and write of the
    /// stream fails; [`Runtime::wait`] then waits for the handlers, so one that blocks elsewhere delays
    /// it.
    ///
    /// ```no_run
    /// use std::io::Write;
    ///
    /// let builder = framegate::Runtime::builder()
    ///     .service(([169, 254, 169, 254], 7).into(), |mut stream| {
    ///         let _ = stream.write_all(b"hello from the host\n");
    ///     });
    /// ```
    pub fn service(
        mut self,
        address: SocketAddr,
        handler: impl Fn(RelayStream) + Send + Sync + 'static,
    ) -> Self {
        self.0.services.push((address, Service::new(handler)));
        self
    }

    /// How fast the guest may send. Not limited by default;
    /// [`RuntimeHandle::set_rate_limits`](crate::RuntimeHandle::set_rate_limits) changes it later.
    pub fn rate_from_guest(mut self, limit: RateLimit) -> Self {
        self.0.rate_from_guest = limit;
        self
    }

    /// How fast the guest is sent to. As [`rate_from_guest`](Self::rate_from_guest).
    pub fn rate_to_guest(mut self, limit: RateLimit) -> Self {
        self.0.rate_to_guest = limit;
        self
    }

    /// Captures the guest's link. Off by default.
    pub fn capture(mut self, capture: Capture) -> Self {
        self.0.capture = Some(capture);
        self
    }

    /// Starts the gateway on a connected stream whose other end the VMM has: libkrun's
    /// `krun_add_net_unixstream`, QEMU's `-netdev stream`. Our end becomes non-blocking; the VMM's own
    /// flag is its own.
    ///
    /// # Errors
    /// [`StartError::Config`] if the configuration contradicts itself, [`StartError::Publish`] if a port
    /// cannot be published, [`StartError::Host`] if the host is out of descriptors, threads or memory.
    pub fn start(self, stream: UnixStream) -> Result<Runtime, StartError> {
        self.check()?;
        Runtime::start_on_stream(self.0, stream)
    }

    /// Starts the gateway alone, for a VMM in this process that moves the frames itself: it pushes
    /// what the guest sent with [`push_from_guest`](NetworkFrameQueues::push_from_guest) and takes what the
    /// guest is to get with [`drain_to_guest`](NetworkFrameQueues::drain_to_guest), waiting on
    /// [`host_wake`](NetworkFrameQueues::host_wake). Every frame it takes fits the guest's MTU.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with_queues(self, queues: Arc<NetworkFrameQueues>) -> Result<Runtime, StartError> {
        self.check()?;
        Runtime::start_on_queues(self.0, queues)
    }

    /// The configuration as it stands, for tests, fuzzers and benchmarks.
    #[cfg(any(fuzzing, framegate_bench, test))]
    pub(crate) fn into_config_for_tests(self) -> Config {
        self.0
    }

    /// Whether the configuration contradicts itself; [`start`](Self::start) asks this first.
    ///
    /// # Errors
    /// The first contradiction found.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::check(&self.0)
    }
}

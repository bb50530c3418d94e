//! Three namespaces: a guest with a tap device, the host where the gateway runs, and a server
//! beyond a veth pair.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use tempfile::TempDir;

use super::gateway::Gateway;
use super::namespace::Namespace;
use super::pattern::{self, Moved};
use super::pump::{Mode, Pump, Tap};
use super::{prerequisites, say, sys, tcp};

/// The gateway, as the guest sees it.
pub(crate) const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 96, 0, 1));
pub(crate) const GATEWAY_V6: IpAddr = v6([0xfd53, 0x4d00, 0, 0, 0, 0, 0, 1]);
/// The server, as the host and so the guest sees it.
pub(crate) const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(crate) const SERVER_V6: IpAddr = v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);

/// The server's second addresses.
pub(crate) const SECOND_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3));
pub(crate) const SECOND_V6: IpAddr = v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 3]);
/// The guest, as the gateway sees it.
pub(crate) const GUEST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 96, 0, 2));
pub(crate) const GUEST_V6: IpAddr = v6([0xfd53, 0x4d00, 0, 0, 0, 0, 0, 2]);

const fn v6(segments: [u16; 8]) -> IpAddr {
    let [a, b, c, d, e, f, g, h] = segments;
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    /// From the guest to the server.
    Upload,
    /// From the server to the guest.
    Download,
}

/// What a test wants of its lab.
pub(crate) struct Setup<'a> {
    test: &'a str,
    tools: &'a [&'a str],
    mtu: u16,
    mode: Mode,
    gateway: &'a [&'a str],
    guest: bool,
    configured: bool,
    ping_sockets: bool,
}

/// A guest, a gateway and a server. Everything goes when this is dropped.
pub(crate) struct Lab {
    // Dropped in this order: the link first, the namespaces last.
    pub(crate) pump: Option<Pump>,
    pub(crate) gateway: Gateway,
    tap: Option<Tap>,
    pub(crate) guest: Namespace,
    pub(crate) host: Namespace,
    pub(crate) server: Namespace,
    directory: TempDir,
}

impl<'a> Setup<'a> {
    pub(crate) fn of(test: &'a str) -> Self {
        let (mtu, mode) = (1500, Mode::Plain);
        let gateway = &["--once"];
        let (guest, configured, ping_sockets) = (true, true, true);
        Self { test, tools: &[], mtu, mode, gateway, guest, configured, ping_sockets }
    }

    /// The test needs these programs.
    pub(crate) fn tools(self, tools: &'a [&'a str]) -> Self {
        Self { tools, ..self }
    }

    pub(crate) fn mtu(self, mtu: u16) -> Self {
        Self { mtu, ..self }
    }

    pub(crate) fn link(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// More arguments of the gateway, in place of `--once`.
    pub(crate) fn gateway(self, gateway: &'a [&'a str]) -> Self {
        Self { gateway, ..self }
    }

    /// The test brings its own guest: no tap, no pump.
    pub(crate) fn without_guest(self) -> Self {
        Self { guest: false, ..self }
    }

    /// The guest's NIC is up, and has no address and no route.
    pub(crate) fn unconfigured(self) -> Self {
        Self { configured: false, ..self }
    }

    /// The host allows nobody an ICMP socket, not even root.
    pub(crate) fn without_ping_sockets(self) -> Self {
        Self { ping_sockets: false, ..self }
    }

    /// The lab, running; `None` if this machine cannot have one and the test is skipped.
    pub(crate) fn start(self) -> Option<Lab> {
        if !prerequisites::met(self.test, self.tools) {
            return None;
        }
        say(format_args!("--- {}", self.test));
        sys::raise_descriptor_limit().unwrap();
        let directory = tempfile::Builder::new().prefix("framegate-").tempdir().unwrap();
        let [guest, host, server] = [(); 3].map(|()| Namespace::new().unwrap());
        join(&host, &server);
        let groups = if self.ping_sockets { "0 2147483647" } else { "1 0" };
        host.sysctl("ipv4/ping_group_range", groups);
        let gateway = Gateway::start(&host, directory.path(), self.mtu, self.gateway);
        let tap = self.guest.then(|| Tap::open(&guest, self.mode).unwrap());
        let mut lab = Lab { pump: None, gateway, tap, guest, host, server, directory };
        if self.guest {
            set_up(&lab.guest, self.mtu);
            if self.configured {
                configure(&lab.guest);
            }
            lab.plug_in();
        }
        Some(lab)
    }
}

impl Lab {
    /// Connects the guest's NIC to the gateway.
    pub(crate) fn plug_in(&mut self) {
        let stream = self.gateway.connect();
        self.pump = Some(Pump::start(self.tap.as_ref().unwrap(), stream).unwrap());
    }

    /// Where the test may put files.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// A listener of the server.
    pub(crate) fn listen(&self, ip: IpAddr) -> (TcpListener, SocketAddr) {
        let listener = self.server.listen((ip, 0));
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// A connection from the guest to the server: the guest's end and the server's end.
    pub(crate) fn connection(&self, ip: IpAddr) -> (TcpStream, TcpStream) {
        let (listener, address) = self.listen(ip);
        let client = self.guest.connect(address).expect("the guest connects to the server");
        (client, tcp::accept(&listener).expect("the server accepts"))
    }

    /// Moves bytes over one connection, checks every one, and says how fast.
    pub(crate) fn transfer(&self, ip: IpAddr, way: Direction, seed: u64, bytes: u64) -> Moved {
        let (client, server) = self.connection(ip);
        let (from, to) = match way {
            Direction::Upload => (client, server),
            Direction::Download => (server, client),
        };
        let (moved, time) = tcp::transfer(from, to, seed, bytes);
        say(format_args!("{way:?} {ip}: {moved}, {}", pattern::rate(bytes, time)));
        moved
    }
}

fn join(host: &Namespace, server: &Namespace) {
    host.ip(&format!("link add d0 type veth peer name d1 netns {}", server.path()));
    server.ip("addr add 192.0.2.1/24 dev d1
         addr add 192.0.2.3/24 dev d1
         addr add 2001:db8::1/64 dev d1 nodad
         addr add 2001:db8::3/64 dev d1 nodad preferred_lft 0
         link set d1 up");
    host.ip("addr add 192.0.2.2/24 dev d0
         addr add 2001:db8::2/64 dev d0 nodad
         link set d0 up
         route add default via 192.0.2.1
         route add default via 2001:db8::1");
    server.sysctl("core/somaxconn", "4096");
    server.sysctl("ipv4/tcp_max_syn_backlog", "4096");
}

/// Brings the guest's NIC up.
pub(crate) fn set_up(guest: &Namespace, mtu: u16) {
    // A tap drops what does not fit its queue, and a virtio-net NIC does not: a long queue.
    guest.ip(&format!(
        "link set tap0 address 02:53:4d:00:00:02 txqueuelen 20000 mtu {mtu}
         link set tap0 up"
    ));
}

/// Gives the guest's NIC its addresses and routes.
pub(crate) fn configure(guest: &Namespace) {
    guest.ip("addr add 100.96.0.2/30 dev tap0
         addr add fd53:4d00::2/64 dev tap0 nodad
         route add default via 100.96.0.1
         route add default via fd53:4d00::1");
}

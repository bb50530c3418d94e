//! The guest: a smoltcp stack on a [`Link`], driven by one thread.
//!
//! Everything the guest does is a call of [`Guest::until`] with a closure that looks at the sockets.
//! It is called after each batch of frames, and the thread sleeps in poll(2) in between, until frames
//! come, or room for those that wait, or one of TCP's own timers is due. What the stack cannot do or does
//! not show goes past it: [`raw`], with [`packets`] made by hand.

pub(super) mod packets;
pub(super) mod raw;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use framegate::MacAddress;
use smoltcp::iface::{
    Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet,
};
use smoltcp::socket::tcp;
use smoltcp::socket::{AnySocket, Socket};
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Cidr};

use self::packets::Fragments;
use super::link::Link;

/// Why a step failed.
pub(super) type Fault = Box<dyn std::error::Error + Send + Sync>;

/// How long a step waits for its next bit of progress.
const PATIENCE: Duration = Duration::from_secs(15);
/// Frames received between two looks at the sockets, so that acknowledgements leave early.
const BATCH: usize = 64;

/// The addresses of both ends, as far as the guest has learned them.
#[derive(Clone, Copy)]
struct Addresses {
    ipv4: Ipv4Addr,
    gateway_ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    gateway_ipv6: Ipv6Addr,
}

/// What a step makes of the sockets.
pub(super) enum Next<T> {
    /// It has what it waited for.
    Done(T),
    /// It has more to do; send what there is, and call it again.
    Again,
    /// It can do nothing before the gateway answers.
    Wait,
}

/// A guest operating system, as far as the network can tell.
pub(super) struct Guest {
    link: Link,
    interface: Interface,
    sockets: SocketSet<'static>,
    mac: MacAddress,
    own: Addresses,
    /// Where [`raw`] sends what is for the gateway.
    gateway_mac: EthernetAddress,
    fragments: Fragments,
    /// smoltcp counts time from here.
    booted: Instant,
    next_port: u16,
}

impl Guest {
    /// A guest that knows its MAC address and nothing else.
    pub(super) fn new(stream: UnixStream, mac: MacAddress) -> Result<Self, Fault> {
        let mut link = Link::new(stream)?;
        let mut config = Config::new(EthernetAddress(mac).into());
        config.random_seed = getrandom::u64()?;
        let interface = Interface::new(config, &mut link, smoltcp::time::Instant::ZERO);
        Ok(Self {
            link,
            interface,
            sockets: SocketSet::new(Vec::new()),
            mac,
            own: Addresses {
                ipv4: Ipv4Addr::UNSPECIFIED,
                gateway_ipv4: Ipv4Addr::UNSPECIFIED,
                ipv6: Ipv6Addr::UNSPECIFIED,
                gateway_ipv6: Ipv6Addr::UNSPECIFIED,
            },
            gateway_mac: EthernetAddress::BROADCAST,
            fragments: Fragments::default(),
            booted: Instant::now(),
            next_port: 49_152,
        })
    }

    pub(super) fn mac(&self) -> MacAddress {
        self.mac
    }

    /// Takes an IPv4 address and a default route.
    pub(super) fn set_ipv4(&mut self, address: Ipv4Cidr, router: Ipv4Addr) -> Result<(), Fault> {
        self.add_address(IpCidr::Ipv4(address))?;
        self.interface.routes_mut().add_default_ipv4_route(router)?;
        self.own.ipv4 = address.address();
        self.own.gateway_ipv4 = router;
        Ok(())
    }

    /// Takes an IPv6 address whose prefix is on this link, as `gateway` is.
    pub(super) fn set_ipv6(
        &mut self,
        address: Ipv6Addr,
        prefix: u8,
        gateway: Ipv6Addr,
    ) -> Result<(), Fault> {
        self.add_address(IpCidr::new(address.into(), prefix))?;
        self.own.ipv6 = address;
        self.own.gateway_ipv6 = gateway;
        Ok(())
    }

    fn add_address(&mut self, address: IpCidr) -> Result<(), Fault> {
        let mut is_full = false;
        self.interface.update_ip_addrs(|list| is_full = list.push(address).is_err());
        if is_full { Err("the guest's stack has no room for the address".into()) } else { Ok(()) }
    }

    /// The gateway's address in the family of `of`.
    pub(super) fn gateway(&self, of: IpAddr) -> IpAddr {
        match of {
            IpAddr::V4(_) => self.own.gateway_ipv4.into(),
            IpAddr::V6(_) => self.own.gateway_ipv6.into(),
        }
    }

    /// The guest's own address in the family of `of`.
    pub(super) fn address(&self, of: IpAddr) -> IpAddr {
        match of {
            IpAddr::V4(_) => self.own.ipv4.into(),
            IpAddr::V6(_) => self.own.ipv6.into(),
        }
    }

    /// Our end of a connection.
    pub(super) fn local(&self, socket: SocketHandle) -> Option<SocketAddr> {
        let local = self.sockets.get::<tcp::Socket<'_>>(socket).local_endpoint()?;
        Some(SocketAddr::new(local.addr.into(), local.port))
    }

    /// Frames that were sent and received.
    pub(super) fn frames(&self) -> u64 {
        self.link.frames()
    }

    /// A port of ours that nobody has had before.
    pub(super) fn port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(49_152);
        port
    }

    pub(super) fn add(&mut self, socket: impl AnySocket<'static>) -> SocketHandle {
        self.sockets.add(socket)
    }

    pub(super) fn remove(&mut self, socket: SocketHandle) -> Socket<'static> {
        self.sockets.remove(socket)
    }

    /// Runs the stack until `step` is done, or has waited in vain for too long.
    pub(super) fn until<S: AnySocket<'static>, T>(
        &mut self,
        socket: SocketHandle,
        mut step: impl FnMut(&mut S) -> Result<Next<T>, Fault>,
    ) -> Result<T, Fault> {
        let mut progress = Instant::now();
        loop {
            let more_frames = self.receive_batch();
            let next = step(self.sockets.get_mut(socket))?;
            self.send_all()?;
            match next {
                Next::Done(value) => return Ok(value),
                Next::Again => progress = Instant::now(),
                Next::Wait if more_frames => {}
                Next::Wait => self.sleep(progress)?,
            }
        }
    }

    /// Starts a connection with windows of `window` bytes. Use [`until`](Self::until) to see it through.
    pub(super) fn connect(&mut self, to: SocketAddr, window: usize) -> Result<SocketHandle, Fault> {
        let mut socket = tcp_socket(window);
        let port = self.port();
        socket.connect(self.interface.context(), to, port)?;
        Ok(self.add(socket))
    }

    /// Waits for one connection to a port of ours.
    pub(super) fn listen(&mut self, port: u16, window: usize) -> Result<SocketHandle, Fault> {
        let mut socket = tcp_socket(window);
        socket.listen(port)?;
        Ok(self.add(socket))
    }

    /// Connects and waits for the answer: established, or not (`false`) if it was refused.
    pub(super) fn is_accepted(&mut self, socket: SocketHandle) -> Result<bool, Fault> {
        self.until(socket, |socket: &mut tcp::Socket<'_>| {
            Ok(match socket.state() {
                tcp::State::SynSent => Next::Wait,
                tcp::State::Closed => Next::Done(false),
                _ => Next::Done(true),
            })
        })
    }

    /// [`connect`](Self::connect), to a server that is there.
    pub(super) fn open(&mut self, to: SocketAddr, window: usize) -> Result<SocketHandle, Fault> {
        let socket = self.connect(to, window)?;
        match self.is_accepted(socket)? {
            true => Ok(socket),
            false => Err(format!("the connection to {to} was refused").into()),
        }
    }

    /// Takes all that the host still sends, to the end of its stream, through `taker`. A reset is
    /// an error, and never an end.
    pub(super) fn read_to_end(
        &mut self,
        socket: SocketHandle,
        mut taker: impl FnMut(&[u8]),
    ) -> Result<(), Fault> {
        self.until(socket, |socket: &mut tcp::Socket<'_>| {
            let mut take = |bytes: &mut [u8]| {
                taker(bytes);
                (bytes.len(), bytes.len())
            };
            match socket.recv(&mut take) {
                Ok(0) => Ok(Next::Wait),
                // The ring's other part, if it wraps; and the window opens before more is taken.
                Ok(_) => Ok(Next::Again),
                Err(tcp::RecvError::Finished) => Ok(Next::Done(())),
                Err(tcp::RecvError::InvalidState) => Err("the connection was reset".into()),
            }
        })
    }

    /// Closes our direction, waits until both are closed, and forgets the connection.
    pub(super) fn close(&mut self, socket: SocketHandle) -> Result<(), Fault> {
        self.until(socket, |socket: &mut tcp::Socket<'_>| {
            socket.close();
            Ok(match socket.state() {
                tcp::State::TimeWait | tcp::State::Closed => Next::Done(()),
                _ => Next::Wait,
            })
        })?;
        self.remove(socket);
        Ok(())
    }

    /// Hands a batch of frames to smoltcp; whether there may be more.
    fn receive_batch(&mut self) -> bool {
        let now = self.now();
        (0..BATCH).all(|_| {
            let Self { link, interface, sockets, .. } = self;
            interface.poll_ingress_single(now, link, sockets) != PollIngressSingleResult::None
        })
    }

    /// Sends all that the sockets have to send, as far as the link takes it.
    fn send_all(&mut self) -> io::Result<()> {
        let now = self.now();
        let Self { link, interface, sockets, .. } = self;
        while interface.poll_egress(now, link, sockets) == PollResult::SocketStateChanged {}
        link.send()
    }

    /// Sleeps until there is something to do. That the gateway sends something is no progress: a
    /// step that waits for an echo is not helped by ARP.
    fn sleep(&mut self, progress: Instant) -> Result<(), Fault> {
        let patience = PATIENCE
            .checked_sub(progress.elapsed())
            .ok_or_else(|| format!("nothing for {} s", PATIENCE.as_secs()))?;
        let timer = match self.link.is_blocked() {
            // smoltcp would send at once, but the link has to take what it has first.
            true => None,
            false => self.interface.poll_delay(self.now(), &self.sockets),
        };
        self.link.wait(timer.map_or(patience, |timer| patience.min(timer.into())))?;
        Ok(())
    }

    fn now(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::ZERO + self.booted.elapsed().into()
    }
}

fn tcp_socket(window: usize) -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; window]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket
}

//! Published ports: ports of the host that lead to the guest.
//!
//! A port is bound by the thread that asks for it, so that what is wrong is said at once, and then handed
//! to the poll loop. The host's kernel accepts a client for us before the guest is asked: a client of a
//! port that nobody serves in the guest sees its connection established and reset at once, where an
//! ordinary closed port would refuse it. Refusing would need the listener to be closed while the guest's
//! port is, and the only way to learn that the guest has opened it is to ask the guest again and again.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::str::FromStr;

use socket2::{Domain, Socket, Type};

use crate::control::ControlError;

/// Clients that may wait to be accepted on one port; the kernel's own bound, `somaxconn`, is no higher by
/// default.
const BACKLOG: i32 = 4096;

/// The family of an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Transport {
    Tcp,
    Udp,
}

/// Ports of the host that lead to ports of the guest.
///
/// The guest sees connections from the gateway's address. An IPv4 address of the host leads to the
/// guest's configured IPv4 address and an IPv6 address to the configured IPv6 address, unless
/// [`to_family`](Self::to_family) says otherwise.
///
/// ```
/// use framegate::Publish;
///
/// // 127.0.0.1:8080 leads to the guest's port 80.
/// let web = Publish::tcp_port(8080, 80);
/// assert_eq!(web, "8080:80".parse()?);
/// assert_eq!(Publish::tcp(([0, 0, 0, 0], 8080).into(), 80), "0.0.0.0:8080:80".parse()?);
/// assert_eq!(web.to_string(), "tcp:127.0.0.1:8080:80");
/// # Ok::<(), framegate::PublishError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Publish {
    transport: Transport,
    address: IpAddr,
    host_ports: RangeInclusive<u16>,
    guest_ports: RangeInclusive<u16>,
    family: IpFamily,
}

impl Publish {
    /// One TCP port at an address of the host. Port 0 lets the kernel choose.
    pub fn tcp(host: SocketAddr, guest_port: u16) -> Self {
        Self::one(Transport::Tcp, host, guest_port)
    }

    /// One UDP port at an address of the host. Port 0 lets the kernel choose.
    pub fn udp(host: SocketAddr, guest_port: u16) -> Self {
        Self::one(Transport::Udp, host, guest_port)
    }

    /// One TCP port at the host's 127.0.0.1.
    pub fn tcp_port(host_port: u16, guest_port: u16) -> Self {
        Self::tcp((Ipv4Addr::LOCALHOST, host_port).into(), guest_port)
    }

    /// One UDP port at the host's 127.0.0.1.
    pub fn udp_port(host_port: u16, guest_port: u16) -> Self {
        Self::udp((Ipv4Addr::LOCALHOST, host_port).into(), guest_port)
    }

    /// A range of TCP ports, the first to the first and so on. Each costs a descriptor.
    ///
    /// # Errors
    /// [`PublishError::Ports`] if the ranges are empty, have different lengths or contain port 0.
    pub fn tcp_ports(
        host: IpAddr,
        host_ports: RangeInclusive<u16>,
        guest_ports: RangeInclusive<u16>,
    ) -> Result<Self, PublishError> {
        Self::range(Transport::Tcp, host, host_ports, guest_ports)
    }

    /// As [`tcp_ports`](Self::tcp_ports), for UDP.
    ///
    /// # Errors
    /// As [`tcp_ports`](Self::tcp_ports).
    pub fn udp_ports(
        host: IpAddr,
        host_ports: RangeInclusive<u16>,
        guest_ports: RangeInclusive<u16>,
    ) -> Result<Self, PublishError> {
        Self::range(Transport::Udp, host, host_ports, guest_ports)
    }

    /// Leads to the guest's address of this family.
    #[must_use]
    pub fn to_family(mut self, family: IpFamily) -> Self {
        self.family = family;
        self
    }

    fn one(transport: Transport, host: SocketAddr, guest_port: u16) -> Self {
        Self {
            transport,
            address: host.ip(),
            host_ports: host.port()..=host.port(),
            guest_ports: guest_port..=guest_port,
            family: if host.is_ipv4() { IpFamily::V4 } else { IpFamily::V6 },
        }
    }

    fn range(
        transport: Transport,
        address: IpAddr,
        host_ports: RangeInclusive<u16>,
        guest_ports: RangeInclusive<u16>,
    ) -> Result<Self, PublishError> {
        let is_chosen = host_ports == (0..=0) && guest_ports.len() == 1;
        if host_ports.is_empty()
            || host_ports.len() != guest_ports.len()
            || guest_ports.contains(&0)
            || (host_ports.contains(&0) && !is_chosen)
        {
            return Err(PublishError::Ports { host: host_ports, guest: guest_ports });
        }
        let family = if address.is_ipv4() { IpFamily::V4 } else { IpFamily::V6 };
        Ok(Self { transport, address, host_ports, guest_ports, family })
    }

    /// Binds every port, or none.
    pub(crate) fn bind(&self) -> Result<Vec<BoundPort>, PublishError> {
        if self.guest_ports.contains(&0) {
            return Err(PublishError::Ports {
                host: self.host_ports.clone(),
                guest: self.guest_ports.clone(),
            });
        }
        let pairs = self.host_ports.clone().zip(self.guest_ports.clone());
        pairs
            .map(|(host, guest_port)| {
                let address = SocketAddr::new(self.address, host);
                bind(self.transport, address)
                    .map(|(socket, host)| BoundPort {
                        socket,
                        host,
                        family: self.family,
                        guest_port,
                    })
                    .map_err(|source| PublishError::Bind { address, source })
            })
            .collect()
    }
}

/// `[tcp:|udp:][ADDR:]HOST_PORT[-HOST_PORT]:GUEST_PORT[-GUEST_PORT]`, an IPv6 address in brackets. TCP
/// and 127.0.0.1 where nothing is said.
impl FromStr for Publish {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, PublishError> {
        parse(text).ok_or_else(|| PublishError::Syntax(text.to_owned()))?
    }
}

fn parse(text: &str) -> Option<Result<Publish, PublishError>> {
    let (transport, rest) = match text.split_once(':')? {
        ("tcp", rest) => (Transport::Tcp, rest),
        ("udp", rest) => (Transport::Udp, rest),
        _ => (Transport::Tcp, text),
    };
    let (rest, guest_ports) = rest.rsplit_once(':')?;
    let (address, host_ports) = match rest.rsplit_once(':') {
        None => (Ipv4Addr::LOCALHOST.into(), rest),
        Some((address, ports)) => {
            let address = match address.strip_prefix('[') {
                Some(ipv6) => IpAddr::V6(ipv6.strip_suffix(']')?.parse().ok()?),
                None => IpAddr::V4(address.parse().ok()?),
            };
            (address, ports)
        }
    };
    Some(Publish::range(transport, address, ports(host_ports)?, ports(guest_ports)?))
}

fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    // `u16::from_str` takes a leading plus.
    let port = |digits: &str| {
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse::<u16>().ok() } else { None }
    };
    match text.split_once('-') {
        Some((first, last)) => Some(port(first)?..=port(last)?),
        None => port(text).map(|only| only..=only),
    }
}

/// As it is parsed.
impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.transport {
            Transport::Tcp => "tcp:",
            Transport::Udp => "udp:",
        })?;
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:")?,
            IpAddr::V6(address) => write!(f, "[{address}]:")?,
        }
        write!(f, "{}:{}", Ports(&self.host_ports), Ports(&self.guest_ports))
    }
}

struct Ports<'a>(&'a RangeInclusive<u16>);

impl fmt::Display for Ports<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.start() == self.0.end() {
            return write!(f, "{}", self.0.start());
        }
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

/// What was published, for [`unpublish`](crate::RuntimeHandle::unpublish). No two of one network are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishId(pub(crate) u64);

/// Ports that lead to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Their name.
    pub id: PublishId,
    /// The addresses of the host that were bound, in the order of the range.
    pub addresses: Vec<SocketAddr>,
}

/// Why a port was not published, or not taken back.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// The text is not `[tcp:|udp:][ADDR:]HOST_PORT[-HOST_PORT]:GUEST_PORT[-GUEST_PORT]`.
    Syntax(String),
    /// The ranges have different lengths, are empty or contain port 0; a single host port may be 0.
    Ports {
        /// The host's ports.
        host: RangeInclusive<u16>,
        /// The guest's ports.
        guest: RangeInclusive<u16>,
    },
    /// An address of the host cannot be bound: taken already (EADDRINUSE), not permitted (EACCES), not
    /// the host's (EADDRNOTAVAIL), or out of descriptors (EMFILE).
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of socket(2), bind(2) or listen(2).
        source: io::Error,
    },
    /// The host cannot watch the sockets that were bound.
    Watch(io::Error),
    /// Nothing is published under this name.
    Unknown(PublishId),
    /// The poll loop was not there to do it.
    Control(ControlError),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(text) => write!(
                f,
                "cannot publish {text:?}: it is not [tcp:|udp:][ADDR:]HOST_PORT[-HOST_PORT]:GUEST_PORT[-GUEST_PORT]"
            ),
            Self::Ports { host, guest } => write!(
                f,
                "cannot publish ports {} to ports {}: two ranges of the same length without port 0 are needed",
                Ports(host),
                Ports(guest)
            ),
            Self::Bind { address, source } => write!(f, "cannot publish {address}: {source}"),
            Self::Watch(error) => write!(f, "cannot watch a published port: {error}"),
            Self::Unknown(PublishId(id)) => write!(f, "no ports are published under {id}"),
            Self::Control(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind { source, .. } | Self::Watch(source) => Some(source),
            Self::Control(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ControlError> for PublishError {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}

/// A port of the host that is bound, and where it leads.
#[derive(Debug)]
pub(crate) struct BoundPort {
    pub(crate) socket: BoundSocket,
    pub(crate) host: SocketAddr,
    pub(crate) family: IpFamily,
    pub(crate) guest_port: u16,
}

/// A bound socket, not blocking.
#[derive(Debug)]
pub(crate) enum BoundSocket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

fn bind(transport: Transport, address: SocketAddr) -> io::Result<(BoundSocket, SocketAddr)> {
    let kind = match transport {
        Transport::Tcp => Type::STREAM,
        Transport::Udp => Type::DGRAM,
    };
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, kind.nonblocking().cloexec(), None)?;
    if address.is_ipv6() {
        // [::] would take the IPv4 port as well, and lead it to another address of the guest.
        socket.set_only_v6(true)?;
    }
    let socket = match transport {
        Transport::Tcp => {
            // Connections of an earlier run in TIME-WAIT do not hold the port.
            socket.set_reuse_address(true)?;
            // Whoever is accepted inherits it.
            socket.set_tcp_nodelay(true)?;
            socket.set_out_of_band_inline(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            BoundSocket::Tcp(socket.into())
        }
        Transport::Udp => {
            socket.bind(&address.into())?;
            BoundSocket::Udp(socket.into())
        }
    };
    let host = match &socket {
        BoundSocket::Tcp(listener) => listener.local_addr()?,
        BoundSocket::Udp(socket) => socket.local_addr()?,
    };
    Ok((socket, host))
}

#[cfg(test)]
mod tests;

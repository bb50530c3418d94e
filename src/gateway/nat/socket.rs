//! The host's socket of one mapping: unconnected, non-blocking, and told of the errors that the network
//! sends back.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};
use nix::sys::socket::{self as nix_socket, ControlMessageOwned, MsgFlags, SockaddrStorage};
use socket2::{Domain, Protocol, Socket, Type};

use crate::gateway::icmp::IcmpError;
use crate::handle;
use crate::sys::datagram;

/// What the kernel is asked to hold of datagrams that came while the poll loop was elsewhere: more than a
/// thousand of ordinary size. It gives as much as net.core.rmem_max allows.
const RECEIVE_BUFFER: usize = 4 << 20;
/// As [`RECEIVE_BUFFER`], for what waits for the host's network card.
const SEND_BUFFER: usize = 1 << 20;
/// Of a packet that an error is about, the host gives back no more than this.
const QUOTE: usize = 576;

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    Udp,
    /// ICMP and ICMPv6 echo, by a ping socket.
    Echo,
}

impl Carried {
    pub(crate) fn protocol(self) -> handle::Protocol {
        match self {
            Self::Udp => handle::Protocol::Udp,
            Self::Echo => handle::Protocol::Icmp,
        }
    }
}

/// An unconnected socket.
#[derive(Debug)]
pub(crate) struct NatSocket {
    socket: Socket,
    ipv6: bool,
    hop_limit: Option<u8>,
    dont_fragment: Option<bool>,
    /// Under which the poll loop hears of it.
    token: Token,
    waits_for_room: bool,
}

/// An error that the network, or the host itself, has reported of an earlier packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reported {
    /// Where the packet went. The host's own errors name no port.
    pub(crate) destination: SocketAddr,
    /// Who reported it; `None` for the host.
    pub(crate) from: Option<IpAddr>,
    /// `None` for what the guest need not know.
    pub(crate) what: Option<IcmpError>,
    /// What came back of the packet, from behind the UDP header or from the ICMP header on.
    pub(crate) data: Vec<u8>,
}

impl NatSocket {
    /// Opens a socket of the host; the poll loop hears of it under `token`.
    ///
    /// # Errors
    /// What the system calls report: EMFILE and ENFILE, and EACCES where ping sockets are forbidden.
    pub(crate) fn open(
        carried: Carried,
        ipv6: bool,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let (domain, echo) =
            if ipv6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
        let protocol = match carried {
            Carried::Udp => Protocol::UDP,
            Carried::Echo => echo,
        };
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new(domain, kind, Some(protocol))?;
        let any: SocketAddr = if ipv6 {
            socket.set_only_v6(true)?;
            nix_socket::setsockopt(&socket, Ipv6RecvErr, &true)?;
            (Ipv6Addr::UNSPECIFIED, 0).into()
        } else {
            nix_socket::setsockopt(&socket, Ipv4RecvErr, &true)?;
            (Ipv4Addr::UNSPECIFIED, 0).into()
        };
        // As much as the host allows is enough.
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        socket.bind(&any.into())?;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        let (hop_limit, dont_fragment) = (None, None);
        Ok(Self { socket, ipv6, hop_limit, dont_fragment, token, waits_for_room: false })
    }

    /// Whether the poll loop is to hear of room. Not always: the kernel says that there is room again for
    /// each datagram that has left, also to who has never been refused.
    ///
    /// # Errors
    /// What epoll_ctl(2) reports: ENOMEM.
    pub(crate) fn wait_for_room(&mut self, waits: bool, registry: &Registry) -> io::Result<()> {
        if waits == self.waits_for_room {
            return Ok(());
        }
        let read = Interest::READABLE;
        let interest = if waits { read | Interest::WRITABLE } else { read };
        registry.reregister(&mut SourceFd(&self.socket.as_raw_fd()), self.token, interest)?;
        self.waits_for_room = waits;
        Ok(())
    }

    pub(crate) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends datagrams that share a hop limit and whether they may be fragmented; as
    /// [`datagram::send`].
    pub(crate) fn send<'d>(
        &mut self,
        hop_limit: u8,
        dont_fragment: bool,
        datagrams: impl Iterator<Item = (SocketAddr, &'d [u8])>,
    ) -> io::Result<usize> {
        if self.hop_limit != Some(hop_limit) {
            if self.ipv6 {
                self.socket.set_unicast_hops_v6(hop_limit.into())?;
            } else {
                self.socket.set_ttl_v4(hop_limit.into())?;
            }
            self.hop_limit = Some(hop_limit);
        }
        if self.dont_fragment != Some(dont_fragment) {
            datagram::set_dont_fragment(self.fd(), self.ipv6, dont_fragment)?;
            self.dont_fragment = Some(dont_fragment);
        }
        datagram::send(self.fd(), datagrams)
    }

    /// Takes one error off the socket's queue.
    pub(crate) fn take_error(&self) -> Option<Reported> {
        let mut bytes = [0; QUOTE];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
        control.resize(control.capacity(), 0);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message = loop {
            match nix_socket::recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                flags,
            ) {
                Ok(message) => break message,
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return None,
            }
        };
        let mut reported = Reported {
            destination: message.address.as_ref().and_then(socket_address).unwrap_or_else(|| {
                let any: IpAddr = if self.ipv6 {
                    Ipv6Addr::UNSPECIFIED.into()
                } else {
                    Ipv4Addr::UNSPECIFIED.into()
                };
                (any, 0).into()
            }),
            from: None,
            what: None,
            data: Vec::new(),
        };
        for control in message.cmsgs().into_iter().flatten() {
            match control {
                ControlMessageOwned::Ipv4RecvErr(error, from) => {
                    reported.what = what(&error);
                    reported.from = from
                        .filter(|from| i32::from(from.sin_family) == libc::AF_INET)
                        .map(|from| Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)).into());
                }
                ControlMessageOwned::Ipv6RecvErr(error, from) => {
                    reported.what = what(&error);
                    reported.from = from
                        .filter(|from| i32::from(from.sin6_family) == libc::AF_INET6)
                        .map(|from| Ipv6Addr::from(from.sin6_addr.s6_addr).into());
                }
                _ => {}
            }
        }
        let len = message.bytes;
        reported.data = bytes.get(..len).unwrap_or_default().to_vec();
        Some(reported)
    }
}

/// Without the scope, which no address of the guest's has.
fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(address) = address.as_sockaddr_in() {
        return Some(SocketAddrV4::new(address.ip(), address.port()).into());
    }
    let address = address.as_sockaddr_in6()?;
    Some(SocketAddrV6::new(address.ip(), address.port(), 0, 0).into())
}

/// What an error means for the guest.
fn what(error: &libc::sock_extended_err) -> Option<IcmpError> {
    let (kind, code, info) = (error.ee_type, error.ee_code, error.ee_info);
    match (error.ee_origin, kind) {
        (libc::SO_EE_ORIGIN_LOCAL, _) => {
            let is_size = error.ee_errno == libc::EMSGSIZE as u32;
            is_size.then_some(IcmpError::TooBig { mtu: info })
        }
        (libc::SO_EE_ORIGIN_ICMP, 3) if code == 4 => Some(IcmpError::TooBig { mtu: info }),
        (libc::SO_EE_ORIGIN_ICMP6, 2) => Some(IcmpError::TooBig { mtu: info.max(1280) }),
        // Parameter problem: the pointer stands in the first byte (RFC 792), or fills all (RFC 4443).
        (libc::SO_EE_ORIGIN_ICMP, 12) => Some(IcmpError::Relayed { kind, code, rest: info << 24 }),
        (libc::SO_EE_ORIGIN_ICMP6, 4) => Some(IcmpError::Relayed { kind, code, rest: info }),
        (libc::SO_EE_ORIGIN_ICMP, 3 | 11) | (libc::SO_EE_ORIGIN_ICMP6, 1 | 3) => {
            Some(IcmpError::Relayed { kind, code, rest: 0 })
        }
        _ => None,
    }
}

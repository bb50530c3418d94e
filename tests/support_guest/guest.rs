//! A guest with a TCP of its own: smoltcp's.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::tcp::{RecvError, Socket, SocketBuffer, State};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::wire::Wire;
use super::{GATEWAY_V4, GATEWAY_V6, GUEST_MAC, GUEST_V4, GUEST_V6, PATIENCE, check};

/// How often a guest that waits for the host looks again.
const TICK: Duration = Duration::from_millis(2);

/// A guest, driven by the test's thread: nothing happens but in [`poll`](Self::poll) and what calls it.
pub(crate) struct Guest {
    pub(crate) device: Device,
    interface: Interface,
    pub(crate) sockets: SocketSet<'static>,
    started: Instant,
    next_port: u16,
    /// The buffers of the next sockets, in bytes each.
    pub(crate) buffer: usize,
}

/// The guest's network card.
pub(crate) struct Device {
    pub(crate) wire: Wire,
    inbox: VecDeque<Vec<u8>>,
    mtu: usize,
    /// The largest frame that came.
    pub(crate) largest: usize,
    /// Frames that came.
    pub(crate) frames: u64,
}

impl Device {
    fn take(&mut self, limit: Duration) -> bool {
        let Some(frame) = self.wire.receive(limit) else { return false };
        check::frame(&frame, self.mtu);
        self.largest = self.largest.max(frame.len());
        self.frames += 1;
        self.inbox.push_back(frame);
        true
    }
}

impl phy::Device for Device {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.inbox.pop_front()?;
        Some((Rx(frame), Tx(&self.wire)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Tx<'_>> {
        Some(Tx(&self.wire))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

pub(crate) struct Rx(Vec<u8>);

impl phy::RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, work: F) -> R {
        work(&self.0)
    }
}

pub(crate) struct Tx<'a>(&'a Wire);

impl phy::TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, work: F) -> R {
        let mut frame = vec![0; len];
        let result = work(&mut frame);
        self.0.send(&frame);
        result
    }
}

impl Guest {
    pub(crate) fn new(wire: Wire) -> Self {
        Self::with_mtu(wire, 1500)
    }

    pub(crate) fn with_mtu(wire: Wire, mtu: usize) -> Self {
        let mut device = Device { wire, inbox: VecDeque::new(), mtu, largest: 0, frames: 0 };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC)));
        config.random_seed = 7;
        let mut interface = Interface::new(config, &mut device, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddr::from(GUEST_V4).into(), 30)).unwrap();
            addresses.push(IpCidr::new(IpAddr::from(GUEST_V6).into(), 64)).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(GATEWAY_V4).unwrap();
        interface.routes_mut().add_default_ipv6_route(GATEWAY_V6).unwrap();
        Self {
            device,
            interface,
            sockets: SocketSet::new(Vec::new()),
            started: Instant::now(),
            next_port: 40_000,
            buffer: 256 * 1024,
        }
    }

    fn now(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros(self.started.elapsed().as_micros() as i64)
    }

    /// Handles what came and sends what there is.
    pub(crate) fn poll(&mut self) {
        while self.device.inbox.len() < 64 && self.device.take(Duration::ZERO) {}
        let now = self.now();
        self.interface.poll(now, &mut self.device, &mut self.sockets);
    }

    /// Lives until `done`.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.poll();
            if done(self) {
                return;
            }
            let states: Vec<_> = self.sockets.iter().map(|(_, socket)| state_of(socket)).collect();
            assert!(Instant::now() < deadline, "{what} never came; the sockets are in {states:?}");
            let now = self.now();
            let delay = self.interface.poll_delay(now, &self.sockets);
            let wait = delay.map_or(TICK, |delay| TICK.min(delay.into()));
            self.device.take(wait);
        }
    }

    /// Lives for a while.
    pub(crate) fn live(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.until("the end", |_| Instant::now() >= end);
    }

    /// Begins to connect.
    pub(crate) fn dial(&mut self, to: SocketAddr) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; self.buffer]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        self.next_port = if self.next_port == u16::MAX { 40_000 } else { self.next_port + 1 };
        socket.connect(self.interface.context(), to, self.next_port).unwrap();
        self.sockets.add(socket)
    }

    /// Connects.
    #[track_caller]
    pub(crate) fn connect(&mut self, to: SocketAddr) -> SocketHandle {
        let handle = self.dial(to);
        self.until("the connection", |guest| guest.state(handle) != State::SynSent);
        assert_eq!(self.state(handle), State::Established);
        handle
    }

    pub(crate) fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(crate) fn state(&mut self, handle: SocketHandle) -> State {
        self.socket(handle).state()
    }

    /// Puts all of it into the socket.
    #[track_caller]
    pub(crate) fn send(&mut self, handle: SocketHandle, bytes: &[u8]) {
        let mut sent = 0;
        self.until("room to send", |guest| {
            sent += guest.socket(handle).send_slice(&bytes[sent..]).unwrap();
            sent == bytes.len()
        });
        self.poll();
    }

    /// Puts bytes into the socket until nothing moves for a while, and says how many.
    #[track_caller]
    pub(crate) fn fill(&mut self, handle: SocketHandle, bytes: &[u8]) -> usize {
        let mut sent = 0;
        let mut last = (Instant::now(), 0);
        self.until("a full flow", |guest| {
            sent += guest.socket(handle).send_slice(&bytes[sent..]).unwrap();
            assert!(sent < bytes.len(), "the flow takes everything");
            // What the gateway has not acknowledged is still in the socket.
            let moved = sent - guest.socket(handle).send_queue();
            if moved != last.1 {
                last = (Instant::now(), moved);
            }
            last.0.elapsed() > Duration::from_millis(150)
        });
        sent
    }

    /// Sends nothing more.
    pub(crate) fn finish(&mut self, handle: SocketHandle) {
        self.socket(handle).close();
        self.poll();
    }

    /// Takes `len` bytes.
    #[track_caller]
    pub(crate) fn read_exact(&mut self, handle: SocketHandle, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        self.until("the bytes", |guest| {
            let result = take(guest.socket(handle), len, &mut all);
            assert!(result.is_ok() || all.len() == len, "{result:?} after {} bytes", all.len());
            all.len() == len
        });
        all
    }

    /// Takes everything up to the end, and says which it was: a FIN (`true`) or a reset.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self, handle: SocketHandle) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        let mut clean = false;
        self.until("the end of the stream", |guest| {
            match take(guest.socket(handle), usize::MAX, &mut all) {
                Ok(()) => false,
                Err(error) => {
                    clean = error == RecvError::Finished;
                    true
                }
            }
        });
        (all, clean)
    }

    /// Sends and receives at the same time until all is sent and the end has come.
    #[track_caller]
    pub(crate) fn exchange(&mut self, handle: SocketHandle, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut sent = 0;
        let mut all = Vec::new();
        let mut end = None;
        self.until("the end of both streams", |guest| {
            let socket = guest.socket(handle);
            if sent < bytes.len() {
                sent += socket.send_slice(&bytes[sent..]).unwrap_or_default();
                if sent == bytes.len() {
                    socket.close();
                }
            }
            if end.is_none() {
                end = take(socket, usize::MAX, &mut all).err();
            }
            // What is only queued is not sent: nobody polls this guest any more after that.
            sent == bytes.len()
                && end.is_some()
                && matches!(socket.state(), State::TimeWait | State::Closed)
        });
        (all, end == Some(RecvError::Finished))
    }

    /// Forgets sockets that are over.
    pub(crate) fn forget(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }
}

fn state_of(socket: &smoltcp::socket::Socket<'_>) -> State {
    match socket {
        smoltcp::socket::Socket::Tcp(socket) => socket.state(),
        // The program's features add kinds of sockets that this guest has none of.
        #[allow(unreachable_patterns)]
        _ => State::Closed,
    }
}

fn take(socket: &mut Socket<'_>, most: usize, all: &mut Vec<u8>) -> Result<(), RecvError> {
    loop {
        let left = most - all.len().min(most);
        let n = socket.recv(|bytes| {
            let n = bytes.len().min(left);
            all.extend_from_slice(&bytes[..n]);
            (n, n)
        })?;
        if n == 0 {
            return Ok(());
        }
    }
}

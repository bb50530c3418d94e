//! A gateway between a guest and the host's loopback, in one thread.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use framegate::bench::Nic;
use framegate::{Builder, Dns, Runtime};

use crate::Meter;
use crate::frames::{ACK, GATEWAY};
use crate::guest::{Flow, OPTIONS, Vmm};

/// Turns until what should happen has. It takes one or two.
const TURNS: usize = 20;

pub(crate) struct Lab {
    pub(crate) nic: Nic,
    pub(crate) vmm: Vmm,
    listener: TcpListener,
}

/// A gateway that lets the guest reach the host's loopback, and nothing else of the host.
pub(crate) fn builder() -> Builder {
    Runtime::builder().host_loopback(true).dns(Dns::Off)
}

/// Does not measure.
pub(crate) fn unmetered(work: &mut dyn FnMut()) {
    work();
}

impl Lab {
    pub(crate) fn new(builder: Builder) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let nic = Nic::new(builder, ours).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { nic, vmm: Vmm::new(theirs), listener }
    }

    /// Where the guest finds the listener.
    pub(crate) fn remote(&self) -> SocketAddr {
        SocketAddr::new(GATEWAY, self.listener.local_addr().unwrap().port())
    }

    /// One turn.
    pub(crate) fn turn(&mut self, meter: &mut Meter<'_>) {
        meter(&mut || self.nic.turn().expect("the link goes on"));
    }

    /// Turns until something has happened.
    pub(crate) fn until(
        &mut self,
        meter: &mut Meter<'_>,
        mut has_happened: impl FnMut(&mut Vmm) -> bool,
    ) {
        for _ in 0..TURNS {
            self.turn(meter);
            if has_happened(&mut self.vmm) {
                return;
            }
        }
        panic!("it does not happen");
    }

    /// The guest's half of a handshake: what is left is to acknowledge the gateway's SYN.
    pub(crate) fn connect(
        &mut self,
        port: u16,
        options: &[u8],
        meter: &mut Meter<'_>,
    ) -> (Flow, TcpStream) {
        let mut flow = Flow::new(self.remote(), port);
        self.vmm.send(&[flow.syn(options)]);
        self.until(meter, |vmm| {
            vmm.receive(|frame| flow.hear(frame));
            flow.is_open
        });
        let (host, _) = self.listener.accept().unwrap();
        host.set_nodelay(true).unwrap();
        host.set_nonblocking(true).unwrap();
        (flow, host)
    }

    /// A flow, open at both ends.
    pub(crate) fn open(&mut self, options: &[u8]) -> (Flow, TcpStream) {
        let (mut flow, host) = self.connect(40_000, options, &mut unmetered);
        self.vmm.send(&[flow.data(ACK, &[])]);
        self.turn(&mut unmetered);
        (flow, host)
    }

    /// A flow of a guest with an MTU of 1500, open at both ends.
    pub(crate) fn open_ordinary(&mut self) -> (Flow, TcpStream) {
        self.open(&OPTIONS)
    }
}

/// Takes what a socket of the host has; says how much.
pub(crate) fn receive(mut host: &TcpStream) -> usize {
    let mut bytes = [0; 64 << 10];
    let mut len = 0;
    loop {
        match host.read(&mut bytes) {
            Ok(0) => return len,
            Ok(n) => len += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return len,
            Err(error) => panic!("receive from the gateway: {error}"),
        }
    }
}

//! Whole turns of the poll loop: from the VMM's stream to sockets of the host's loopback, and back.

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};

use framegate::{Limits, Offload};

use crate::frames::{FIN, GATEWAY, GUEST, MSS, PSH, burst, udp};
use crate::guest::{LARGE_OPTIONS, OPTIONS};
use crate::lab::{Lab, builder, receive, unmetered};
use crate::{Part, Round};

/// Segments, or datagrams, of a round.
const SEGMENTS: usize = 40;

/// What a segment carries with TSO, and at an MTU of 65,520.
const LARGE: usize = 43 * MSS;
const JUMBO: usize = 65_480;

/// The bytes of a request, and of its answer.
const REQUEST: [u8; 100] = [7; 100];

pub(crate) fn parts() -> [Part; 9] {
    let n = SEGMENTS as u32;
    [
        Part::new("turn, up", n, "segment of 1460 bytes", || up(SEGMENTS * MSS, MSS)),
        Part::new("turn, up, offload", 1, "segment of 62,780 bytes", || up(LARGE, LARGE)),
        Part::new("turn, down", n, "segment of 1460 bytes, half an ack", || {
            down(SEGMENTS * MSS, MSS)
        }),
        Part::new("turn, down, jumbo", 1, "segment of 65,480 bytes, an ack", || down(JUMBO, JUMBO)),
        Part::new("turn, request", 1, "request and answer", request),
        Part::new("turn, connection", 1, "connection with a request", connection),
        Part::new("turn, udp up", n, "datagram of 1400 bytes", udp_up),
        Part::new("turn, udp down", n, "datagram of 1400 bytes", udp_down),
        Part::new("turn, udp request", 1, "request and answer", udp_request),
    ]
}

/// The guest sends, and the host receives.
fn up(len: usize, mss: usize) -> Round {
    let mut lab = Lab::new(builder().offload(Offload::Upload));
    let (mut flow, host) = lab.open_ordinary();
    let payload = vec![7; len];
    Box::new(move |meter| {
        lab.vmm.send(&burst(flow.segment(crate::frames::ACK, &[]), &payload, mss));
        flow.next = flow.next.wrapping_add(len as u32);
        let mut received = 0;
        lab.until(meter, |_| {
            received += receive(&host);
            received == len
        });
        lab.vmm.receive(|frame| flow.hear(frame));
    })
}

/// The host sends, and the guest receives and acknowledges.
fn down(len: usize, mss: usize) -> Round {
    let is_jumbo = mss > MSS;
    let jumbo = || builder().offload(Offload::Jumbo).mtu(65_520);
    let mut lab = Lab::new(if is_jumbo { jumbo() } else { builder() });
    let (mut flow, mut host) = lab.open(if is_jumbo { &LARGE_OPTIONS } else { &OPTIONS });
    let payload = vec![7; len];
    Box::new(move |meter| {
        host.write_all(&payload).expect("the host's socket has room");
        let (since, before) = (flow.expects, flow.bytes);
        lab.until(meter, |vmm| {
            vmm.receive(|frame| flow.hear(frame));
            flow.bytes == before + len
        });
        lab.vmm.send(&flow.acknowledgements(since, mss));
        lab.turn(meter);
    })
}

/// The guest asks, and the host answers, over a connection that stays.
fn request() -> Round {
    let mut lab = Lab::new(builder());
    let (mut flow, mut host) = lab.open_ordinary();
    Box::new(move |meter| {
        lab.vmm.send(&[flow.data(PSH, &REQUEST)]);
        lab.until(meter, |_| receive(&host) == REQUEST.len());
        host.write_all(&REQUEST).expect("the host's socket has room");
        let before = flow.bytes;
        lab.until(meter, |vmm| {
            vmm.receive(|frame| flow.hear(frame));
            flow.bytes == before + REQUEST.len()
        });
    })
}

/// The guest connects and asks, the host answers and closes, the guest closes.
fn connection() -> Round {
    // A full table, so that each connection makes way for another.
    let mut limits = Limits::default();
    limits.tcp_flows = 16;
    let mut lab = Lab::new(builder().limits(limits));
    let mut ports = (40_000..60_000).cycle();
    Box::new(move |meter| {
        let port = ports.next().unwrap_or_default();
        let (mut flow, mut host) = lab.connect(port, &OPTIONS, meter);
        lab.vmm.send(&[flow.data(PSH, &REQUEST)]);
        lab.until(meter, |_| receive(&host) == REQUEST.len());
        host.write_all(&REQUEST).expect("the host's socket has room");
        drop(host);
        lab.until(meter, |vmm| {
            vmm.receive(|frame| flow.hear(frame));
            flow.is_ended
        });
        lab.vmm.send(&[flow.data(FIN, &[])]);
        lab.until(meter, |vmm| {
            vmm.receive(|frame| flow.hear(frame));
            flow.acknowledged == flow.next
        });
    })
}

const GUEST_PORT: u16 = 50_000;

/// A gateway with a mapping of the guest's, the socket of the host that the guest sends to, the guest's
/// frame that does it, and where the gateway sends from.
fn mapping(payload: &[u8]) -> (Lab, UdpSocket, Vec<u8>, SocketAddr) {
    let mut lab = Lab::new(builder());
    let host = UdpSocket::bind("127.0.0.1:0").unwrap();
    host.set_nonblocking(true).unwrap();
    let port = host.local_addr().unwrap().port();
    let frame = udp((GUEST, GATEWAY), (GUEST_PORT, port), payload);
    lab.vmm.send(std::slice::from_ref(&frame));
    let mut from = None;
    lab.until(&mut unmetered, |_| {
        from = host.recv_from(&mut [0; 1500]).ok().map(|(_, from)| from);
        from.is_some()
    });
    (lab, host, frame, from.unwrap())
}

/// Takes what a socket of the host has; says how many datagrams.
fn receive_datagrams(host: &UdpSocket) -> usize {
    std::iter::from_fn(|| host.recv(&mut [0; 1500]).ok()).count()
}

fn udp_up() -> Round {
    let (mut lab, host, frame, _) = mapping(&[7; 1400]);
    let frames = vec![frame; SEGMENTS];
    Box::new(move |meter| {
        lab.vmm.send(&frames);
        let mut received = 0;
        lab.until(meter, |_| {
            received += receive_datagrams(&host);
            received == SEGMENTS
        });
    })
}

fn udp_down() -> Round {
    let (mut lab, host, _, from) = mapping(&[7; 1400]);
    Box::new(move |meter| {
        for _ in 0..SEGMENTS {
            host.send_to(&[7; 1400], from).expect("the host's socket has room");
        }
        let mut received = 0;
        lab.until(meter, |vmm| {
            vmm.receive(|_| received += 1);
            received == SEGMENTS
        });
    })
}

fn udp_request() -> Round {
    let (mut lab, host, frame, from) = mapping(&REQUEST);
    let frames = [frame];
    Box::new(move |meter| {
        lab.vmm.send(&frames);
        lab.until(meter, |_| receive_datagrams(&host) == 1);
        host.send_to(&REQUEST, from).expect("the host's socket has room");
        let mut received = 0;
        lab.until(meter, |vmm| {
            vmm.receive(|_| received += 1);
            received == 1
        });
    })
}

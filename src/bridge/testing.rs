//! Frames and links for the bridge's tests. The frames are made by smoltcp's wire types, so that they
//! share no code with what they test.

use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, Ipv4Address, Ipv4Packet,
    Ipv6Address, Ipv6Packet, TcpPacket,
};

use super::framing::prefix;
use super::{HandOver, prepare};
use crate::error::StopReason;
use crate::sync::Arc;
use crate::wire::flag;

/// A TCP segment in an Ethernet frame, described.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    pub(crate) ipv6: bool,
    pub(crate) port: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) window: u16,
    pub(crate) flags: u8,
    pub(crate) options: Vec<u8>,
    pub(crate) hops: u8,
    pub(crate) identification: u16,
    pub(crate) payload: Vec<u8>,
    pub(crate) padding: usize,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            ipv6: false,
            port: 40_000,
            sequence: 1,
            acknowledgement: 7,
            window: 1000,
            flags: flag::ACK,
            options: Vec::new(),
            hops: 64,
            identification: 9,
            payload: Vec::new(),
            padding: 0,
        }
    }
}

/// Bytes that say where in the stream they belong.
pub(crate) fn pattern(start: usize, len: usize) -> Vec<u8> {
    (start..start + len).map(|i| (i ^ (i >> 8)) as u8).collect()
}

/// A frame that is not IP.
pub(crate) fn opaque(len: usize, tag: u8) -> Vec<u8> {
    let mut frame = vec![tag; len];
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

impl Tcp {
    /// `len` bytes of the stream [`pattern`] from `start` on.
    pub(crate) fn data(start: usize, len: usize) -> Self {
        Self { sequence: start as u32, payload: pattern(start, len), ..Self::default() }
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let tcp_header = 20 + self.options.len();
        let tcp_len = tcp_header + self.payload.len();
        let ip_header = if self.ipv6 { 40 } else { 20 };
        let mut bytes = vec![0; 14 + ip_header + tcp_len + self.padding];
        let mut ethernet = EthernetFrame::new_unchecked(&mut bytes);
        ethernet.set_src_addr(EthernetAddress([2, 0, 0, 0, 0, 1]));
        ethernet.set_dst_addr(EthernetAddress([2, 0, 0, 0, 0, 2]));
        let protocol = if self.ipv6 { EthernetProtocol::Ipv6 } else { EthernetProtocol::Ipv4 };
        ethernet.set_ethertype(protocol);
        let (tcp, addresses) = if self.ipv6 {
            let (source, destination) = (
                Ipv6Address::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
                Ipv6Address::new(1, 2, 3, 4, 5, 6, 7, 8),
            );
            let mut ip = Ipv6Packet::new_unchecked(&mut bytes[14..]);
            ip.set_version(6);
            ip.set_next_header(IpProtocol::Tcp);
            ip.set_hop_limit(self.hops);
            ip.set_payload_len(tcp_len as u16);
            ip.set_src_addr(source);
            ip.set_dst_addr(destination);
            (&mut bytes[54..54 + tcp_len], (source.into(), destination.into()))
        } else {
            let (source, destination) =
                (Ipv4Address::new(100, 96, 0, 2), Ipv4Address::new(93, 184, 216, 34));
            let mut ip = Ipv4Packet::new_unchecked(&mut bytes[14..]);
            ip.set_version(4);
            ip.set_header_len(20);
            ip.set_total_len((20 + tcp_len) as u16);
            ip.set_ident(self.identification);
            ip.set_dont_frag(true);
            ip.set_hop_limit(self.hops);
            ip.set_next_header(IpProtocol::Tcp);
            ip.set_src_addr(source);
            ip.set_dst_addr(destination);
            ip.fill_checksum();
            (&mut bytes[34..34 + tcp_len], (source.into(), destination.into()))
        };
        tcp[20..tcp_header].copy_from_slice(&self.options);
        tcp[tcp_header..].copy_from_slice(&self.payload);
        tcp[12] = ((tcp_header / 4) << 4) as u8;
        tcp[13] = self.flags;
        let mut packet = TcpPacket::new_unchecked(tcp);
        packet.set_src_port(self.port);
        packet.set_dst_port(443);
        packet.set_seq_number(smoltcp::wire::TcpSeqNumber(self.sequence as i32));
        packet.set_ack_number(smoltcp::wire::TcpSeqNumber(self.acknowledgement as i32));
        packet.set_window_len(self.window);
        packet.fill_checksum(&addresses.0, &addresses.1);
        bytes
    }
}

/// A link: our end as the runtime prepares it, and the VMM's.
pub(crate) fn link() -> (Arc<UnixStream>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    prepare(&ours, crate::config::Offload::None).unwrap();
    (Arc::new(ours), theirs)
}

/// A stream of these frames.
pub(crate) fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().flat_map(|frame| [&prefix(frame.len())[..], frame].concat()).collect()
}

/// A bridge thread in a test.
pub(crate) struct Running(mpsc::Receiver<StopReason>);

impl Running {
    pub(crate) fn spawn(run: impl FnOnce() -> StopReason + Send + 'static) -> Self {
        let (send, receive) = mpsc::channel();
        thread::spawn(move || send.send(run()));
        Self(receive)
    }

    /// Why it ended. It must do so within a second.
    pub(crate) fn join(self) -> StopReason {
        self.0.recv_timeout(Duration::from_secs(1)).expect("the thread ends within a second")
    }

    /// It is still there after a while.
    pub(crate) fn assert_alive(&self) {
        let ended = self.0.recv_timeout(Duration::from_millis(50));
        assert!(ended.is_err(), "the thread ended: {ended:?}");
    }
}

/// A stand-in for the poll loop's part in a bridge thread's test: lends each half again that comes back,
/// until nobody else has the hand-over.
pub(crate) fn lend_again(hand_over: &Arc<HandOver>) {
    let hand_over = Arc::clone(hand_over);
    thread::spawn(move || {
        while Arc::strong_count(&hand_over) > 1 {
            if let Some(half) = hand_over.reclaim_receiver() {
                hand_over.lend_receiver(half);
            }
            if let Some(half) = hand_over.reclaim_sender() {
                hand_over.lend_sender(half);
            }
            // Frames and room are what the tests wait for, on bells of their own; this is a tick.
            thread::park_timeout(Duration::from_micros(200));
        }
    });
}

/// Waits for something that another thread does.
pub(crate) fn eventually(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(10), "it does not happen");
        thread::yield_now();
    }
}

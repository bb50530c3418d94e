//! Segments made by hand, for what no honest TCP would send.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use framegate::Runtime;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv6Packet, IpProtocol, Ipv4Packet,
    Ipv6Packet, TcpOption, TcpPacket,
};

use super::wire::Wire;
use super::{GATEWAY_MAC, GATEWAY_V4, GUEST_MAC, GUEST_V4, PATIENCE, check, guest_address};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// MSS 1460, window scale 7.
pub(crate) const OPTIONS: &[u8] = &[2, 4, 0x05, 0xb4, 1, 3, 3, 7];

/// One segment of the guest.
#[derive(Clone, Copy)]
pub(crate) struct Segment<'a> {
    pub(crate) from: u16,
    pub(crate) to: SocketAddr,
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledges: u32,
    pub(crate) window: u16,
    pub(crate) options: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    pub(crate) fn new(from: u16, to: SocketAddr, flags: u8) -> Self {
        let options = if flags & SYN != 0 { OPTIONS } else { &[] };
        Self {
            from,
            to,
            flags,
            sequence: 1000,
            acknowledges: 0,
            window: 0xffff,
            options,
            payload: &[],
        }
    }

    pub(crate) fn at(self, sequence: u32, acknowledges: u32) -> Self {
        Self { sequence, acknowledges, ..self }
    }

    pub(crate) fn with(self, payload: &'a [u8]) -> Self {
        Self { payload, ..self }
    }

    /// The frame, with every length and checksum right.
    pub(crate) fn frame(&self) -> Vec<u8> {
        assert_eq!(self.options.len() % 4, 0);
        let header = 20 + self.options.len();
        let len = header + self.payload.len();
        let mut tcp = vec![0; len];
        let (fields, payload) = tcp.split_at_mut(header);
        fields[20..].copy_from_slice(self.options);
        payload.copy_from_slice(self.payload);
        let mut packet = TcpPacket::new_unchecked(&mut tcp[..]);
        packet.set_src_port(self.from);
        packet.set_dst_port(self.to.port());
        packet.set_seq_number(smoltcp::wire::TcpSeqNumber(self.sequence as i32));
        packet.set_ack_number(smoltcp::wire::TcpSeqNumber(self.acknowledges as i32));
        packet.set_header_len(header as u8);
        packet.set_window_len(self.window);
        tcp[13] = self.flags;
        let guest = guest_address(self.to.ip());
        let mut packet = TcpPacket::new_unchecked(&mut tcp[..]);
        packet.fill_checksum(&guest.into(), &self.to.ip().into());
        ip_frame(guest, self.to.ip(), IpProtocol::Tcp, &tcp)
    }
}

/// A frame from the guest to the gateway with one IP packet in it.
pub(crate) fn ip_frame(from: IpAddr, to: IpAddr, protocol: IpProtocol, body: &[u8]) -> Vec<u8> {
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut bytes = vec![0; 20];
            let mut ip = Ipv4Packet::new_unchecked(&mut bytes[..]);
            ip.set_version(4);
            ip.set_header_len(20);
            ip.set_total_len(20 + body.len() as u16);
            ip.set_dont_frag(true);
            ip.set_hop_limit(64);
            ip.set_next_header(protocol);
            ip.set_src_addr(from);
            ip.set_dst_addr(to);
            ip.fill_checksum();
            bytes
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut bytes = vec![0; 40];
            let mut ip = Ipv6Packet::new_unchecked(&mut bytes[..]);
            ip.set_version(6);
            ip.set_payload_len(body.len() as u16);
            ip.set_hop_limit(64);
            ip.set_next_header(protocol);
            ip.set_src_addr(from);
            ip.set_dst_addr(to);
            bytes
        }
        _ => panic!("two families"),
    };
    let ethertype = if from.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
    let mut frame = [&GATEWAY_MAC[..], &GUEST_MAC, &ethertype].concat();
    frame.append(&mut packet);
    frame.extend_from_slice(body);
    frame
}

/// Who has the gateway's address?
pub(crate) fn arp_request() -> Vec<u8> {
    let mut frame = [&[0xff; 6], &GUEST_MAC[..], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    frame.extend_from_slice(&GUEST_MAC);
    frame.extend_from_slice(&GUEST_V4.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&GATEWAY_V4.octets());
    frame
}

/// What came from the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Tcp(Heard),
    Arp,
    /// An ICMP or ICMPv6 message: type and code.
    Icmp(u8, u8),
}

/// A segment from the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) from: SocketAddr,
    pub(crate) to_port: u16,
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    pub(crate) acknowledges: u32,
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) payload: Vec<u8>,
}

impl Heard {
    pub(crate) fn is(&self, flags: u8) -> bool {
        self.flags & (FIN | SYN | RST | ACK) == flags
    }

    /// Where the next segment begins.
    pub(crate) fn end(&self) -> u32 {
        let controls = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.sequence.wrapping_add(self.payload.len() as u32).wrapping_add(controls)
    }
}

/// A guest whose segments the test writes itself.
pub(crate) struct Raw {
    pub(crate) wire: Wire,
    pub(crate) mtu: usize,
    pub(crate) largest: usize,
}

impl Raw {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire, mtu: 1500, largest: 0 }
    }

    pub(crate) fn send(&self, segment: Segment<'_>) {
        self.wire.send(&segment.frame());
    }

    /// The next frame, checked and parsed.
    pub(crate) fn receive(&mut self, limit: Duration) -> Option<Seen> {
        let frame = self.wire.receive(limit)?;
        check::frame(&frame, self.mtu);
        self.largest = self.largest.max(frame.len());
        Some(parse(&frame))
    }

    /// The next segment that `wanted` accepts; other frames are passed over.
    #[track_caller]
    pub(crate) fn expect(&mut self, what: &str, wanted: impl Fn(&Heard) -> bool) -> Heard {
        let until = Instant::now() + PATIENCE;
        let mut passed = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.receive(left) {
                Some(Seen::Tcp(heard)) if wanted(&heard) => return heard,
                Some(other) => passed.push(other),
                None => panic!("no {what}; there came {passed:?}"),
            }
        }
    }

    /// The next segment, which must carry exactly these of FIN, SYN, RST and ACK.
    #[track_caller]
    pub(crate) fn expect_flags(&mut self, flags: u8) -> Heard {
        let heard = self.expect("segment", |_| true);
        assert!(heard.is(flags), "flags {flags:#x} were expected, not {heard:?}");
        heard
    }

    /// Everything that came until the gateway had handled what was sent so far, and had served its
    /// flows since.
    pub(crate) fn barrier(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        for _ in 0..3 {
            self.wire.send(&arp_request());
            loop {
                match self.receive(PATIENCE).expect("ARP is answered") {
                    Seen::Arp => break,
                    Seen::Tcp(heard) => all.push(heard),
                    Seen::Icmp(..) => {}
                }
            }
        }
        all
    }

    /// Waits until the gateway's counters are as `wanted`, taking what comes.
    #[track_caller]
    pub(crate) fn until(
        &mut self,
        what: &str,
        runtime: &Runtime,
        wanted: impl Fn(&framegate::Stats) -> bool,
    ) -> Vec<Heard> {
        let until = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        while !wanted(&runtime.stats()) {
            assert!(Instant::now() < until, "{what} never came: {}", runtime.stats());
            if let Some(Seen::Tcp(heard)) = self.receive(Duration::from_millis(2)) {
                all.push(heard);
            }
        }
        all
    }

    /// Opens a connection and returns where each side's next byte goes: the guest's, the host's.
    #[track_caller]
    pub(crate) fn open(&mut self, from: u16, to: SocketAddr) -> (u32, u32) {
        self.open_with(from, to, OPTIONS)
    }

    #[track_caller]
    pub(crate) fn open_with(&mut self, from: u16, to: SocketAddr, options: &[u8]) -> (u32, u32) {
        self.send(Segment { options, ..Segment::new(from, to, SYN) });
        let answer = self.expect("SYN-ACK", |heard| heard.to_port == from);
        assert!(answer.is(SYN | ACK), "{answer:?}");
        assert_eq!(answer.acknowledges, 1001);
        self.send(Segment::new(from, to, ACK).at(1001, answer.end()));
        (1001, answer.end())
    }
}

fn parse(frame: &[u8]) -> Seen {
    let ethernet = EthernetFrame::new_unchecked(frame);
    let (from, protocol, payload): (IpAddr, _, _) = match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let ip = Ipv4Packet::new_unchecked(ethernet.payload());
            (ip.src_addr().into(), ip.next_header(), ip.payload())
        }
        EthernetProtocol::Ipv6 => {
            let ip = Ipv6Packet::new_unchecked(ethernet.payload());
            (ip.src_addr().into(), ip.next_header(), ip.payload())
        }
        _ => return Seen::Arp,
    };
    match protocol {
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_unchecked(payload);
            return Seen::Icmp(icmp.msg_type().into(), icmp.msg_code());
        }
        IpProtocol::Icmpv6 => {
            let icmp = Icmpv6Packet::new_unchecked(payload);
            return Seen::Icmp(icmp.msg_type().into(), icmp.msg_code());
        }
        _ => {}
    }
    let tcp = TcpPacket::new_unchecked(payload);
    let mut mss = None;
    let mut options = tcp.options();
    while let Ok((rest, option)) = TcpOption::parse(options) {
        if let TcpOption::MaxSegmentSize(value) = option {
            mss = Some(value);
        }
        options = rest;
    }
    Seen::Tcp(Heard {
        from: SocketAddr::new(from, tcp.src_port()),
        to_port: tcp.dst_port(),
        flags: payload[13],
        sequence: tcp.seq_number().0 as u32,
        acknowledges: tcp.ack_number().0 as u32,
        window: tcp.window_len(),
        mss,
        payload: tcp.payload().to_vec(),
    })
}

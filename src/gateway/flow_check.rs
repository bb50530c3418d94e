//! What the fuzzer of `flow` drives: a TCP flow between any segments of a guest and a host end in this
//! process, in virtual time.
//!
//! # The input
//!
//! The first byte: 1 for IPv6, 2 for a link that cuts, 4 for segments that are received together with those
//! right after them, 8 for no memory for windows. Then steps, each begun by one byte:
//!
//! | byte | step | arguments |
//! |---|---|---|
//! | 0x00 to 0x3f | a segment with these flags where the guest stands | window / 257; words of options << 4 \| index of the payload's length; the options |
//! | 0x40 to 0x7f | the same elsewhere | before those: deltas of sequence and acknowledgement, 16 bits each |
//! | 0x80 | the host writes | n: 64 n + 1 bytes |
//! | 0x81 | the host ends its direction | |
//! | 0x82 | the host takes | n: 64 n + 1 bytes |
//! | 0x83 | time passes | n: 2ⁿ µs |
//! | 0x84 | time passes to the next deadline | |
//! | 0x85 | the guest acknowledges what it has, and goes back to what is acknowledged | |
//! | 0x86 | the guest stops reading its frames, or begins again | |
//! | 0x87 | the guest's next SYN has another number | n |
//!
//! # The oracle
//!
//! A byte of either stream is a function of its sequence number, so what is lost, doubled or moved
//! shows, whatever was sent twice. What the guest never sent is neither delivered nor acknowledged; what
//! the host never wrote does not come. Every frame fits the guest. A flow leaves no work that needs no
//! event, and once both ends are silent it ends by itself, with balanced counters.

mod frames;
mod input;

use std::net::{Ipv4Addr, Ipv6Addr};

use mio::Poll;
use smoltcp::iface::{Config as InterfaceConfig, Interface};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, TcpPacket, TcpSeqNumber};

use self::input::Input;
use super::device::{self, Outlet};
use super::egress::Egress;
use super::flows::Turn;
use super::link::Link;
use super::network::Network;
use crate::config::{Builder, Config, Limits};
use crate::metrics::Counters;
use crate::queues::NetworkFrameQueues;
use crate::sync::Arc;
use crate::wire::{self, flag};

const GUEST_PORT: u16 = 40_000;
const REMOTE_PORT: u16 = 80;
const REMOTE_V4: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 34);
const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb9, 0, 0, 0, 0, 0, 1);

/// The lengths of a payload that a step can choose.
const LENGTHS: [usize; 16] =
    [0, 1, 2, 10, 100, 536, 1459, 1460, 1461, 2920, 5000, 9000, 16_000, 32_000, 60_000, 65_000];

/// Bytes that the host may have written and the guest not taken.
const UNTAKEN: usize = 1 << 20;

/// Bytes that are received together, at the most.
const TOGETHER: usize = 256 * 1024;

/// Services of a flow at one moment after which it should be quiet.
const ROUNDS: usize = 2000;

/// Any bytes as steps of a flow's life, and the invariants of what comes of them.
pub(crate) fn fuzz_flow(data: &[u8]) {
    let Some((mode, steps)) = data.split_first() else { return };
    let Some(mut rig) = Rig::new(*mode) else { return };
    let together = if mode & 4 == 0 { 0 } else { TOGETHER };
    let mut input = Input(steps);
    while let Some(step) = input.byte() {
        let is_segment = step < 0x80;
        if !is_segment {
            rig.settle();
        }
        rig.step(step, &mut input);
        if !is_segment || rig.buffer.len() >= together {
            rig.settle();
        }
    }
    rig.end();
}

/// The byte at a place of a stream.
fn byte_at(sequence: u32) -> u8 {
    let [high, ..] = sequence.wrapping_mul(0x9e37_79b1).to_be_bytes();
    high
}

/// A flow's two ends as an observer between them knows them.
#[derive(Default)]
struct Model {
    /// Of the flow in the table; 0 for none.
    generation: u64,
    /// Of the guest's SYN that opened it.
    first: u32,
    /// Bytes that the host's end has taken out of its buffer, and that were seen to be right.
    taken: usize,
    seen: usize,
    /// The guest's end, in bytes, if its FIN was delivered.
    end: Option<usize>,
    /// Bytes that the host has written.
    written: usize,
    /// The gateway's initial sequence number, once it said one.
    remote_first: Option<u32>,
}

struct Rig {
    config: Config,
    link: Link,
    queues: Arc<NetworkFrameQueues>,
    counters: Counters,
    poll: Poll,
    egress: Egress,
    network: Network,
    now: Instant,
    ipv6: bool,
    is_stalled: bool,
    model: Model,
    /// The frames that are received together.
    buffer: Vec<u8>,
    /// What the guest has sent: where, and how much of the sequence.
    sent: Vec<(u32, u32)>,
    /// Where the guest has sent its first FIN.
    fin: Option<u32>,
    /// It was not the end of what the guest had sent, or was to send. smoltcp puts it after what it holds, and
    /// is one off in its blocks from then on.
    has_ended_early: bool,
    /// Of the guest's SYNs.
    first: u32,
    /// Where the guest stands.
    next: u32,
    /// What the guest expects, and what the gateway has acknowledged last.
    expects: u32,
    acknowledged: u32,
}

impl Rig {
    fn new(mode: u8) -> Option<Self> {
        let (ipv6, cuts) = (mode & 1 != 0, mode & 2 != 0);
        // The smallest window needs no memory.
        let (tcp_window, tcp_memory) =
            if mode & 8 == 0 { (1 << 16, 1 << 20) } else { (1 << 17, 0) };
        let limits = Limits {
            tcp_window,
            tcp_memory,
            tcp_idle: std::time::Duration::from_secs(300),
            tcp_transitory: std::time::Duration::from_secs(60),
            ..Limits::default()
        };
        let config = Builder::default().limits(limits).into_config_for_tests();
        let mut interface = Interface::new(
            InterfaceConfig::new(HardwareAddress::Ip),
            &mut device::Capabilities,
            Instant::ZERO,
        );
        interface.set_any_ip(true);
        let mut network = Network::new(&config, interface);
        network.flows.in_process = true;
        Some(Self {
            link: Link::new(&config, cuts),
            network,
            queues: NetworkFrameQueues::try_shared(64).ok()?,
            counters: Counters::default(),
            poll: Poll::new().ok()?,
            egress: Egress::default(),
            config,
            now: Instant::ZERO,
            ipv6,
            is_stalled: false,
            model: Model::default(),
            buffer: Vec::new(),
            sent: Vec::new(),
            fin: None,
            has_ended_early: false,
            first: 1000,
            next: 1000,
            expects: 0,
            acknowledged: 1000,
        })
    }

    fn turn<R>(&mut self, work: impl FnOnce(&mut Network, &mut Turn<'_, '_>) -> R) -> R {
        let mut outlet = Outlet::new(&self.queues, &self.counters);
        let mut turn = Turn {
            link: &self.link,
            outlet: &mut outlet,
            registry: self.poll.registry(),
            counters: &self.counters,
            egress: &mut self.egress,
            now: self.now,
        };
        work(&mut self.network, &mut turn)
    }

    fn step(&mut self, step: u8, input: &mut Input<'_>) {
        match step {
            0..=0x7f => {
                let wild = step & 0x40 != 0;
                let (sequence, acknowledges) =
                    if wild { (input.delta(), input.delta()) } else { (0, 0) };
                let window = u16::from(input.number()) * 257;
                let choice = input.number();
                let options = input.take(usize::from(choice >> 4).min(10) * 4);
                let len = LENGTHS.get(usize::from(choice & 15)).copied().unwrap_or(0);
                self.segment(step & 0x3f, (sequence, acknowledges), window, options, len, wild);
            }
            _ => match step & 7 {
                0 => self.write(64 * usize::from(input.number()) + 1),
                1 => self.with_end(|end, _| end.end()),
                2 => {
                    let most = 64 * usize::from(input.number()) + 1;
                    self.with_end(|end, model| {
                        let n = most.min(end.inbound().len());
                        end.inbound().drain(..n);
                        model.taken += n;
                    });
                }
                3 => self.now += Duration::from_micros(1 << (input.number() % 34)),
                4 => {
                    let next = self.network.next_deadline();
                    self.now = next.map_or(self.now, |next| next.max(self.now));
                }
                5 => {
                    self.next = self.acknowledged;
                    self.segment(flag::ACK, (0, 0), 0xffff, &[], 0, false);
                }
                6 => self.stall(!self.is_stalled),
                _ => {
                    self.first = self.first.wrapping_add(u32::from(input.number()) * 0x0101_0101);
                    self.next = self.first;
                }
            },
        }
    }

    fn stall(&mut self, is_stalled: bool) {
        self.is_stalled = is_stalled;
        self.listen();
    }

    fn segment(
        &mut self,
        flags: u8,
        deltas: (u32, u32),
        window: u16,
        options: &[u8],
        len: usize,
        wild: bool,
    ) {
        if flags & flag::SYN != 0 {
            // What was said of the flow before is not to be taken for what is said of the next.
            self.stall(false);
            if !wild {
                self.next = self.first;
            }
        }
        let sequence = self.next.wrapping_add(deltas.0);
        let acknowledges = self.expects.wrapping_add(deltas.1);
        let start = sequence.wrapping_add(u32::from(flags & flag::SYN != 0));
        let header = 20 + options.len().next_multiple_of(4);
        let ip = if self.ipv6 { 40 } else { 20 };
        let len = len.min(65_535 - ip - header);
        let mut bytes = vec![1; header];
        if let Some(place) = bytes.get_mut(20..20 + options.len()) {
            place.copy_from_slice(options);
        }
        bytes.extend((0..len).zip(0_u32..).map(|(_, n)| byte_at(start.wrapping_add(n))));
        let mut tcp = TcpPacket::new_unchecked(&mut bytes[..]);
        tcp.set_src_port(GUEST_PORT);
        tcp.set_dst_port(REMOTE_PORT);
        tcp.set_seq_number(TcpSeqNumber(sequence.cast_signed()));
        tcp.set_ack_number(TcpSeqNumber(acknowledges.cast_signed()));
        tcp.set_header_len(u8::try_from(header).unwrap_or(20));
        tcp.set_window_len(window);
        tcp.set_urgent_at(0);
        if let Some(byte) = bytes.get_mut(13) {
            *byte = flags;
        }
        let fin = u32::from(flags & flag::FIN != 0);
        let used = u32::try_from(len).unwrap_or(0).wrapping_add(fin);
        let last = start.wrapping_add(len as u32);
        if fin > 0 {
            self.fin.get_or_insert(last);
        }
        let is_beyond =
            |(from, len): &(u32, u32)| from.wrapping_add(*len).wrapping_sub(last).cast_signed() > 0;
        self.has_ended_early |= fin > 0 && self.sent.iter().any(is_beyond)
            || self.fin.is_some_and(|fin| last.wrapping_sub(fin).cast_signed() > 0);
        self.sent.push((start, used));
        if !wild {
            self.next = start.wrapping_add(used);
        }
        let frame = self.frame(&bytes);
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&frame);
        let mut buffer = std::mem::take(&mut self.buffer);
        let at = start..buffer.len();
        self.turn(|network, turn| network.handle_in_place(&mut buffer, &at, turn));
        self.buffer = buffer;
        self.meet();
    }

    /// Takes note of the flow that is in the table now, if it is another one.
    fn meet(&mut self) {
        let Some((generation, syn)) = self.network.flows.in_process_flow() else { return };
        if let Some(first) = syn {
            if generation != self.model.generation {
                self.model = Model { generation, ..Model::default() };
            }
            // A SYN with another number takes the place of the one that waits.
            self.model.first = first;
            self.network.flows.in_process_news();
        }
    }

    /// Works on the host's end of the flow, if there is one.
    fn with_end(&mut self, work: impl FnOnce(&mut super::buffer_end::BufferEnd, &mut Model)) {
        if let Some(end) = self.network.flows.in_process_end() {
            work(end, &mut self.model);
            self.network.flows.in_process_news();
        }
    }

    fn write(&mut self, len: usize) {
        // The stream to the guest is numbered from zero: its first number is known later.
        self.with_end(|end, model| {
            if end.has_ended() || end.waiting() > UNTAKEN {
                return;
            }
            let bytes: Vec<u8> =
                (model.written..model.written + len).map(|at| byte_at(at as u32)).collect();
            end.write(&bytes);
            model.written += len;
        });
    }

    /// Lets the gateway do all that it can do now.
    fn settle(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.turn(|network, turn| network.depart(&mut buffer, turn));
        buffer.clear();
        self.buffer = buffer;
        let mut rounds = 0;
        loop {
            self.turn(|network, turn| network.serve(turn));
            self.look();
            self.listen();
            rounds += 1;
            assert!(rounds < ROUNDS, "the flow never comes to rest");
            if !self.network.has_work() {
                break;
            }
        }
    }

    /// Looks at what was delivered.
    fn look(&mut self) {
        let Self { network, model, sent, .. } = self;
        let Some(end) = network.flows.in_process_end() else { return };
        let has_ended = end.guest_has_ended();
        let inbound = end.inbound();
        let delivered = model.taken + inbound.len();
        let start = model.first.wrapping_add(1);
        for (at, byte) in inbound.iter().enumerate().skip(model.seen - model.taken) {
            let sequence = start.wrapping_add((model.taken + at) as u32);
            assert_eq!(*byte, byte_at(sequence), "byte {} of the guest", model.taken + at);
        }
        model.seen = delivered;
        let most = contiguous(sent, start);
        assert!(delivered as u64 <= u64::from(most), "{delivered} bytes of {most} that were sent");
        if let Some(end) = model.end {
            assert_eq!(delivered, end, "nothing comes after the guest's end");
        } else if has_ended {
            model.end = Some(delivered);
        }
    }

    /// The guest takes its frames, if it does.
    fn listen(&mut self) {
        if self.is_stalled {
            return;
        }
        let mut frames = Vec::new();
        {
            let mut drain = self.queues.drain_to_guest();
            while let Some(frame) = drain.pop() {
                frames.push(frame);
            }
        }
        for frame in frames {
            self.hear(&frame);
            self.queues.recycle(frame);
        }
        if self.queues.guest_wake.take().space() {
            self.network.room_to_guest();
        }
    }

    fn hear(&mut self, frame: &[u8]) {
        assert_eq!(frame.get(..6), Some(&self.config.guest_mac[..]), "frames go to the guest");
        let layout = wire::tcp_layout(frame);
        let fits = frame.len() <= self.config.max_frame_to_guest();
        assert!(fits || (self.link.cuts && layout.is_some()), "no frame wedges the guest");
        let Some(layout) = layout else { return };
        let Some(segment) = frame.get(layout.tcp..layout.end) else { return };
        let tcp = TcpPacket::new_unchecked(segment);
        assert_eq!((tcp.src_port(), tcp.dst_port()), (REMOTE_PORT, GUEST_PORT));
        if tcp.rst() {
            assert!(tcp.payload().is_empty());
            return;
        }
        let sequence = tcp.seq_number().0.cast_unsigned();
        if tcp.syn() {
            self.model.remote_first = Some(sequence);
            self.expects = sequence.wrapping_add(1);
        }
        let Some(first) = self.model.remote_first else {
            panic!("a segment of the gateway before its SYN");
        };
        let offset = sequence.wrapping_sub(first).wrapping_sub(u32::from(!tcp.syn()));
        let len = tcp.payload().len();
        if len > 0 {
            let end = u64::from(offset) + len as u64;
            assert!(end <= self.model.written as u64, "{end} bytes of {}", self.model.written);
        }
        for (at, byte) in (offset..).zip(tcp.payload()) {
            assert_eq!(*byte, byte_at(at), "byte {at} of the host");
        }
        if sequence == self.expects {
            let used = len as u32 + u32::from(tcp.fin());
            self.expects = sequence.wrapping_add(used);
        }
        // What is acknowledged was sent, and all before it too.
        self.acknowledged = tcp.ack_number().0.cast_unsigned();
        let start = self.model.first.wrapping_add(1);
        let ahead = self.acknowledged.wrapping_sub(start);
        let most = contiguous(&self.sent, start);
        let most = most.wrapping_add(u32::from(self.has_ended_early));
        assert!(ahead <= most, "{ahead} are acknowledged of {most} that were sent");
        if self.has_ended_early {
            return;
        }
        for (left, right) in tcp.selective_ack_ranges().into_iter().flatten().flatten() {
            let (block, sent) = (right.wrapping_sub(left), contiguous(&self.sent, left));
            assert!(block <= sent, "{block} from {left} are held of {sent} that were sent");
        }
    }

    /// Both ends fall silent: the flow ends by itself.
    fn end(mut self) {
        self.stall(false);
        self.settle();
        let mut deadlines = 0;
        while let Some(next) = self.network.next_deadline() {
            self.now = next.max(self.now);
            self.settle();
            deadlines += 1;
            assert!(deadlines < 10_000, "the flow never ends");
        }
        let stats = self.counters.snapshot();
        assert_eq!((stats.tcp_flows, stats.tcp_half_open), (0, 0), "{stats}");
        assert_eq!(stats.tcp_opened, stats.tcp_closed, "{stats}");
        assert!(stats.tcp_established <= stats.tcp_opened, "{stats}");
    }
}

/// How many sequence numbers from `start` on were sent without a gap.
fn contiguous(sent: &[(u32, u32)], start: u32) -> u32 {
    let mut end = 0_u32;
    loop {
        let mut further = end;
        for (from, len) in sent {
            // Where the piece begins; before `start` is far ahead.
            let from = from.wrapping_sub(start).cast_signed();
            let to = i64::from(from) + i64::from(*len);
            if i64::from(from) <= i64::from(end) && to > i64::from(further) {
                further = u32::try_from(to).unwrap_or(further);
            }
        }
        if further == end {
            return end;
        }
        end = further;
    }
}

use std::net::Ipv4Addr;

use proptest::prelude::*;
use smoltcp::iface::{Config as InterfaceConfig, Interface};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, TcpPacket};

use super::*;
use crate::config::Limits;
use crate::gateway::classify::{Verdict, classify};
use crate::gateway::device::Capabilities;
use crate::gateway::flow::{Flow, Phase};
use crate::gateway::flows::Flows;
use crate::gateway::fuzz_flow;
use crate::gateway::surroundings::Surroundings;
use crate::gateway::testing::{GATEWAY, Tcp, link};
use crate::wire::flag::{ACK, FIN, PSH, SYN};

/// What the far end takes before somebody reads there.
const ROOM: usize = 128 * 1024;

/// A flow of a guest that sends, and a far end that is read by hand.
struct Upload {
    surroundings: Surroundings,
    flows: Flows,
    /// Frames that are received and not done with.
    buffer: Vec<u8>,
    /// Where the guest's bytes begin, and ours.
    first: u32,
    ours: u32,
}

impl Upload {
    fn new(options: &[u8]) -> Self {
        Self::with_limits(options, Limits::default())
    }

    fn with_limits(options: &[u8], limits: Limits) -> Self {
        let config = InterfaceConfig::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut Capabilities, Instant::ZERO);
        interface.set_any_ip(true);
        let mut flows = Flows::new(limits, interface);
        flows.in_process = true;
        // The numbers of both ends pass zero.
        let first = 0_u32.wrapping_sub(5000);
        let mut upload = Self {
            surroundings: Surroundings::new(link()),
            flows,
            buffer: Vec::new(),
            first,
            ours: 0,
        };
        let syn = Tcp { sequence: first.wrapping_sub(1), acknowledges: 0, ..upload.segment(SYN) };
        let syn = Tcp { options: [&[2, 4, 5, 0xb4], options].concat(), ..syn };
        let frame = syn.frame();
        let segment = upload.classify(&frame);
        upload.surroundings.turn(|turn| upload.flows.segment(frame, &segment, turn));
        let [said] = &upload.serve()[..] else { panic!("no SYN-ACK") };
        upload.ours = said.sequence.wrapping_add(1);
        upload.hear(ACK, 0, 0);
        assert!(upload.serve().is_empty());
        upload
    }

    fn segment(&self, flags: u8) -> Tcp {
        let acknowledges = self.ours;
        Tcp { acknowledges, ..Tcp::to(Ipv4Addr::new(93, 184, 216, 34), flags) }
    }

    fn classify(&self, frame: &[u8]) -> Segment {
        match classify(frame, &self.surroundings.link) {
            Ok(Verdict::Tcp(segment)) => segment,
            other => panic!("{other:?}"),
        }
    }

    /// Bytes of the guest's stream from `at` on, received with what was received before.
    fn hear(&mut self, flags: u8, at: usize, len: usize) {
        let payload = (at..at + len).map(byte).collect();
        let sequence = self.first.wrapping_add(at as u32);
        self.receive(&Tcp { sequence, payload, ..self.segment(flags) });
    }

    fn receive(&mut self, segment: &Tcp) {
        let frame = segment.frame();
        let at = self.buffer.len()..self.buffer.len() + frame.len();
        self.buffer.extend(&frame);
        let segment = self.classify(&frame);
        let Self { surroundings, flows, buffer, .. } = self;
        assert!(surroundings.turn(|turn| flows.continue_in_place(buffer, &at, &segment, turn)));
    }

    /// Does what there is to do, and says what the guest gets.
    fn serve(&mut self) -> Vec<Answer> {
        let Self { surroundings, flows, buffer, .. } = self;
        surroundings.turn(|turn| flows.depart(buffer, turn));
        buffer.clear();
        while {
            surroundings.turn(|turn| flows.serve(64, turn));
            flows.has_work()
        } {}
        surroundings.frames().iter().map(|frame| Answer::of(frame)).collect()
    }

    /// As [`serve`](Self::serve), when the acknowledgement of a small segment is due.
    fn serve_later(&mut self) -> Vec<Answer> {
        self.surroundings.now += super::super::ACK_DELAY;
        self.serve()
    }

    fn open(&mut self) -> &mut Open {
        match self.flows.in_process_only() {
            Some(Flow { phase: Phase::Open(open), .. }) => open,
            _ => panic!("no flow is open"),
        }
    }

    /// Bytes that went past smoltcp.
    fn spliced(&mut self) -> u32 {
        self.open().splice.shift
    }

    /// Takes what the far end has, and says how far the stream is.
    #[track_caller]
    fn take(&mut self, from: usize) -> usize {
        let end = self.flows.in_process_end().unwrap();
        let taken: Vec<u8> = end.inbound().drain(..).collect();
        let expected: Vec<u8> = (from..from + taken.len()).map(byte).collect();
        assert!(taken == expected, "{} bytes from {from} on", taken.len());
        self.flows.in_process_news();
        from + taken.len()
    }

    fn number(&self, at: usize) -> u32 {
        self.first.wrapping_add(at as u32)
    }
}

fn byte(at: usize) -> u8 {
    ((at * 31) >> 3) as u8
}

/// What a segment to the guest says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    sequence: u32,
    acknowledges: u32,
    window: u16,
    len: usize,
    blocks: Vec<(u32, u32)>,
}

impl Answer {
    fn of(frame: &[u8]) -> Self {
        let layout = tcp_layout(frame).unwrap();
        let tcp = TcpPacket::new_checked(&frame[layout.tcp..layout.end]).unwrap();
        let ip = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
        assert!(tcp.verify_checksum(&ip(26).into(), &ip(30).into()));
        let blocks = tcp.selective_ack_ranges().unwrap();
        Self {
            sequence: tcp.seq_number().0 as u32,
            acknowledges: tcp.ack_number().0 as u32,
            window: tcp.window_len(),
            len: tcp.payload().len(),
            blocks: blocks.into_iter().flatten().collect(),
        }
    }
}

#[test]
fn the_stream_goes_past_smoltcp_and_is_acknowledged() {
    let mut upload = Upload::new(&[]);
    let mut at = 0;
    for round in 0..20 {
        for len in [1460, 64_000, 1, 30_000] {
            upload.hear(if len == 1 { ACK | PSH } else { ACK }, at, len);
            at += len;
        }
        let [answer] = &upload.serve()[..] else { panic!("one acknowledgement in round {round}") };
        assert_eq!((answer.sequence, answer.acknowledges), (upload.ours, upload.number(at)));
        assert_eq!((answer.window, answer.len), (u16::MAX, 0));
        assert_eq!(upload.take(at - 95_461), at);
    }
    assert_eq!(upload.spliced() as usize, at);
    assert_eq!(upload.surroundings.stats().tcp_bytes_to_host, at as u64);
    assert!(upload.serve_later().is_empty(), "everything is acknowledged");
}

#[test]
fn a_small_segment_is_acknowledged_a_little_later_or_with_data() {
    let mut upload = Upload::new(&[]);
    upload.hear(ACK | PSH, 0, 100);
    assert!(upload.serve().is_empty());
    let [answer] = &upload.serve_later()[..] else { panic!("one acknowledgement") };
    assert_eq!(answer.acknowledges, upload.number(100));
    upload.hear(ACK | PSH, 100, 100);
    upload.flows.in_process_end().unwrap().write(&[7; 50]);
    upload.flows.in_process_news();
    let [answer] = &upload.serve()[..] else { panic!("one answer") };
    assert_eq!((answer.acknowledges, answer.len), (upload.number(200), 50));
    assert!(upload.serve_later().is_empty());
    assert_eq!(upload.spliced(), 200);
}

#[test]
fn what_the_far_end_does_not_take_waits_in_the_ring() {
    let mut upload = Upload::new(&[]);
    for at in [0, 60_000, 120_000] {
        upload.hear(ACK, at, 60_000);
    }
    let answers = upload.serve();
    assert_eq!(answers.last().unwrap().acknowledges, upload.number(180_000));
    assert_eq!(upload.spliced() as usize, ROOM);
    // The next ones queue behind.
    upload.hear(ACK, 180_000, 1000);
    upload.serve();
    assert_eq!(upload.spliced() as usize, ROOM);
    assert_eq!(upload.take(0), ROOM);
    upload.serve();
    assert_eq!(upload.take(ROOM), 181_000);
    upload.hear(ACK, 181_000, 60_000);
    let answers = upload.serve();
    assert_eq!(answers.last().unwrap().acknowledges, upload.number(241_000));
    assert_eq!(upload.take(181_000), 241_000);
    assert_eq!(upload.spliced() as usize, ROOM + 60_000);
}

#[test]
fn beyond_a_hole_smoltcp_keeps_the_stream() {
    let mut upload = Upload::new(&[4, 2, 1, 1]);
    upload.hear(ACK, 0, 50_000);
    assert_eq!(upload.serve().len(), 1);
    // Without 50,000 to 51,000; then another hole after the first block.
    upload.hear(ACK, 51_000, 1000);
    let [answer] = &upload.serve()[..] else { panic!("one acknowledgement") };
    assert_eq!(answer.acknowledges, upload.number(50_000));
    assert_eq!(answer.blocks, [(upload.number(51_000), upload.number(52_000))]);
    upload.hear(ACK, 53_000, 1000);
    upload.hear(ACK, 50_000, 1000);
    let answers = upload.serve();
    assert_eq!(answers.last().unwrap().acknowledges, upload.number(52_000));
    assert_eq!(
        answers.last().unwrap().blocks,
        [(upload.number(53_000), upload.number(54_000))],
        "the second block stays"
    );
    assert_eq!(upload.spliced(), 50_000);
    upload.hear(ACK, 52_000, 1000);
    upload.hear(ACK, 54_000, 1000);
    upload.serve();
    // The ring is empty again, and so is what lay beyond.
    upload.hear(ACK, 55_000, 1000);
    upload.serve_later();
    assert_eq!(upload.spliced(), 51_000);
    assert_eq!(upload.take(0), 56_000);
}

#[test]
fn what_came_before_is_acknowledged_again_and_not_sent_again() {
    let mut upload = Upload::new(&[]);
    upload.hear(ACK, 0, 3000);
    assert_eq!(upload.serve().len(), 1);
    upload.hear(ACK, 0, 3000);
    upload.hear(ACK, 2000, 2000);
    let answers = upload.serve_later();
    assert_eq!(answers.first().unwrap().acknowledges, upload.number(3000));
    assert_eq!(answers.last().unwrap().acknowledges, upload.number(4000));
    assert_eq!(upload.take(0), 4000);
}

#[test]
fn the_guests_end_comes_after_its_bytes() {
    let mut upload = Upload::new(&[]);
    upload.hear(ACK, 0, 5000);
    upload.hear(ACK | PSH | FIN, 5000, 5000);
    let answers = upload.serve_later();
    assert_eq!(answers.last().unwrap().acknowledges, upload.number(10_001));
    assert!(upload.flows.in_process_end().unwrap().guest_has_ended());
    assert_eq!(upload.take(0), 10_000);
    assert_eq!(upload.spliced(), 10_000);
}

#[test]
fn a_hole_is_filled_without_memory_for_what_is_behind_it() {
    let limits = Limits { tcp_memory: 0, ..Limits::default() };
    let mut upload = Upload::with_limits(&[], limits);
    for at in [0, 60_000, 120_000] {
        upload.hear(ACK, at, 60_000);
    }
    upload.serve();
    assert_eq!(upload.take(0), ROOM);
    upload.serve();
    let at = upload.take(ROOM);
    assert_eq!(at, 180_000, "it has had most of its share");
    upload.hear(ACK, at + 5000, 5000);
    upload.serve();
    // More than there is room for, and no way past smoltcp, which has what is behind the hole.
    upload.hear(ACK, at, 60_000);
    upload.serve();
    assert_eq!(upload.surroundings.stats().dropped(DropReason::WindowMemory), 1);
    let then = upload.take(at);
    assert!(then >= at + 10_000, "{then}");
    upload.hear(ACK, then, 60_000);
    upload.serve();
    assert_eq!(upload.take(then), then + 60_000);
}

#[test]
fn an_end_beyond_a_hole_is_not_kept() {
    let mut upload = Upload::new(&[]);
    upload.hear(ACK | FIN, 10_000, 0);
    upload.serve();
    upload.hear(ACK, 0, 10_000);
    upload.serve();
    assert_eq!(upload.spliced(), 10_000);
    assert!(!upload.flows.in_process_end().unwrap().guest_has_ended());
    upload.hear(ACK | FIN, 10_000, 0);
    upload.serve();
    assert!(upload.flows.in_process_end().unwrap().guest_has_ended());
}

#[test]
fn nothing_follows_the_guests_end() {
    let mut upload = Upload::new(&[]);
    for at in [0, 60_000, 120_000] {
        upload.hear(ACK, at, 60_000);
    }
    upload.hear(ACK | FIN, 180_000, 1000);
    // The far end is full, so the end is still to come; what is sent behind it is not taken.
    upload.serve();
    upload.hear(ACK, 181_001, 1000);
    upload.hear(ACK, 180_500, 1000);
    let answers = upload.serve_later();
    assert!(answers.iter().all(|answer| answer.acknowledges == upload.number(181_001)));
    assert_eq!(upload.take(0), ROOM);
    upload.serve();
    assert_eq!(upload.take(ROOM), 181_000);
    assert!(upload.flows.in_process_end().unwrap().guest_has_ended());
}

#[test]
fn smoltcp_hears_what_a_spliced_segment_acknowledges() {
    let mut upload = Upload::new(&[]);
    upload.flows.in_process_end().unwrap().write(&[7; 1000]);
    upload.flows.in_process_news();
    assert_eq!(upload.serve().iter().map(|answer| answer.len).sum::<usize>(), 1000);
    upload.ours = upload.ours.wrapping_add(1000);
    upload.hear(ACK, 0, 4000);
    upload.serve();
    assert_eq!(upload.open().socket.socket(|socket| socket.send_queue()), 0);
    assert_eq!(upload.spliced(), 4000);
    // What was never sent is not acknowledged, and data that say so are not taken.
    upload.ours = upload.ours.wrapping_add(1);
    upload.hear(ACK, 4000, 1000);
    upload.serve_later();
    assert_eq!(upload.spliced(), 4000);
    assert_eq!(upload.take(0), 4000);
}

#[test]
fn an_urgent_segment_is_smoltcps() {
    let mut upload = Upload::new(&[]);
    upload.hear(ACK | flag::URG, 0, 1000);
    upload.serve_later();
    assert_eq!(upload.spliced(), 0);
    assert_eq!(upload.take(0), 1000);
}

#[test]
fn numbers_are_moved_in_acknowledgements_alone() {
    let blocks = [&[5, 18][..], &[0xff; 4], &[0, 0, 0, 1], &[0; 4], &[0, 0, 1, 0]].concat();
    let options = [&[1, 1][..], &blocks, &[8, 10], &[9; 8], &[0, 0]].concat();
    let segment =
        Tcp { options, payload: vec![5; 30], acknowledges: u32::MAX, ..Tcp::to(GATEWAY, ACK) };
    let moved = |segment: &Tcp, shift| {
        let mut frame = segment.frame();
        renumber(&mut frame[34..], shift);
        let mut tcp = TcpPacket::new_unchecked(&mut frame[34..]);
        tcp.fill_checksum(&segment.from.ip().into(), &segment.to.ip().into());
        frame
    };
    let blocks =
        [&[5, 18][..], &[0, 0, 0, 9], &[0, 0, 0, 11], &[0, 0, 0, 10], &[0, 0, 1, 10]].concat();
    let options = [&[1, 1][..], &blocks, &[8, 10], &[9; 8], &[0, 0]].concat();
    let expected = Tcp { options, acknowledges: 9, ..segment.clone() };
    assert_eq!(moved(&segment, 10), expected.frame());
    assert_eq!(moved(&segment, 0), segment.frame());
    // Without ACK the field means nothing.
    let reset = Tcp::to(GATEWAY, flag::RST);
    assert_eq!(moved(&reset, 10), reset.frame());
    // Options that lie about their length.
    for options in [vec![5, 40, 1, 1], vec![5, 0, 1, 1], vec![5, 3, 7, 5], vec![3, 255, 5, 10]] {
        moved(&Tcp { options, ..Tcp::to(GATEWAY, ACK) }, 10);
    }
}

/// Steps of an upload as [`fuzz_flow`] reads them.
fn step() -> impl Strategy<Value = Vec<u8>> {
    let segment = |flags: u8, len: u8| vec![flags, 0xff, len];
    prop_oneof![
        8 => (4_u8..16).prop_map(move |len| segment(ACK, len)),
        1 => (0_u8..16).prop_map(move |len| segment(ACK | PSH, len)),
        // Somewhere near.
        2 => (any::<i16>(), -2_i16..2, 0_u8..16).prop_map(|(sequence, acknowledges, len)| {
            let (sequence, acknowledges) = ((sequence / 4).to_be_bytes(), acknowledges.to_be_bytes());
            [&[ACK | 0x40][..], &sequence, &acknowledges, &[0xff, len]].concat()
        }),
        // With another window.
        1 => any::<u8>().prop_map(|window| vec![ACK, window, 7]),
        4 => any::<u8>().prop_map(|n| vec![0x82, n]),
        1 => any::<u8>().prop_map(|n| vec![0x80, n]),
        1 => Just(vec![0x84]),
        1 => Just(vec![0x85]),
        1 => Just(vec![0x86, 0x86]),
    ]
}

proptest! {
    #[test]
    fn whatever_comes_in_whatever_order_the_far_end_gets_the_stream(
        mode in 0_u8..16,
        steps in prop::collection::vec(step(), 0..60),
        ends in any::<bool>(),
    ) {
        let syn = [SYN, 0xff, 3 << 4, 2, 4, 5, 0xb4, 1, 3, 3, 7, 4, 2, 1, 1];
        let end = if ends { vec![ACK | FIN, 0xff, 7] } else { vec![] };
        let input = [&[mode][..], &syn, &[ACK, 0xff, 0], &steps.concat(), &end].concat();
        fuzz_flow(&input);
    }
}

//! Seeds of `flow`: lives of a TCP flow, in the form that `gateway::flow_check` reads.

use super::{Seeds, add};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const URG: u8 = 32;

/// Places in the target's list of payload lengths.
const NONE: u8 = 0;
const ONE: u8 = 1;
const HUNDRED: u8 = 4;
const FULL: u8 = 7;
const LARGE: u8 = 13;
const LARGEST: u8 = 15;

/// MSS 1460, window scale 7.
const OPTIONS: &[u8] = &[2, 4, 5, 0xb4, 1, 3, 3, 7];

/// Steps of a life, one after the other.
#[derive(Clone)]
struct Life(Vec<u8>);

impl Life {
    /// A link, and a flow that is established.
    fn open(mode: u8) -> Self {
        Self::closed(mode).segment_with(SYN, 0xff, OPTIONS, NONE).segment(ACK, NONE)
    }

    fn closed(mode: u8) -> Self {
        Self(vec![mode])
    }

    fn steps(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn segment(self, flags: u8, len: u8) -> Self {
        self.segment_with(flags, 0xff, &[], len)
    }

    fn segment_with(self, flags: u8, window: u8, options: &[u8], len: u8) -> Self {
        let words = (options.len() / 4) as u8;
        self.steps(&[flags, window, words << 4 | len]).steps(options)
    }

    /// A segment that is not where the guest stands.
    fn wild(self, flags: u8, sequence: i16, acknowledges: i16, len: u8) -> Self {
        let (sequence, acknowledges) = (sequence.to_be_bytes(), acknowledges.to_be_bytes());
        self.steps(&[flags | 0x40]).steps(&sequence).steps(&acknowledges).steps(&[0xff, len])
    }

    fn host_writes(self, n: u8) -> Self {
        self.steps(&[0x80, n])
    }

    fn host_ends(self) -> Self {
        self.steps(&[0x81])
    }

    fn host_takes(self, n: u8) -> Self {
        self.steps(&[0x82, n])
    }

    /// 2 to the n microseconds.
    fn time(self, n: u8) -> Self {
        self.steps(&[0x83, n])
    }

    fn deadline(self) -> Self {
        self.steps(&[0x84])
    }

    fn acknowledge(self) -> Self {
        self.steps(&[0x85])
    }

    fn stall(self) -> Self {
        self.steps(&[0x86])
    }

    fn new_number(self, n: u8) -> Self {
        self.steps(&[0x87, n])
    }

    fn times(self, n: usize, step: impl Fn(Self) -> Self) -> Self {
        (0..n).fold(self, |life, _| step(life))
    }
}

/// Each life over both families, over a link that cuts and one that does not, and with segments that are
/// received one by one and together; and without memory for windows.
pub(super) fn seeds(seeds: &mut Seeds) {
    for (name, life) in lives() {
        for (suffix, mode) in [
            ("v4", 0),
            ("v6", 1),
            ("v4_cut", 2),
            ("v6_cut", 3),
            ("v4_together", 4),
            ("v6_together", 7),
            ("v4_memory", 12),
        ] {
            let mut bytes = life.clone().0;
            bytes[0] = mode;
            add(seeds, format!("{name}_{suffix}"), bytes);
        }
    }
}

fn lives() -> Vec<(&'static str, Life)> {
    let open = || Life::open(0);
    let closed = || Life::closed(0);
    vec![
        ("syn_alone", closed().segment_with(SYN, 0xff, OPTIONS, NONE)),
        ("syn_repeated", closed().times(5, |life| life.segment(SYN, NONE)).segment(ACK, NONE)),
        ("syn_with_data", closed().segment(SYN, HUNDRED).segment(ACK, HUNDRED).host_takes(9)),
        ("syn_new_number", closed().segment(SYN, NONE).new_number(1).segment(SYN, NONE)),
        ("syn_in_flow", open().segment(ACK, ONE).segment(SYN, NONE).segment(ACK, ONE)),
        ("syn_fin", closed().segment(SYN | FIN, NONE)),
        ("syn_rst", closed().segment(SYN, NONE).segment(RST, NONE)),
        ("syn_ack", closed().segment(SYN | ACK, NONE)),
        (
            "mss_0",
            closed()
                .segment_with(SYN, 0xff, &[2, 4, 0, 0], NONE)
                .segment(ACK, NONE)
                .host_writes(99),
        ),
        (
            "mss_1",
            closed().segment_with(SYN, 0xff, &[2, 4, 0, 1], NONE).segment(ACK, NONE).host_writes(1),
        ),
        (
            "scale_15",
            closed()
                .segment_with(SYN, 0xff, &[1, 3, 3, 15], NONE)
                .segment(ACK, NONE)
                .host_writes(99),
        ),
        (
            "option_length_0",
            closed().segment_with(SYN, 0xff, &[9, 0, 0, 0], NONE).segment(ACK, NONE),
        ),
        (
            "timestamps",
            closed()
                .segment_with(SYN, 0xff, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0], NONE)
                .segment(ACK, ONE),
        ),
        (
            "sack",
            open().wild(ACK, 200, 0, HUNDRED).segment_with(
                ACK,
                0xff,
                &[1, 1, 5, 10, 0, 0, 4, 0, 0, 0, 5, 0],
                NONE,
            ),
        ),
        ("data_up", open().times(9, |life| life.segment(ACK | PSH, FULL)).host_takes(0xff)),
        ("data_down", open().times(9, |life| life.host_writes(0xff).acknowledge())),
        (
            "data_both",
            open().times(9, |life| life.host_writes(40).segment(ACK, HUNDRED).host_takes(3)),
        ),
        (
            "super_segments",
            open().times(3, |life| life.segment(ACK, LARGEST).host_takes(0xff).acknowledge()),
        ),
        (
            "more_than_the_host_takes",
            open().times(3, |life| {
                life.times(5, |life| life.segment(ACK, LARGE))
                    .host_takes(0xff)
                    .host_takes(0xff)
                    .acknowledge()
                    .segment(ACK | PSH, FULL)
                    .times(9, |life| life.host_takes(0xff))
            }),
        ),
        (
            "hole_after_data",
            open()
                .times(3, |life| life.segment(ACK, LARGE).host_takes(0xff).host_takes(0xff))
                .segment_with(ACK, 0xff, &[1, 1, 4, 2], FULL)
                .wild(ACK, 1460, 0, FULL)
                .wild(ACK, 4380, 0, FULL)
                .times(4, |life| life.segment(ACK, FULL))
                .segment(FIN | ACK, HUNDRED)
                .times(9, |life| life.host_takes(0xff)),
        ),
        (
            "data_and_acknowledgements",
            open().times(9, |life| {
                life.host_writes(20).segment(ACK, LARGE).segment_with(ACK, 7, &[], FULL)
            }),
        ),
        ("beyond_the_window", open().times(4, |life| life.segment(ACK, LARGEST))),
        (
            "beyond_the_syn_ack_s_window",
            closed().segment_with(SYN, 0xff, OPTIONS, NONE).wild(ACK, 31_000, 0, LARGEST),
        ),
        (
            "beyond_the_syn_ack_s_window_after_a_probe",
            closed()
                .segment_with(SYN, 0xff, OPTIONS, NONE)
                .segment_with(ACK, 0, &[], NONE)
                .host_writes(0)
                .times(3, Life::deadline)
                .wild(ACK, 31_000, 0, LARGEST),
        ),
        (
            "backwards",
            open()
                .wild(ACK, 300, 0, HUNDRED)
                .wild(ACK, 200, 0, HUNDRED)
                .wild(ACK, 100, 0, HUNDRED)
                .segment(ACK, HUNDRED),
        ),
        (
            "holes",
            open()
                .times(40, |life| life.wild(ACK, 150, 0, HUNDRED).segment(ACK, ONE))
                .host_takes(0xff),
        ),
        (
            "overlaps",
            open()
                .segment(ACK, FULL)
                .wild(ACK, -700, 0, FULL)
                .wild(ACK, -30, 0, FULL)
                .acknowledge(),
        ),
        ("old_data", open().segment(ACK, FULL).wild(ACK, -1460, 0, FULL).wild(ACK, -3000, 0, FULL)),
        ("ack_beyond", open().host_writes(9).wild(ACK, 0, 30_000, NONE).acknowledge()),
        ("ack_before", open().host_writes(9).acknowledge().wild(ACK, 0, -30_000, NONE)),
        (
            "zero_window",
            open()
                .segment_with(ACK, 0, &[], NONE)
                .host_writes(0xff)
                .times(5, Life::deadline)
                .segment(ACK, NONE),
        ),
        ("retransmission", open().host_writes(0xff).times(6, Life::deadline).acknowledge()),
        (
            "host_takes_nothing",
            open().times(6, |life| life.segment(ACK, LARGE).acknowledge()).times(5, Life::deadline),
        ),
        (
            "stalled",
            open()
                .stall()
                .times(60, |life| life.host_writes(0xff).segment(ACK, ONE))
                .stall()
                .times(9, Life::acknowledge),
        ),
        ("stalled_to_the_end", open().stall().times(20, |life| life.host_writes(0xff)).host_ends()),
        (
            "guest_ends_first",
            open()
                .segment(ACK, HUNDRED)
                .segment(FIN | ACK, NONE)
                .host_writes(9)
                .acknowledge()
                .host_ends()
                .segment(ACK, NONE),
        ),
        (
            "host_ends_first",
            open()
                .host_writes(9)
                .host_ends()
                .acknowledge()
                .segment(ACK, HUNDRED)
                .segment(FIN | ACK, NONE),
        ),
        ("both_end_at_once", open().host_ends().segment(FIN | ACK, NONE).acknowledge()),
        (
            "fin_with_data",
            open().segment(FIN | PSH | ACK, HUNDRED).host_takes(9).host_ends().acknowledge(),
        ),
        (
            "fin_before_data",
            open().wild(FIN | ACK, 100, 0, NONE).segment(ACK, HUNDRED).host_takes(9),
        ),
        (
            "fin_twice",
            open().segment(FIN | ACK, NONE).wild(FIN | ACK, -1, 0, NONE).wild(
                FIN | ACK,
                5,
                0,
                HUNDRED,
            ),
        ),
        ("data_after_fin", open().segment(FIN | ACK, NONE).segment(ACK, HUNDRED).host_takes(9)),
        (
            "data_after_fin_that_waits",
            open()
                .times(4, |life| life.segment(ACK, LARGE).acknowledge())
                .times(2, |life| life.segment(ACK, LARGE))
                .segment(FIN | ACK, HUNDRED)
                .segment(ACK, HUNDRED)
                .times(12, |life| life.host_takes(0xff)),
        ),
        ("rst_in_window", open().segment(ACK, ONE).wild(RST, 77, 0, NONE).segment(RST, NONE)),
        ("rst_after_data", open().segment(ACK, FULL).segment(RST | ACK, NONE)),
        ("rst_after_fin", open().segment(FIN | ACK, NONE).host_writes(9).segment(RST, NONE)),
        ("urgent", open().segment(URG | ACK, HUNDRED).host_takes(9)),
        (
            "time_wait",
            open().host_ends().acknowledge().segment(FIN | ACK, NONE).segment(ACK, NONE).time(20),
        ),
        (
            "time_wait_and_syn",
            open()
                .host_ends()
                .acknowledge()
                .segment(FIN | ACK, NONE)
                .segment(ACK, NONE)
                .new_number(3)
                .segment(SYN, NONE)
                .segment(ACK, ONE),
        ),
        ("idle", open().segment(ACK, ONE).time(29)),
        ("half_open_idle", closed().segment(SYN, NONE).time(27).segment(ACK, NONE)),
        ("flags_of_every_kind", (0..64).fold(open(), |life, flags| life.segment(flags, ONE))),
        ("no_flags", open().segment(0, HUNDRED).segment(0x3f, HUNDRED)),
    ]
}

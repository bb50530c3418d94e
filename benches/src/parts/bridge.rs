//! What the bridge does with frames.

use std::hint::black_box;

use framegate::bench::{Cut, Framing, checksum};

use crate::frames::{MSS, Tcp, burst, stream};
use crate::{Part, Round};

/// Frames of a round.
const FRAMES: usize = 40;

pub(crate) fn parts() -> [Part; 5] {
    [
        Part::new("framing", FRAMES as u32, "frame", framing),
        Part::new("merge", FRAMES as u32, "segment of 1460 bytes", merge_data),
        Part::new("merge, nothing to merge", FRAMES as u32, "acknowledgement", merge_nothing),
        Part::new("cut", FRAMES as u32, "segment of 1460 bytes", cut),
        Part::new("checksum", 64, "KiB", checksums),
    ]
}

fn data() -> Vec<Vec<u8>> {
    burst(Tcp::default(), &[7; FRAMES * MSS], MSS)
}

fn framing() -> Round {
    let bytes = stream(&data());
    let mut framing = Framing::default();
    Box::new(move |meter| {
        assert_eq!(framing.fill(black_box(&bytes)), bytes.len());
        let mut len = 0;
        meter(&mut || len = framing.decode());
        assert_eq!(len + 4 * FRAMES, bytes.len());
    })
}

fn merge(frames: &[Vec<u8>], merged: usize) -> Round {
    let bytes = stream(frames);
    let mut framing = Framing::default();
    Box::new(move |meter| {
        assert_eq!(framing.fill(black_box(&bytes)), bytes.len());
        let mut len = 0;
        meter(&mut || len = framing.merge());
        assert_eq!(len, merged);
    })
}

fn merge_data() -> Round {
    merge(&data(), 1)
}

fn merge_nothing() -> Round {
    let acknowledgement = |n| Tcp { acknowledges: n, ..Tcp::default() }.frame();
    merge(&(0..FRAMES as u32).map(acknowledgement).collect::<Vec<_>>(), FRAMES)
}

fn cut() -> Round {
    let frame = Tcp { payload: &[7; FRAMES * MSS], ..Tcp::default() }.frame();
    let mut cut = Cut::default();
    Box::new(move |meter| {
        let mut segments = 0;
        meter(&mut || segments = cut.cut(black_box(&frame), 1514));
        assert_eq!(segments, FRAMES);
    })
}

fn checksums() -> Round {
    let bytes = vec![7; 64 << 10];
    Box::new(move |meter| {
        meter(&mut || {
            black_box(checksum(black_box(&bytes)));
        });
    })
}

//! The capture of the guest's link, as tcpdump reads it.

#![cfg(all(feature = "runtime", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support_guest;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use framegate::{Builder, Capture, Offload, Publish, Runtime, StartError};

use support_guest::guest::Guest;
use support_guest::host::{Server, threads, threads_joined};
use support_guest::raw::{ACK, PSH, Raw, Segment, arp_request};
use support_guest::wire::{start, start_with_queues};
use support_guest::{PATIENCE, alone, pattern, say};

fn loopback() -> Builder {
    Runtime::builder().host_loopback(true)
}

/// What tcpdump says of a file, a line for each frame; `None`, visibly, where there is no tcpdump.
fn tcpdump(test: &str, file: &Path, options: &[&str]) -> Option<Vec<String>> {
    let output = Command::new("tcpdump").args(options).arg("-nn").arg("-r").arg(file).output();
    let Ok(output) = output else {
        assert!(std::env::var("CI").is_err(), "CI may not skip: {test} needs tcpdump");
        say(format!("SKIPPED (needs tcpdump): {test}"));
        return None;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tcpdump: {said}");
    assert!(said.contains("link-type EN10MB (Ethernet)"), "{said}");
    assert!(!said.contains("truncated"), "{said}");
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

#[test]
fn tcpdump_reads_a_connection() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("link.pcap");
    let server = Server::new();
    let (runtime, wire) = start(loopback().capture(Capture::to_file(&file)));
    let mut guest = Guest::new(wire);
    let handle = guest.connect(server.address);
    let mut stream = server.accept();
    guest.send(handle, b"hello");
    stream.read_exact(&mut [0; 5]).unwrap();
    stream.write_all(b"world").unwrap();
    guest.read_exact(handle, 5);
    runtime.shutdown();
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "a capture is for its owner alone");
    let Some(lines) = tcpdump("tcpdump_reads_a_connection", &file, &["-tt", "--nano"]) else {
        return;
    };
    let all = lines.join("\n");
    let port = server.address.port();
    for wanted in [
        "Request who-has 100.96.0.1".to_owned(),
        "Reply 100.96.0.1 is-at 02:53:4d:00:00:01".to_owned(),
        format!("> 100.96.0.1.{port}: Flags [S]"),
        format!("100.96.0.1.{port} > 100.96.0.2"),
        "Flags [S.]".to_owned(),
        "length 5".to_owned(),
    ] {
        assert!(all.contains(&wanted), "no {wanted} in\n{all}");
    }
    let times = lines.iter().map(|line| line.split(' ').next().unwrap().parse::<f64>().unwrap());
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    times.for_each(|time| assert!((now - 600.0..now + 1.0).contains(&time), "{time}"));
}

#[test]
fn every_frame_is_there_when_the_network_has_stopped() {
    for begin in [start, start_with_queues] {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("link.pcap");
        let (runtime, wire) = begin(loopback().capture(Capture::to_file(&file)));
        let arp = arp_request();
        for _ in 0..10 {
            wire.send_all(&[&arp[..]; 100]);
            for _ in 0..100 {
                assert!(wire.receive(PATIENCE).is_some());
            }
        }
        let reader = runtime.stats_reader();
        runtime.shutdown();
        let stats = reader.read();
        assert_eq!((stats.capture_frames, stats.capture_lost), (2000, 0));
        assert_eq!(fs::metadata(&file).unwrap().len(), 24 + 2000 * (16 + 42));
        let test = "every_frame_is_there_when_the_network_has_stopped";
        if let Some(lines) = tcpdump(test, &file, &[]) {
            assert_eq!(lines.iter().filter(|line| line.contains("Request")).count(), 1000);
            assert_eq!(lines.iter().filter(|line| line.contains("Reply")).count(), 1000);
        }
    }
}

#[test]
fn a_frame_is_on_disk_while_the_gateway_is_idle() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("link.pcap");
    let (runtime, wire) = start(loopback().capture(Capture::to_file(&file)));
    for n in 1..=20 {
        wire.send(&arp_request());
        assert!(wire.receive(PATIENCE).is_some());
        let wanted = 24 + 2 * n * (16 + 42);
        let started = Instant::now();
        while fs::metadata(&file).unwrap().len() < wanted {
            assert!(started.elapsed() < PATIENCE, "nothing is written while nothing happens");
            std::thread::yield_now();
        }
    }
    wire.until_asleep(&runtime);
}

#[test]
fn refused_frames_are_captured_and_merged_ones_are_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("link.pcap");
    let server = Server::new();
    let (runtime, wire) = start(loopback().capture(Capture::to_file(&file)));
    let mut raw = Raw::new(wire);
    let (sequence, acknowledges) = raw.open(5000, server.address);
    let mut stream = server.accept();
    let bytes = pattern(4 * 1000);
    let segments: Vec<Vec<u8>> = (0_u32..)
        .zip(bytes.chunks(1000))
        .map(|(n, chunk)| {
            let at = sequence + n * 1000;
            Segment::new(5000, server.address, ACK | PSH).at(at, acknowledges).with(chunk).frame()
        })
        .collect();
    // From an address that is not the guest's: refused.
    let mut spoofed = arp_request();
    spoofed[6] = 0x06;
    let mut all: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
    all.push(&spoofed);
    raw.wire.send_all(&all);
    stream.read_exact(&mut [0; 4000]).unwrap();
    raw.barrier();
    let merged = runtime.stats().frames_merged;
    let reader = runtime.stats_reader();
    runtime.shutdown();
    let stats = reader.read();
    let from_guest = stats.frames_from_guest - merged;
    assert_eq!(stats.capture_frames, from_guest + stats.frames_to_guest);
    assert_eq!(stats.drops().map(|(_, n)| n).sum::<u64>(), 1);
}

#[test]
fn super_segments_are_captured_before_they_are_cut() {
    const LEN: usize = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("link.pcap");
    let server = Server::new();
    let capture = Capture::to_file(&file).snap_len(64);
    let (runtime, wire) = start(loopback().offload(Offload::None).capture(capture));
    let mut guest = Guest::new(wire);
    let handle = guest.connect(server.address);
    let mut stream = server.accept();
    stream.write_all(&pattern(LEN)).unwrap();
    guest.read_exact(handle, LEN);
    let reader = runtime.stats_reader();
    runtime.shutdown();
    let stats = reader.read();
    let all = stats.frames_to_guest + stats.frames_from_guest;
    assert!(stats.capture_frames + stats.capture_lost < all, "{stats}");
    let test = "super_segments_are_captured_before_they_are_cut";
    if let Some(lines) = tcpdump(test, &file, &[]) {
        assert_eq!(lines.len() as u64, stats.capture_frames);
        let length = |line: &String| line.rsplit("length ").next()?.parse::<usize>().ok();
        let longest = lines.iter().filter_map(length).max().unwrap();
        assert!(longest > 1460, "the longest payload was {longest}");
    }
}

#[test]
fn the_size_limit_ends_the_capture_and_not_the_network() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("link.pcap");
    let capture = Capture::to_file(&file).max_bytes(1000);
    let (runtime, wire) = start(loopback().capture(capture));
    for _ in 0..100 {
        wire.send(&arp_request());
        assert!(wire.receive(PATIENCE).is_some());
    }
    assert_eq!(runtime.stats().capture_lost, 0);
    runtime.shutdown();
    assert_eq!(fs::metadata(&file).unwrap().len(), 24 + 16 * (16 + 42));
}

#[test]
fn a_destination_that_cannot_be_had_is_an_error_at_the_start() {
    if !alone("a_destination_that_cannot_be_had_is_an_error_at_the_start") {
        return;
    }
    let before = threads();
    let directory = tempfile::tempdir().unwrap();
    let capture = Capture::to_file(directory.path().join("no/link.pcap"));
    let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let error = loopback().capture(capture).start(theirs).unwrap_err();
    assert!(matches!(error, StartError::Host("the capture", _)), "{error}");
    assert_eq!(threads_joined(before), before);
}

#[test]
fn a_file_that_others_could_read_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("link.pcap");
    fs::write(&file, "of the run before").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let (runtime, _wire) = start(loopback().capture(Capture::to_file(&file)));
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    runtime.shutdown();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_port_that_is_taken_leaves_the_last_capture_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("link.pcap");
    fs::write(&file, "of the run before").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let builder = loopback()
        .capture(Capture::to_file(&file))
        .publish(Publish::tcp(taken.local_addr().unwrap(), 80));
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert!(matches!(builder.start(ours).unwrap_err(), StartError::Publish(_)));
    assert_eq!(fs::read(&file).unwrap(), b"of the run before");
}

#[test]
fn a_capture_leaves_no_thread_behind() {
    if !alone("a_capture_leaves_no_thread_behind") {
        return;
    }
    let before = threads();
    for _ in 0..50 {
        let (runtime, wire) = start(loopback().capture(Capture::to_writer(std::io::sink())));
        wire.send(&arp_request());
        assert!(wire.receive(PATIENCE).is_some());
        runtime.shutdown();
    }
    assert_eq!(threads_joined(before), before);
}

//! The list of flows, and the counters that must agree with it.

#![cfg(all(feature = "runtime", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support_guest;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use framegate::{Builder, ControlError, FlowInfo, FlowState, Protocol, Runtime, Stats};

use support_guest::guest::Guest;
use support_guest::host::{Server, Unanswering, reset};
use support_guest::raw::{ACK, RST, Raw, SYN, Segment};
use support_guest::wire::start;
use support_guest::{GUEST_V4, GUEST_V6, PATIENCE, pattern};

fn loopback() -> Builder {
    Runtime::builder().host_loopback(true)
}

fn only(runtime: &Runtime) -> FlowInfo {
    let mut flows = runtime.handle().flows().unwrap();
    assert_eq!(flows.len(), 1, "{flows:?}");
    flows.pop().unwrap()
}

/// Every flow that was opened is closed or there.
fn assert_balanced(stats: &Stats) {
    assert_eq!(stats.tcp_opened, stats.tcp_closed + stats.tcp_flows, "{stats}");
    assert!(stats.tcp_half_open <= stats.tcp_flows, "{stats}");
    assert!(stats.tcp_established <= stats.tcp_opened, "{stats}");
}

#[test]
fn a_half_open_flow_is_listed_as_opening() {
    let host = Unanswering::new();
    let (runtime, wire) = start(loopback());
    let mut raw = Raw::new(wire);
    assert_eq!(runtime.handle().flows().unwrap(), []);
    raw.send(Segment::new(5000, host.address, SYN));
    raw.barrier();
    let flow = only(&runtime);
    assert_eq!(flow.protocol, Protocol::Tcp);
    assert_eq!(flow.guest, (GUEST_V4, 5000).into());
    assert_eq!(flow.remote, Some(host.address));
    assert_eq!(flow.state, FlowState::Opening);
    assert_eq!((flow.bytes_to_host, flow.bytes_to_guest), (0, 0));
    // The host answers, the guest has not yet: still no connection on both sides.
    let _stream = host.accept();
    let answer = raw.expect_flags(SYN | ACK);
    assert_eq!(only(&runtime).state, FlowState::Opening);
    raw.send(Segment::new(5000, host.address, ACK).at(1001, answer.end()));
    raw.barrier();
    assert_eq!(only(&runtime).state, FlowState::Open);
    raw.send(Segment::new(5000, host.address, RST).at(1001, 0));
    raw.barrier();
    assert_eq!(runtime.handle().flows().unwrap(), []);
    assert_balanced(&runtime.stats());
}

#[test]
fn a_flow_is_listed_with_its_bytes_and_its_age() {
    for (server, guest_address) in
        [(Server::new(), GUEST_V4.into()), (Server::ipv6(), std::net::IpAddr::from(GUEST_V6))]
    {
        let (runtime, wire) = start(loopback());
        let mut guest = Guest::new(wire);
        let handle = guest.connect(server.address);
        let mut stream = server.accept();
        guest.send(handle, &pattern(10_000));
        stream.read_exact(&mut vec![0; 10_000]).unwrap();
        stream.write_all(&pattern(70_000)).unwrap();
        guest.read_exact(handle, 70_000);
        let first = only(&runtime);
        assert_eq!((first.guest.ip(), first.remote), (guest_address, Some(server.address)));
        assert_eq!(first.state, FlowState::Open);
        assert_eq!((first.bytes_to_host, first.bytes_to_guest), (10_000, 70_000));
        let stats = runtime.stats();
        assert_eq!((stats.tcp_bytes_to_host, stats.tcp_bytes_to_guest), (10_000, 70_000));
        guest.live(Duration::from_millis(20));
        assert!(only(&runtime).age >= first.age + Duration::from_millis(20));
    }
}

#[test]
fn a_flow_that_has_ended_in_both_directions_is_listed_as_closing() {
    let server = Server::new();
    let (runtime, wire) = start(loopback());
    let mut guest = Guest::new(wire);
    let handle = guest.connect(server.address);
    let mut stream = server.accept();
    guest.finish(handle);
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(only(&runtime).state, FlowState::Open, "the other direction goes on");
    stream.shutdown(Shutdown::Write).unwrap();
    guest.read_to_end(handle);
    guest.until("TIME-WAIT", |_| {
        runtime.handle().flows().unwrap().iter().all(|flow| flow.state == FlowState::Closing)
    });
    assert_balanced(&runtime.stats());
}

#[test]
fn opened_is_closed_and_live_whatever_became_of_the_flows() {
    let server = Server::new();
    let closed = { Server::new().address };
    let waiting = Unanswering::new();
    let (runtime, wire) = start(loopback());
    let reader = runtime.stats_reader();
    let mut guest = Guest::new(wire);
    guest.buffer = 4096;
    let mut kept = Vec::new();
    for round in 0..60 {
        match round % 6 {
            0 => {
                guest.dial(closed);
            }
            1 => {
                guest.dial(waiting.address);
            }
            2 => {
                let handle = guest.connect(server.address);
                reset(server.accept());
                guest.read_to_end(handle);
            }
            3 => {
                let handle = guest.connect(server.address);
                guest.socket(handle).abort();
                guest.poll();
                kept.push(server.accept());
            }
            4 => {
                let handle = guest.connect(server.address);
                drop(server.accept());
                guest.read_to_end(handle);
                guest.finish(handle);
            }
            _ => {
                guest.connect(server.address);
                kept.push(server.accept());
            }
        }
    }
    guest.until("the refusals", |_| {
        let (stats, live) = (runtime.stats(), runtime.handle().flows().unwrap().len() as u64);
        stats.tcp_opened == 60 && stats.tcp_flows == live && stats.tcp_half_open == 10
    });
    assert_balanced(&runtime.stats());
    runtime.shutdown();
    let stats = reader.read();
    assert_eq!((stats.tcp_opened, stats.tcp_closed), (60, 60));
    assert_eq!((stats.tcp_flows, stats.tcp_half_open), (0, 0));
}

#[test]
fn who_asks_while_the_network_stops_is_answered() {
    for _ in 0..50 {
        let server = Server::new();
        let (runtime, wire) = start(loopback());
        let mut guest = Guest::new(wire);
        guest.buffer = 4096;
        guest.connect(server.address);
        let (tell, told) = mpsc::channel();
        for _ in 0..3 {
            let (handle, tell) = (runtime.handle(), tell.clone());
            thread::spawn(move || {
                let mut answers = 0;
                let end = loop {
                    match handle.flows() {
                        Ok(flows) => assert_eq!(flows.len(), 1),
                        Err(end) => break end,
                    }
                    answers += 1;
                    if answers == 1 {
                        tell.send(None).unwrap();
                    }
                };
                tell.send(Some(end)).unwrap();
            });
        }
        assert!(told.recv_timeout(PATIENCE).unwrap().is_none());
        runtime.shutdown();
        let mut ended = 0;
        while ended < 3 {
            match told.recv_timeout(PATIENCE).expect("an answer") {
                Some(ControlError::Stopped) => ended += 1,
                Some(other) => panic!("{other}"),
                None => {}
            }
        }
    }
}

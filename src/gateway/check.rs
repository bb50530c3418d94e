//! What the fuzzer of `classify` drives.

use mio::Poll;
use smoltcp::iface::{Config as InterfaceConfig, Interface};
use smoltcp::time::Instant;
use smoltcp::wire::HardwareAddress;

use super::classify::{Verdict, classify};
use super::device::{self, Outlet};
use super::egress::Egress;
use super::flows::Turn;
use super::link::Link;
use super::network::Network;
use super::reassembly::Reassembly;
use super::{icmp, reset};
use crate::config::{Builder, Dns};
use crate::metrics::Counters;
use crate::queues::NetworkFrameQueues;

const HOST: icmp::IcmpError = icmp::IcmpError::Unreachable(icmp::Unreachable::Host);

/// Any bytes as a frame, and the invariants of what comes out.
pub(crate) fn fuzz_classify(data: &[u8]) {
    // No upstream: nothing may leave this process.
    let config = Builder::default().dns(Dns::Servers(Vec::new())).into_config_for_tests();
    let link = Link::new(&config, true);
    let counters = Counters::default();
    let Ok(queues) = NetworkFrameQueues::try_shared(64) else { return };
    let verdict = classify(data, &link);
    if let Ok(Verdict::Tcp(segment)) = &verdict {
        assert!(segment.end <= data.len(), "the packet ends within its frame");
        assert!(segment.payload < segment.end, "the payload lies within the packet");
        let reset = reset::reset_for(Vec::new(), &link, data, segment);
        assert_eq!(reset.is_none(), segment.rst, "everything but a reset can be reset");
        let error = icmp::error(Vec::new(), &link, None, data.get(14..).unwrap_or_default(), HOST);
        assert!(error.is_some_and(|frame| frame.len() <= 14 + 1280), "errors stay small");
    }
    let mut outlet = Outlet::new(&queues, &counters);
    let Ok(poll) = Poll::new() else { return };
    let mut egress = Egress::default();
    let mut turn = Turn {
        link: &link,
        outlet: &mut outlet,
        registry: poll.registry(),
        counters: &counters,
        egress: &mut egress,
        now: Instant::ZERO,
    };
    match verdict {
        Ok(Verdict::Tcp(segment)) if segment.opens => return, // would dial
        Ok(Verdict::Udp(head)) => {
            assert!(data.get(head.payload).is_some(), "the payload lies within the frame");
            return; // would be sent
        }
        Ok(Verdict::Icmp(head)) => {
            if let Ok(message) = head.message(data) {
                let _ = (head.echo_request(message), icmp::quoted_datagram(message));
            }
            return; // would be sent
        }
        Ok(Verdict::Fragment(fragment)) => {
            let whole = Reassembly::default()
                .take(data, &fragment, Instant::ZERO, &counters)
                .ok()
                .flatten();
            if let Some(whole) = whole {
                let verdict = classify(&whole, &link);
                assert!(!matches!(verdict, Ok(Verdict::Fragment(_))), "a whole is no fragment");
            }
            return;
        }
        _ => {}
    }
    let interface = InterfaceConfig::new(HardwareAddress::Ip);
    let interface = Interface::new(interface, &mut device::Capabilities, Instant::ZERO);
    let mut network = Network::new(&config, interface);
    network.handle(data.to_vec(), &mut turn);
    drop(outlet);
    let stats = counters.snapshot();
    let accounted = stats.drops().count() as u64 + stats.link_notices;
    let mut replies = 0;
    let mut answers = queues.drain_to_guest();
    while let Some(frame) = answers.pop() {
        replies += 1;
        assert!(frame.len() <= config.max_frame_to_guest(), "no reply wedges the guest");
        let to = frame.get(..6);
        let to_guest = to == Some(&config.guest_mac[..]) || to == Some(&[0xff; 6]);
        assert!(to_guest, "replies go to the guest");
    }
    let fits = data.len() <= config.max_frame_to_guest();
    assert!(replies <= 1 || !fits, "one frame brings one reply at the most");
    assert!(replies + accounted >= 1, "every frame is answered or counted");
}

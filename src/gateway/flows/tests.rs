use std::net::TcpListener;

use mio::{Events, Poll};
use smoltcp::iface::Config as InterfaceConfig;
use smoltcp::wire::HardwareAddress;

use super::*;
use crate::config::Builder;
use crate::gateway::classify::{Verdict, classify};
use crate::gateway::device::Capabilities;
use crate::gateway::testing::{GATEWAY, Tcp, link_of};
use crate::gateway::token::Source;
use crate::queues::NetworkFrameQueues;

const SYN: u8 = 2;
const RST: u8 = 4;

/// A flow table with a listener on the host's loopback, and no room to the guest.
struct Rig {
    flows: Flows,
    link: Link,
    poll: Poll,
    counters: Counters,
    queues: crate::sync::Arc<NetworkFrameQueues>,
    listener: TcpListener,
}

impl Rig {
    fn new() -> Self {
        let builder = Builder::default().host_loopback(true);
        let link = link_of(builder.clone(), true);
        let mut interface = Interface::new(
            InterfaceConfig::new(HardwareAddress::Ip),
            &mut Capabilities,
            Instant::ZERO,
        );
        interface.set_any_ip(true);
        let queues = NetworkFrameQueues::try_shared(1).unwrap();
        queues.push_to_guest().push(vec![0; 60]).unwrap();
        Self {
            flows: Flows::new(builder.into_config_for_tests().limits, interface),
            link,
            poll: Poll::new().unwrap(),
            counters: Counters::default(),
            queues,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        }
    }

    fn turn<R>(&mut self, work: impl FnOnce(&mut Flows, &mut Turn<'_, '_>) -> R) -> R {
        let mut outlet = Outlet::new(&self.queues, &self.counters);
        let mut egress = Egress::default();
        let mut turn = Turn {
            link: &self.link,
            outlet: &mut outlet,
            registry: self.poll.registry(),
            counters: &self.counters,
            egress: &mut egress,
            now: Instant::ZERO,
        };
        work(&mut self.flows, &mut turn)
    }

    fn hear(&mut self, flags: u8, sequence: u32) {
        let mut tcp = Tcp { sequence, ..Tcp::to(GATEWAY, flags) };
        tcp.to.set_port(self.listener.local_addr().unwrap().port());
        let frame = tcp.frame();
        let Ok(Verdict::Tcp(segment)) = classify(&frame, &self.link) else { unreachable!() };
        self.turn(|flows, turn| flows.segment(frame, &segment, turn));
    }

    /// Until the host's connection has come about.
    fn wait(&mut self) {
        let mut events = Events::with_capacity(8);
        self.poll.poll(&mut events, Some(std::time::Duration::from_secs(5))).unwrap();
        assert!(!events.is_empty());
        for event in &events {
            if let Some(Source::Flow(index)) = Source::of(event.token()) {
                self.flows.host_event(index, event);
            }
        }
    }
}

#[test]
fn flows_that_die_while_they_wait_for_room_fill_no_list() {
    let mut rig = Rig::new();
    for _ in 0..300 {
        rig.hear(SYN, 1000);
        rig.wait();
        rig.turn(|flows, turn| flows.serve(64, turn));
        rig.hear(RST, 1001);
        rig.turn(|flows, turn| flows.serve(64, turn));
        rig.listener.accept().unwrap();
    }
    assert!(rig.flows.table.is_empty() && rig.flows.by_key.is_empty());
    assert_eq!((rig.flows.half_open, rig.flows.timers.next()), (0, None));
    assert!(rig.flows.starved.len() < 100, "{} entries for no flow", rig.flows.starved.len());
}

#[test]
fn flows_that_die_before_they_are_served_leave_no_work() {
    let mut rig = Rig::new();
    for _ in 0..100 {
        rig.hear(SYN, 1000);
        rig.wait();
        rig.hear(RST, 1001);
        rig.listener.accept().unwrap();
    }
    assert!(rig.flows.table.is_empty());
    rig.turn(|flows, turn| flows.serve(64, turn));
    assert!(!rig.flows.has_work(), "{} entries for no flow", rig.flows.active.len());
}

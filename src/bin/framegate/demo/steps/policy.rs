//! Where the guest may go, changed while the network runs.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use domain::base::Rtype;
use domain::base::iana::Rcode;
use framegate::{Action, Attempt, LiveFlows, Policy, PolicyEvents, Rule};
use smoltcp::socket::tcp;

use super::super::guest::packets::Unreachable;
use super::super::guest::{Fault, Next};
use super::super::servers;
use super::super::upstream::{ALLOWED, DENIED};
use super::tcp::{exchange, there_and_back};
use super::{LOOPBACK, Lab, SMALL, Short, dns};

/// One name is allowed and all else is denied: the guest can resolve it and go there, to that port and
/// no other, and it can do neither with another name.
pub(super) fn names(lab: &mut Lab) -> Result<String, Fault> {
    let server = servers::echo(LOOPBACK, 1)?;
    let mut events = lab.handle.policy_events()?.ok_or("somebody reads the events already")?;
    let rule = Rule::allow(&format!("tcp:{ALLOWED}:{}", server.port()))?;
    let policy = Policy::new(Action::Deny).rule(rule);
    lab.handle.set_policy(&policy, LiveFlows::Recheck)?;
    let outcome = by_name(lab, server.port());
    lab.handle.set_policy(&Policy::default(), LiveFlows::Recheck)?;
    outcome?;
    server.finish()?;
    let (reached, resolved) = verdicts(&mut events);
    // The address is denied before the guest has its name, and allowed afterwards.
    if reached != [Action::Deny, Action::Allow, Action::Deny]
        || resolved != [Action::Allow, Action::Deny]
    {
        return Err(format!("the decisions were {reached:?} and {resolved:?}").into());
    }
    let all = reached.len() + resolved.len();
    Ok(format!("{ALLOWED} reached, {DENIED} not, {all} events"))
}

fn by_name(lab: &mut Lab, port: u16) -> Result<(), Fault> {
    let guest = &mut lab.guest;
    let to = SocketAddr::new(guest.gateway(LOOPBACK), port);
    prohibited(guest.knock(to)?, to)?;
    if dns::addresses(guest, ALLOWED)? != [to.ip()] {
        return Err(format!("{ALLOWED} is not {}", to.ip()).into());
    }
    exchange(guest, to, b'n')?;
    let denied = dns::resolve(guest, LOOPBACK, DENIED, Rtype::A)?;
    if denied.rcode != Rcode::NXDOMAIN {
        return Err(format!("{DENIED}: {}", denied.rcode).into());
    }
    let elsewhere = SocketAddr::new(to.ip(), servers::deserted_port(LOOPBACK)?);
    prohibited(guest.knock(elsewhere)?, elsewhere)
}

/// The verdicts on destinations, and on names.
fn verdicts(events: &mut PolicyEvents) -> (Vec<Action>, Vec<Action>) {
    let (mut reached, mut resolved) = (Vec::new(), Vec::new());
    while let Some(event) = events.try_next() {
        match event.attempt {
            Attempt::Resolve { .. } => resolved.push(event.verdict),
            _ => reached.push(event.verdict),
        }
    }
    (reached, resolved)
}

fn prohibited(answer: Unreachable, to: SocketAddr) -> Result<(), Fault> {
    match answer {
        Unreachable::Prohibited => Ok(()),
        other => Err(format!("{to}: the guest was told {other:?}").into()),
    }
}

/// Metadata services are prohibited in every form of their addresses, though the rules allow everything.
pub(super) fn floor(lab: &mut Lab) -> Result<String, Fault> {
    const METADATA: [&str; 5] = [
        "169.254.169.253",
        "100.100.100.200",
        "fd00:ec2::254",
        // NAT64 and 6to4.
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ];
    lab.handle.set_policy(&Policy::new(Action::Allow), LiveFlows::Recheck)?;
    let before = lab.handle.stats().denied_metadata;
    let began = Instant::now();
    for address in METADATA {
        let to = SocketAddr::new(address.parse::<IpAddr>()?, 80);
        prohibited(lab.guest.knock(to)?, to)?;
    }
    let took = began.elapsed();
    let counted = lab.handle.stats().denied_metadata - before;
    match counted == METADATA.len() as u64 {
        true => Ok(format!("{counted} forms of metadata addresses prohibited, {}", Short(took))),
        false => Err(format!("{counted} of {} were counted", METADATA.len()).into()),
    }
}

/// A policy that denies what the guest does ends it, at both ends; the next one lets it do so again.
pub(super) fn change(lab: &mut Lab) -> Result<String, Fault> {
    let server = servers::until_reset(LOOPBACK)?;
    let guest = &mut lab.guest;
    let to = SocketAddr::new(guest.gateway(LOOPBACK), server.port());
    let socket = guest.open(to, SMALL)?;
    there_and_back(guest, socket, b'p')?;
    let began = Instant::now();
    lab.handle.set_policy(&Policy::new(Action::Deny), LiveFlows::Recheck)?;
    let reset = guest.until(socket, |socket: &mut tcp::Socket<'_>| {
        Ok(if socket.is_open() { Next::Wait } else { Next::Done(()) })
    });
    let took = began.elapsed();
    lab.handle.set_policy(&Policy::default(), LiveFlows::Recheck)?;
    reset?;
    guest.remove(socket);
    server.finish()?;
    let server = servers::echo(LOOPBACK, 1)?;
    exchange(guest, SocketAddr::new(to.ip(), server.port()), b'P')?;
    server.finish()?;
    Ok(format!("both ends reset {} after a denial, then allowed", Short(took)))
}

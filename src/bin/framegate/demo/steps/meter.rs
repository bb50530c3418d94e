//! How much passes, and what did.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::thread;

use framegate::{Capture, FlowInfo, FlowState, Protocol, RateLimit, Runtime, RuntimeHandle, Stats};

use super::super::guest::{Fault, Guest};
use super::super::{MAC, servers};
use super::tcp::{fetch, there_and_back};
use super::{LOOPBACK, Lab, SMALL, Size, boot};

/// A rate set while the network runs holds, and is gone when it is lifted.
pub(super) fn rate(lab: &mut Lab) -> Result<String, Fault> {
    const BYTES: u64 = 6 << 20;
    const RATE: u64 = 8_000_000;
    /// A busy host is slow without a limit, too.
    const TRIES: usize = 5;
    let mut limit = RateLimit::bytes(RATE);
    // The least that there is: what the rate gives in 20 ms.
    limit.burst_bytes = RATE / 50;
    let none = RateLimit::default();
    lab.handle.set_rate_limits(none, limit)?;
    let limited = fetch(&mut lab.guest, BYTES);
    lab.handle.set_rate_limits(none, none)?;
    let (limited, _) = limited?;
    let most = RATE as f64 * limited.as_secs_f64() + limit.burst_bytes as f64;
    if BYTES as f64 > most {
        return Err(format!("{BYTES} bytes came in {limited:?}, above {RATE} a second").into());
    }
    for _ in 0..TRIES {
        let (lifted, _) = fetch(&mut lab.guest, BYTES)?;
        if lifted < limited {
            let mbit = |took: std::time::Duration| BYTES as f64 * 8.0 / took.as_secs_f64() / 1e6;
            return Ok(format!(
                "{:.0} Mb/s at a limit of {}, lifted {:.0} Mb/s",
                mbit(limited),
                RATE * 8 / 1_000_000,
                mbit(lifted)
            ));
        }
    }
    Err(format!("{BYTES} bytes took {limited:?} with the limit, and no less without it").into())
}

/// What the gateway lists is what the guest has open, and adds up to what it counts.
pub(super) fn flows(lab: &mut Lab) -> Result<String, Fault> {
    const OPEN: usize = 3;
    let guest = &mut lab.guest;
    let mut open = Vec::new();
    for i in 0..OPEN {
        let server = servers::echo(LOOPBACK, 1)?;
        let to = SocketAddr::new(guest.gateway(LOOPBACK), server.port());
        let socket = guest.open(to, SMALL)?;
        there_and_back(guest, socket, i as u8)?;
        open.push((server, socket, to));
    }
    let (listed, stats) = listed_and_counted(&lab.handle)?;
    for (_, socket, to) in &open {
        let is_this = |flow: &&FlowInfo| flow.remote == Some(*to);
        let flow = listed.iter().find(is_this).ok_or_else(|| format!("{to} is not listed"))?;
        let moved = (flow.bytes_to_host, flow.bytes_to_guest);
        if (flow.protocol, flow.state, moved) != (Protocol::Tcp, FlowState::Open, (1, 1)) {
            return Err(format!("one byte each way is listed as {flow:?}").into());
        }
        if guest.local(*socket) != Some(flow.guest) {
            return Err(format!("the guest is not at {}", flow.guest).into());
        }
    }
    for (server, socket, _) in open {
        guest.close(socket)?;
        server.finish()?;
    }
    let count = |protocol| listed.iter().filter(|flow| flow.protocol == protocol).count() as u64;
    let (tcp, udp) = (count(Protocol::Tcp), count(Protocol::Udp));
    if (tcp, udp) != (stats.tcp_flows, stats.udp_mappings)
        || stats.tcp_opened - stats.tcp_closed != stats.tcp_flows
    {
        return Err(format!("{tcp} of TCP and {udp} of UDP are listed; counted: {stats}").into());
    }
    Ok(format!(
        "{OPEN} open; {tcp} tcp and {udp} udp listed; {} and {} so far",
        stats.tcp_opened, stats.udp_opened
    ))
}

/// The flows and the counters of one moment: flows of steps before may end in between.
fn listed_and_counted(handle: &RuntimeHandle) -> Result<(Vec<FlowInfo>, Stats), Fault> {
    const TRIES: usize = 1_000;
    let counted = |stats: &Stats| (stats.tcp_closed, stats.udp_mappings, stats.tcp_flows);
    for _ in 0..TRIES {
        let before = handle.stats();
        let listed = handle.flows()?;
        let after = handle.stats();
        if counted(&before) == counted(&after) {
            return Ok((listed, after));
        }
    }
    Err("the counters do not rest".into())
}

/// A network of its own is captured from its first frame to its last, and the file has them all.
pub(super) fn capture(_: &mut Lab) -> Result<String, Fault> {
    let (mut file, writer) = io::pipe()?;
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map(|_| bytes)
    });
    let (ours, theirs) = UnixStream::pair()?;
    let runtime = Runtime::builder().capture(Capture::to_writer(writer)).start(ours)?;
    let handle = runtime.handle();
    let mut small = Lab { guest: Guest::new(theirs, MAC)?, handle, size: Size(1) };
    for step in [boot::dhcp, boot::arp, |lab: &mut Lab| boot::ping(lab, LOOPBACK)] {
        step(&mut small)?;
    }
    let frames = small.guest.frames();
    runtime.shutdown();
    let stats = small.handle.stats();
    drop(small);
    let file = reader.join().map_err(|_| "the reader of the capture panicked")??;
    let records = records(&file).ok_or("the capture is no pcap file")?;
    match (records, stats.capture_frames, stats.capture_lost) == (frames, frames, 0) {
        true => {
            Ok(format!("{records} frames of the guest's {frames}, {} bytes of pcap", file.len()))
        }
        false => {
            Err(format!("{records} of {frames} frames are in the file; counted: {stats}").into())
        }
    }
}

/// How many records a pcap file has, if it is one to its end.
fn records(file: &[u8]) -> Option<u64> {
    /// With timestamps in nanoseconds.
    const MAGIC: u32 = 0xa1b2_3c4d;
    const ETHERNET: u32 = 1;
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    let (header, mut rest) = file.split_at_checked(24)?;
    if (word(header, 0)?, word(header, 20)?) != (MAGIC, ETHERNET) {
        return None;
    }
    let mut count = 0;
    while !rest.is_empty() {
        let len = usize::try_from(word(rest, 8)?).ok()?;
        rest = rest.get(16 + len..)?;
        count += 1;
    }
    Some(count)
}

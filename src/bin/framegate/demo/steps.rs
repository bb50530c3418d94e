//! What the demonstration shows: each step does one thing as a guest, checks it at both ends, and gives
//! the figure to print.

mod boot;
mod dns;
mod meter;
mod policy;
mod publish;
mod service;
mod tcp;
mod udp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use framegate::{MacAddress, RuntimeHandle};

use super::guest::{Fault, Guest};

pub(super) use self::service::{ADDRESS as SERVICE, serve};

/// The windows of a bulk transfer, and of a small exchange.
const LARGE: usize = 1 << 20;
const SMALL: usize = 4 << 10;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// What a step works with.
pub(super) struct Lab {
    pub(super) guest: Guest,
    /// For what the embedder does while the network runs.
    pub(super) handle: RuntimeHandle,
    pub(super) size: Size,
}

/// A step's name and what it does. The figure it gives is printed.
pub(super) type Step = (&'static str, fn(&mut Lab) -> Result<String, Fault>);

/// How many MiB a bulk transfer has.
#[derive(Clone, Copy)]
pub(super) struct Size(pub(super) u32);

impl Size {
    fn bytes(self) -> u64 {
        u64::from(self.0) << 20
    }
}

/// How the guest learns its addresses. No other step makes sense where one of these has failed.
pub(super) const BOOT: &[Step] =
    &[("dhcp", boot::dhcp), ("router", boot::router), ("arp", boot::arp)];

/// All other steps but the last, the shutdown, in their order.
pub(super) const STEPS: &[Step] = &[
    ("ping ipv4", |lab| boot::ping(lab, LOOPBACK)),
    ("ping ipv6", |lab| boot::ping(lab, LOOPBACK6)),
    ("ping beyond", udp::ping_beyond),
    ("dns own name", dns::own_name),
    ("dns udp", dns::over_udp),
    ("dns tcp", dns::over_tcp),
    ("udp burst", udp::burst),
    ("udp fragments", udp::fragments),
    ("udp refused", udp::refused),
    ("tcp upload", tcp::upload),
    ("tcp download", tcp::download),
    ("tcp short", tcp::short),
    ("tcp refused", tcp::refused),
    ("tcp ipv6", tcp::over_ipv6),
    ("publish tcp", publish::tcp),
    ("publish udp", publish::udp),
    ("unpublish", publish::unpublish),
    ("policy names", policy::names),
    ("policy floor", policy::floor),
    ("policy change", policy::change),
    ("service", service::metadata),
    ("rate limit", meter::rate),
    ("flows", meter::flows),
    ("capture", meter::capture),
];

/// Things in a sentence.
fn listed(things: &[impl ToString]) -> String {
    things.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// The value that `percent` of the sorted times do not exceed.
fn at(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

/// A time of less than some seconds.
pub(super) struct Short(pub(super) Duration);

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_secs_f64() * 1e6 {
            micros if micros < 1000.0 => write!(f, "{micros:.0} µs"),
            micros => write!(f, "{:.1} ms", micros / 1e3),
        }
    }
}

/// A MAC address in the usual notation.
struct Mac(MacAddress);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

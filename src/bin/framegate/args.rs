//! The command line.

mod values;

use std::ffi::OsString;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use framegate::{Builder, Capture, Dns, Offload, Overflow, Publish, RateLimit};

use self::values::{Amount, Cidr, DnsName, DnsRecord, Mac};
use crate::egress_args::Egress;

/// The network of a microVM guest: no root, no tap device, no kernel module.
#[derive(Debug, Parser)]
#[command(name = "framegate", version, propagate_version = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Be the gateway of one guest after another on a Unix stream socket.
    Serve(Box<Serve>),
    /// Show every feature with an embedded guest, and check it: no VM, no root, no network.
    Demo(Demo),
}

/// Headings of the help, in its order.
mod heading {
    pub(super) const GUEST: &str = "The guest and its link";
    pub(super) const DNS: &str = "Names";
    pub(super) const PORTS: &str = "Ports of the guest";
    pub(super) const RATES: &str = "Rates";
    pub(super) const CAPTURE: &str = "Capture";
}

/// `framegate serve`
#[derive(Debug, Args)]
#[command(after_help = "\
Each guest has a network of its own, with these options: its published ports are open while it is there, \
and clients are refused in between; its capture takes the place of the one before. What cannot work, such \
as a port that is taken, is said at the start.")]
pub(crate) struct Serve {
    /// The socket that the VMM connects to: libkrun's unixstream, QEMU's `-netdev stream`.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,

    /// End with the first guest: status 0 if it closed the link, 1 if anything else happened.
    #[arg(long)]
    pub(crate) once: bool,

    /// Print the counters to stderr every so many seconds, and when the guest is gone.
    #[arg(long, value_name = "SECONDS", value_parser = value_parser!(u32).range(1..))]
    pub(crate) stats: Option<u32>,

    /// The guest's MTU, 1280 to 1500; up to 65520 with `--offload jumbo`.
    #[arg(long, value_name = "BYTES", default_value_t = 1500, help_heading = heading::GUEST,
          value_parser = value_parser!(u16).range(1280..=65_520))]
    mtu: u16,

    /// What the VMM negotiated with the guest.
    #[arg(long, value_enum, default_value = "none", help_heading = heading::GUEST)]
    offload: OffloadName,

    /// What to do with frames that the gateway has no room for; `drop` is for libkrun up to 1.17.
    #[arg(long, value_enum, default_value = "backpressure", help_heading = heading::GUEST)]
    overflow: OverflowName,

    /// The guest's address and its subnet [default: 100.96.0.2/30].
    #[arg(long, value_name = "CIDR", help_heading = heading::GUEST)]
    guest_ip: Option<Cidr<Ipv4Addr>>,

    /// The gateway's address in that subnet [default: 100.96.0.1].
    #[arg(long, value_name = "IP", help_heading = heading::GUEST)]
    gateway_ip: Option<Ipv4Addr>,

    /// The guest's IPv6 address and its prefix [default: fd53:4d00::2/64].
    #[arg(long, value_name = "CIDR", help_heading = heading::GUEST)]
    guest_ip6: Option<Cidr<Ipv6Addr>>,

    /// The gateway's IPv6 address in that prefix [default: fd53:4d00::1].
    #[arg(long, value_name = "IP", help_heading = heading::GUEST)]
    gateway_ip6: Option<Ipv6Addr>,

    /// The MAC address that the VMM gives the guest [default: 02:53:4d:00:00:02].
    #[arg(long, value_name = "MAC", help_heading = heading::GUEST)]
    guest_mac: Option<Mac>,

    /// The gateway's MAC address [default: 02:53:4d:00:00:01].
    #[arg(long, value_name = "MAC", help_heading = heading::GUEST)]
    gateway_mac: Option<Mac>,

    /// Be no DHCP server: the guest is configured otherwise.
    #[arg(long, help_heading = heading::GUEST)]
    no_dhcp: bool,

    /// Send no IPv6 router advertisements.
    #[arg(long, help_heading = heading::GUEST)]
    no_router_advertisements: bool,

    /// Whom the DNS forwarder asks, in order of preference; `host` for the host's own resolvers, `off` for
    /// no forwarder [default: host].
    #[arg(long, value_name = "IP[:PORT]|host|off", help_heading = heading::DNS)]
    dns: Vec<DnsName>,

    /// Answer the guest's DNS to every address, not only to the gateway's.
    #[arg(long, help_heading = heading::DNS)]
    dns_intercept: bool,

    /// A name that the DNS forwarder answers with this address itself; may be repeated.
    #[arg(long, value_name = "NAME=IP", help_heading = heading::DNS)]
    dns_record: Vec<DnsRecord>,

    /// The resolver configuration that `--dns host` follows, in place of /etc/resolv.conf.
    #[arg(long, value_name = "FILE", hide = true)]
    resolver_file: Option<PathBuf>,

    #[command(flatten)]
    egress: Egress,

    /// Let the guest reach the host's loopback at the gateway's address. It can then use every
    /// service that listens there.
    #[arg(long, help_heading = crate::egress_args::HEADING)]
    host_loopback: bool,

    /// Lead ports of the host to the guest, at 127.0.0.1 if no address is given: 8080:80,
    /// udp:0.0.0.0:5353:53, [::1]:8000-8099:8000-8099. With port 0 the host chooses; what it chose is
    /// printed to stderr. May be repeated.
    #[arg(long, value_name = "[tcp:|udp:][ADDR:]HOST_PORT[-HOST_PORT]:GUEST_PORT[-GUEST_PORT]",
          help_heading = heading::PORTS)]
    publish: Vec<Publish>,

    /// How many bytes the guest may send in a second: 500k, 20M, 1G.
    #[arg(long, value_name = "BYTES", help_heading = heading::RATES)]
    rate_from_guest: Option<Amount>,

    /// How many bytes the guest is sent in a second.
    #[arg(long, value_name = "BYTES", help_heading = heading::RATES)]
    rate_to_guest: Option<Amount>,

    /// How many frames the guest may send in a second.
    #[arg(long, value_name = "FRAMES", help_heading = heading::RATES)]
    packets_from_guest: Option<Amount>,

    /// How many frames the guest is sent in a second.
    #[arg(long, value_name = "FRAMES", help_heading = heading::RATES)]
    packets_to_guest: Option<Amount>,

    /// Capture the guest's link to this file, for tcpdump and Wireshark. The next guest's capture takes its
    /// place.
    #[arg(long, value_name = "FILE", help_heading = heading::CAPTURE)]
    pub(crate) pcap: Option<PathBuf>,

    /// Capture so many bytes of each frame [default: all].
    #[arg(long, value_name = "BYTES", requires = "pcap", help_heading = heading::CAPTURE,
          value_parser = value_parser!(u32).range(1..))]
    pcap_snap_len: Option<u32>,

    /// End the capture before its file becomes larger than this: 100M, 2G.
    #[arg(long, value_name = "BYTES", requires = "pcap", help_heading = heading::CAPTURE)]
    pcap_max: Option<Amount>,
}

/// `framegate demo`
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How much to transfer in each direction, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 256,
          value_parser = value_parser!(u32).range(1..=65_536))]
    pub(crate) mib: u32,
}

impl Serve {
    /// The gateway that these options describe; what they leave out has the library's default.
    pub(crate) fn builder(&self) -> Builder {
        set(self.uncaptured(), self.capture(), Builder::capture)
    }

    /// The same without its capture.
    pub(crate) fn uncaptured(&self) -> Builder {
        let defaults = Builder::default();
        let builder = defaults
            .mtu(self.mtu)
            .offload(self.offload.into())
            .overflow(self.overflow.into())
            .host_loopback(self.host_loopback)
            .policy(self.egress.0.clone())
            .dns_intercept(self.dns_intercept)
            .dhcp(!self.no_dhcp)
            .router_advertisements(!self.no_router_advertisements);
        let builder = set(builder, self.dns(), Builder::dns);
        let builder = set(builder, self.resolver_file.clone(), Builder::resolver_file);
        let builder = self
            .dns_record
            .iter()
            .fold(builder, |builder, record| builder.dns_record(&record.name, record.address));
        let builder = set(builder, self.guest_ip, |b, c| b.guest_ipv4(c.address, c.prefix));
        let builder = set(builder, self.gateway_ip, Builder::gateway_ipv4);
        let builder = set(builder, self.guest_ip6, |b, c| b.guest_ipv6(c.address, c.prefix));
        let builder = set(builder, self.gateway_ip6, Builder::gateway_ipv6);
        let builder = set(builder, self.guest_mac, |b, mac| b.guest_mac(mac.0));
        let builder = set(builder, self.gateway_mac, |b, mac| b.gateway_mac(mac.0));
        let builder = self.publish.iter().cloned().fold(builder, Builder::publish);
        builder
            .rate_from_guest(rate_limit(self.rate_from_guest, self.packets_from_guest))
            .rate_to_guest(rate_limit(self.rate_to_guest, self.packets_to_guest))
    }

    fn capture(&self) -> Option<Capture> {
        let mut capture = Capture::to_file(self.pcap.as_ref()?);
        if let Some(bytes) = self.pcap_snap_len {
            capture = capture.snap_len(bytes);
        }
        if let Some(Amount(bytes)) = self.pcap_max {
            capture = capture.max_bytes(bytes);
        }
        Some(capture)
    }
}

fn rate_limit(bytes: Option<Amount>, packets: Option<Amount>) -> RateLimit {
    let mut limit = RateLimit::default();
    limit.bytes_per_second = bytes.map(|Amount(bytes)| bytes);
    limit.packets_per_second = packets.map(|Amount(packets)| packets);
    limit
}

impl Serve {
    /// The servers that were named; `host` and `off` are the only ones if they are named at all.
    fn dns(&self) -> Option<Dns> {
        let servers = self.dns.iter().map(|name| match name {
            DnsName::Server(server) => Ok(*server),
            DnsName::Other(dns) => Err(dns.clone()),
        });
        match servers.collect::<Result<Vec<_>, _>>() {
            Ok(servers) if servers.is_empty() => None,
            Ok(servers) => Some(Dns::Servers(servers)),
            Err(dns) => Some(dns),
        }
    }
}

fn set<T>(builder: Builder, value: Option<T>, with: impl FnOnce(Builder, T) -> Builder) -> Builder {
    match value {
        Some(value) => with(builder, value),
        None => builder,
    }
}

/// Reads the command line.
///
/// # Errors
/// What the user is to be told instead: help, the version, or one line that says what is wrong.
pub(crate) fn parse(
    words: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Command, Stop> {
    let command = CommandLine::try_parse_from(words).map_err(Stop::from)?.command;
    match &command {
        Command::Serve(serve) if serve.mtu > 1500 && serve.offload != OffloadName::Jumbo => {
            Err(Stop::Wrong(format!(
                "--mtu {} needs --offload jumbo: without it the guest's buffers hold 1500 bytes",
                serve.mtu
            )))
        }
        Command::Serve(serve)
            if serve.dns.len() > 1
                && serve.dns.iter().any(|name| matches!(name, DnsName::Other(_))) =>
        {
            Err(Stop::Wrong("--dns host and --dns off stand alone".into()))
        }
        _ => Ok(command),
    }
}

/// Why there is no command to run.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Help or the version, which the user asked for.
    Answer(clap::Error),
    /// The command line makes no sense, in one line.
    Wrong(String),
}

impl Stop {
    /// Tells the user; the exit status is 0 or 2.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Answer(help) => {
                let _ = help.print();
                ExitCode::SUCCESS
            }
            Self::Wrong(why) => {
                eprintln!("framegate: {why}");
                ExitCode::from(2)
            }
        }
    }
}

impl From<clap::Error> for Stop {
    /// clap's message is a paragraph, a blank line and the usage; the paragraph is what matters.
    fn from(error: clap::Error) -> Self {
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Self::Answer(error),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
                return Self::Wrong("say `serve` or `demo`; `framegate --help` explains".into());
            }
            _ => {}
        }
        let text = error.to_string();
        let paragraph: Vec<_> =
            text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        Self::Wrong(paragraph.join(" ").trim_start_matches("error: ").into())
    }
}

/// The names of [`Offload`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OffloadName {
    /// No virtio-net offload.
    None,
    /// CSUM, HOST_TSO4, HOST_TSO6: large frames from the guest.
    Upload,
    /// GUEST_CSUM, GUEST_TSO4 and a large MTU: large frames both ways.
    Jumbo,
}

impl From<OffloadName> for Offload {
    fn from(name: OffloadName) -> Self {
        match name {
            OffloadName::None => Self::None,
            OffloadName::Upload => Self::Upload,
            OffloadName::Jumbo => Self::Jumbo,
        }
    }
}

/// The names of [`Overflow`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OverflowName {
    /// Stop reading until there is room; nothing is lost.
    Backpressure,
    /// Drop them and count.
    Drop,
}

impl From<OverflowName> for Overflow {
    fn from(name: OverflowName) -> Self {
        match name {
            OverflowName::Backpressure => Self::Backpressure,
            OverflowName::Drop => Self::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use framegate::{Action, Policy};

    use super::*;

    fn serve(options: &str) -> Result<Serve, String> {
        let words = format!("framegate serve --socket /s {options}");
        match parse(words.split_whitespace().map(String::from)) {
            Ok(Command::Serve(serve)) => Ok(*serve),
            Ok(Command::Demo(_)) => panic!("this is serve"),
            Err(Stop::Answer(_)) => panic!("nobody asked for help"),
            Err(Stop::Wrong(why)) => Err(why),
        }
    }

    #[test]
    fn dns_is_servers_or_one_word() {
        let dns = |options| serve(options).map(|serve| serve.dns());
        assert_eq!(dns(""), Ok(None));
        assert_eq!(dns("--dns host"), Ok(Some(Dns::Host)));
        assert_eq!(dns("--dns off"), Ok(Some(Dns::Off)));
        let servers = ["192.0.2.1:53", "[2001:db8::1]:5353", "[fe80::1%2]:53", "[2001:db8::2]:53"]
            .map(|server| server.parse().unwrap());
        assert_eq!(
            dns("--dns 192.0.2.1 --dns [2001:db8::1]:5353 --dns [fe80::1%2]:53 --dns 2001:db8::2"),
            Ok(Some(Dns::Servers(servers.to_vec())))
        );
        for wrong in ["--dns host --dns 192.0.2.1", "--dns off --dns off", "--dns dns.example"] {
            assert!(dns(wrong).is_err(), "{wrong}");
        }
        let record = DnsRecord { name: "db.test".into(), address: [192, 0, 2, 1].into() };
        assert_eq!(serve("--dns-record db.test=192.0.2.1").unwrap().dns_record, [record]);
        assert!(serve("--dns-record db.test").is_err() && serve("--dns-record a=b").is_err());
    }

    #[test]
    fn options_reach_the_builder() {
        let options = "--guest-ip 10.0.0.2/24 --gateway-ip 10.0.0.1 --guest-ip6 fd00::2/64 \
                       --gateway-ip6 fd00::1 --guest-mac 02:00:00:00:00:02 \
                       --gateway-mac 02:00:00:00:00:01 --offload jumbo --mtu 65520 \
                       --overflow drop --host-loopback --deny tcp:*:25 --allow .example.com \
                       --deny 10.0.0.0/8 --egress deny --host-addresses";
        let policy = ["deny tcp:*:25", "allow .example.com", "deny 10.0.0.0/8"]
            .into_iter()
            .fold(Policy::new(Action::Deny), |policy, rule| policy.rule(rule.parse().unwrap()));
        let expected = Builder::default()
            .guest_ipv4(Ipv4Addr::new(10, 0, 0, 2), 24)
            .gateway_ipv4(Ipv4Addr::new(10, 0, 0, 1))
            .guest_ipv6("fd00::2".parse().unwrap(), 64)
            .gateway_ipv6("fd00::1".parse().unwrap())
            .guest_mac([2, 0, 0, 0, 0, 2])
            .gateway_mac([2, 0, 0, 0, 0, 1])
            .offload(Offload::Jumbo)
            .mtu(65_520)
            .overflow(Overflow::Drop)
            .host_loopback(true)
            .policy(policy.host_addresses(true));
        let builder = serve(options).unwrap().builder();
        assert_eq!(format!("{builder:?}"), format!("{expected:?}"));
    }

    #[test]
    fn rates_and_captures_reach_the_builder() {
        let options = "--rate-from-guest 20M --rate-to-guest 500k --packets-from-guest 7 \
                       --packets-to-guest 1G --pcap /tmp/f --pcap-snap-len 96 --pcap-max 2M";
        let limit = |bytes, packets| {
            let mut limit = RateLimit::bytes(bytes);
            limit.packets_per_second = Some(packets);
            limit
        };
        let expected = Builder::default()
            .rate_from_guest(limit(20_000_000, 7))
            .rate_to_guest(limit(500_000, 1_000_000_000))
            .capture(Capture::to_file("/tmp/f").snap_len(96).max_bytes(2_000_000));
        let builder = serve(options).unwrap().builder();
        assert_eq!(format!("{builder:?}"), format!("{expected:?}"));
    }

    #[test]
    fn no_options_are_the_librarys_defaults() {
        let builder = serve("").unwrap().builder();
        assert_eq!(format!("{builder:?}"), format!("{:?}", Builder::default()));
    }

    #[test]
    fn a_large_mtu_needs_jumbo() {
        assert!(serve("--mtu 1500").is_ok());
        assert!(serve("--mtu 9000 --offload jumbo").is_ok());
        for wrong in ["--mtu 1501", "--mtu 9000 --offload upload"] {
            let why = serve(wrong).unwrap_err();
            assert!(why.contains("--offload jumbo"), "{why}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for wrong in [
            "--mtu 1279",
            "--mtu 65521 --offload jumbo",
            "--offload fast",
            "--overflow",
            "--stats 0",
            "--guest-ip 10.0.0.2",
            "--guest-mac 02",
            "--no-such-option",
            "--once --once",
            "--rate-to-guest fast",
            "--pcap-max 10TB --pcap /f",
            "--allow 10.0.0.0/33",
            "--deny icmp:*:8",
            "--egress maybe",
        ] {
            let why = serve(wrong).unwrap_err();
            assert!(!why.contains('\n') && !why.is_empty(), "{why}");
            assert!(why.contains(wrong.split(' ').next().unwrap()), "{why}");
        }
    }
}

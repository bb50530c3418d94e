//! A name server beyond the gateway: dnsmasq, authoritative for `test.`

use std::net::IpAddr;
use std::path::Path;

use super::daemon::Daemon;
use super::namespace::Namespace;

/// The program that [`start`] needs.
pub(crate) const DNSMASQ: &str = "dnsmasq";

/// Starts a name server at `ip` inside, with records in the form of dnsmasq's options, such as
/// `--host-record=v4.test,192.0.2.1`. Its log, with every query, goes to `directory`.
pub(crate) fn start(inside: &Namespace, directory: &Path, ip: IpAddr, records: &[&str]) -> Daemon {
    let address = format!("--listen-address={ip}");
    let mut words = vec![DNSMASQ, "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="];
    words.extend(["--user=root", "--no-resolv", "--no-hosts", "--local=/test/"]);
    words.extend(["--bind-interfaces", &address, "--log-facility=-", "--log-queries"]);
    words.extend(records);
    Daemon::start(inside, directory, &words, (53, 1))
}

/// The words that run a program, those that follow them, with a resolver configuration of its own.
pub(crate) fn resolving_at(directory: &Path, server: IpAddr) -> Vec<String> {
    let file = directory.join("resolv.conf");
    std::fs::write(&file, format!("nameserver {server}\n")).unwrap();
    let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    let words = ["unshare", "--mount", "sh", "-euc", script, file.to_str().unwrap()];
    words.map(str::to_owned).to_vec()
}

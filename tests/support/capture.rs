//! What crosses the guest's NIC, as tcpdump sees it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::namespace::Namespace;
use super::{eventually, say};

/// A running capture. It ends when this is dropped.
pub(crate) struct Capture {
    tcpdump: Child,
    lines: PathBuf,
}

impl Capture {
    /// Captures DHCP on the guest's `tap0`. Returns when it captures.
    pub(crate) fn dhcp(guest: &Namespace, directory: &Path) -> Self {
        let lines = directory.join("captured");
        let mut command = Command::new("tcpdump");
        command.args(["-i", "tap0", "-n", "-l", "-tt", "--immediate-mode"]);
        command.args(["udp port 67 or udp port 68"]);
        command.stdin(Stdio::null()).stdout(File::create(&lines).unwrap()).stderr(Stdio::piped());
        let mut tcpdump = guest.run(|| command.spawn()).unwrap();
        let said = BufReader::new(tcpdump.stderr.take().unwrap()).lines();
        let listening = said.map_while(Result::ok).any(|line| line.contains("listening on"));
        assert!(listening, "tcpdump listens");
        Self { tcpdump, lines }
    }

    /// Waits for this many answered requests, and says how long each answer took.
    pub(crate) fn say_reply_times(&self, who: &str, wanted: usize) {
        let times = eventually(Duration::from_secs(10), || {
            let times = self.reply_times();
            (times.len() >= wanted).then_some(times)
        });
        let captured = || fs::read_to_string(&self.lines).unwrap_or_default();
        let times = times.unwrap_or_else(|| panic!("too few answers:\n{}", captured()));
        let times: Vec<_> = times.iter().map(|time| format!("{:.3} ms", time * 1e3)).collect();
        say(format_args!("{who}: answered after {}", times.join(", ")));
    }

    /// The times from each reply back to the request before it, in seconds.
    fn reply_times(&self) -> Vec<f64> {
        let (mut asked, mut times) = (None, Vec::new());
        for line in fs::read_to_string(&self.lines).unwrap_or_default().lines() {
            let Some(at) = line.split(' ').next().and_then(|at| at.parse::<f64>().ok()) else {
                continue;
            };
            if line.contains("BOOTP/DHCP, Request") {
                asked = Some(at);
            } else if line.contains("BOOTP/DHCP, Reply") {
                times.extend(asked.take().map(|asked| at - asked));
            }
        }
        times
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

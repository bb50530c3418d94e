//! Servers that are programs of their own: a name server, a STUN server.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use super::namespace::Namespace;
use super::{eventually, tcp};

/// A program that runs until this is dropped. What it said is printed if the test fails.
pub(crate) struct Daemon {
    process: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `words` inside, and returns when UDP port `port` is open on `sockets` sockets there. The
    /// program must stay in the foreground; its log goes to `directory`.
    pub(crate) fn start(
        inside: &Namespace,
        directory: &Path,
        words: &[&str],
        (port, sockets): (u16, usize),
    ) -> Self {
        let name = words[0].rsplit('/').next().unwrap();
        let log = directory.join(format!("{name}.{port}.log"));
        let output = File::create(&log).unwrap();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(directory).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let process = inside.run(|| command.spawn()).unwrap();
        let mut daemon = Self { process, log };
        inside.run(|| {
            let open = eventually(tcp::LIMIT, || {
                let ended = daemon.process.try_wait().unwrap();
                assert!(ended.is_none(), "{name} ended before it served: {ended:?}");
                (udp_sockets(port) >= sockets).then_some(())
            });
            open.unwrap_or_else(|| panic!("{name} does not open UDP port {port}"));
        });
        daemon
    }
}

/// How many UDP sockets of the calling thread's namespace have this local port.
fn udp_sockets(port: u16) -> usize {
    let end = format!(":{port:04X}");
    let count = |file: &str| {
        let table = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        let local =
            |line: &str| line.split_whitespace().nth(1).is_some_and(|at| at.ends_with(&end));
        table.lines().filter(|line| local(line)).count()
    };
    count("udp") + count("udp6")
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("{}:\n{said}", self.log.display());
        }
    }
}

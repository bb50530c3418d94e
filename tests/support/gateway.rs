//! The gateway under test: the shipped program, in the host namespace.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use super::eventually;
use super::namespace::Namespace;

/// A running gateway. It is killed when this is dropped, and what it said is printed if the test fails.
pub(crate) struct Gateway {
    process: Child,
    log: PathBuf,
    pub(crate) socket: PathBuf,
}

impl Gateway {
    pub(crate) fn start(host: &Namespace, directory: &Path, mtu: u16, arguments: &[&str]) -> Self {
        let (socket, log) = (directory.join("guest.sock"), directory.join("gateway.log"));
        let output = File::create(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_framegate"));
        command.args(["serve", "--mtu", &mtu.to_string(), "--socket"]).arg(&socket);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let process = host.run(|| command.spawn()).unwrap();
        let mut gateway = Self { process, log, socket };
        host.run(|| gateway.await_listening());
        gateway
    }

    /// Returns when the gateway listens. Must run in its namespace.
    fn await_listening(&mut self) {
        let path = self.socket.to_str().unwrap();
        let listening = eventually(Duration::from_secs(10), || {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none(), "the gateway ended before it listened: {ended:?}");
            // The flags of a listening socket are __SO_ACCEPTCON.
            let sockets = fs::read_to_string("/proc/thread-self/net/unix").unwrap();
            let is_it = |line: &str| line.ends_with(path) && line.contains(" 00010000 ");
            sockets.lines().any(is_it).then_some(())
        });
        listening.expect("the gateway listens on its socket");
    }

    /// Connects to it, as a VMM does.
    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).expect("the gateway takes a guest")
    }

    /// How it ended, if it ends within `limit`.
    pub(crate) fn exit_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        eventually(limit, || self.process.try_wait().unwrap())
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Context switches of all its threads so far, of both kinds.
    pub(crate) fn context_switches(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).unwrap();
        let switches = |status: String| -> u64 {
            let lines = status.lines().filter(|line| line.contains("ctxt_switches:"));
            lines.map(|line| line.split_once(':').unwrap().1.trim().parse::<u64>().unwrap()).sum()
        };
        tasks.map(|task| switches(status(task.unwrap()))).sum()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("the gateway said:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

//! Network namespaces without names: a descriptor keeps each alive, so that nothing is left behind
//! however the test ends, and no two tests can meet. (From outside: `nsenter --net=/proc/PID/fd/N`.)

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::panic::resume_unwind;
use std::process::{Command, Output, Stdio};
use std::thread;

use super::{sys, tcp};

/// A network namespace. Its devices and routes go when it is dropped and its processes have ended.
pub(crate) struct Namespace(File);

impl Namespace {
    /// A new namespace, with its loopback up. IPv6 addresses in it are usable at once, and it takes
    /// its configuration from nobody.
    pub(crate) fn new() -> io::Result<Self> {
        let opened = thread::spawn(|| {
            sys::new_network()?;
            File::open("/proc/thread-self/ns/net")
        });
        let namespace = Self(opened.join().unwrap()?);
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0");
            namespace.sysctl(&format!("ipv6/conf/{scope}/accept_ra"), "0");
        }
        namespace.sysctl("ipv4/ip_local_port_range", "2048 65000");
        namespace.ip("link set lo up");
        Ok(namespace)
    }

    /// Runs `work` on a thread inside the namespace. The sockets it makes stay there, and so do the
    /// threads and processes that it starts.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            sys::enter_network(self.0.as_fd()).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// A path that `ip link … netns PATH` understands.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `ip` commands inside, one a line.
    pub(crate) fn ip(&self, commands: &str) {
        let output = self.run(|| {
            let mut ip = Command::new("ip");
            ip.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
            let mut ip = ip.spawn().unwrap();
            ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
            ip.wait_with_output().unwrap()
        });
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip: {errors} in:\n{commands}");
    }

    /// Sets the sysctl `net/KEY` inside.
    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        self.run(|| fs::write(format!("/proc/sys/net/{key}"), value))
            .unwrap_or_else(|error| panic!("sysctl net/{key}: {error}"));
    }

    /// A counter of the kernel's, for IPv4 and IPv6 together: `Udp` and `RcvbufErrors`, for example.
    pub(crate) fn counter(&self, group: &str, name: &str) -> u64 {
        let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
        let (v4, v6) = self.run(|| (read("snmp"), read("snmp6")));
        let mut lines = v4.lines().filter_map(|line| line.strip_prefix(&format!("{group}: ")));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let v4 = names.split(' ').zip(values.split(' ')).find(|(field, _)| *field == name);
        let v6 = v6.lines().find_map(|line| line.strip_prefix(&format!("{group}6{name}")));
        let [v4, v6] = [v4.unwrap().1, v6.unwrap()].map(|value| value.trim().parse::<u64>());
        v4.unwrap() + v6.unwrap()
    }

    /// Runs a program inside to its end, and kills it after `seconds`.
    pub(crate) fn output(&self, seconds: u32, words: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--signal=KILL", &seconds.to_string()]).args(words);
        self.run(|| command.output()).unwrap()
    }

    /// What a program that must succeed prints. `command` is split at spaces.
    pub(crate) fn stdout_of(&self, seconds: u32, command: &str) -> Vec<u8> {
        let output = self.output(seconds, &command.split_whitespace().collect::<Vec<_>>());
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let (out, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "`{command}`: {}\n{out}{errors}", output.status);
        output.stdout
    }

    /// A listener inside with a long backlog and a limit on how long accept(2) waits.
    pub(crate) fn listen(&self, address: impl Into<SocketAddr>) -> TcpListener {
        let address = address.into();
        self.run(|| tcp::listen(address)).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    /// Connects from inside.
    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.run(|| tcp::connect(to))
    }
}

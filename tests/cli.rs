//! The program, from its command line to its exit status.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::time::Duration;
use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process};

/// Nothing in these tests takes this long unless it never comes.
const PATIENCE: Duration = Duration::from_secs(30);

fn framegate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_framegate"));
    command.args(args).stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> io::Result<Output> {
    framegate(args).output()
}

/// A server and its guest, who has to wait until the socket is there.
fn serve(socket: &Path, options: &[&str]) -> io::Result<(Child, UnixStream)> {
    let mut server = framegate(&["serve", "--socket"])
        .arg(socket)
        .args(options)
        .stderr(Stdio::piped())
        .spawn()?;
    loop {
        match UnixStream::connect(socket) {
            Ok(guest) => {
                guest.set_read_timeout(Some(PATIENCE))?;
                return Ok((server, guest));
            }
            Err(error) if server.try_wait()?.is_some() => return Err(error),
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// A broadcast question for the gateway's MAC address gets an answer: the guest is being served.
fn ask(guest: &mut UnixStream) -> io::Result<()> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0x53, 0x4d, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend([2, 0x53, 0x4d, 0, 0, 2, 100, 96, 0, 2]);
    frame.extend([0, 0, 0, 0, 0, 0, 100, 96, 0, 1]);
    guest.write_all(&42u32.to_be_bytes())?;
    guest.write_all(&frame)?;
    let mut prefix = [0; 4];
    guest.read_exact(&mut prefix)?;
    let mut answer = vec![0; u32::from_be_bytes(prefix) as usize];
    guest.read_exact(&mut answer)
}

fn terminate(server: &Child) -> io::Result<()> {
    Ok(kill_process(Pid::from_child(server), Signal::TERM)?)
}

fn end(mut server: Child) -> io::Result<(ExitStatus, String)> {
    let mut said = String::new();
    if let Some(stderr) = &mut server.stderr {
        stderr.read_to_string(&mut said)?;
    }
    Ok((server.wait()?, said))
}

#[test]
fn the_demo_holds() {
    let output = output(&["demo", "--mib", "8"]).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let steps = [
        "dhcp",
        "router",
        "arp",
        "ping ipv4",
        "ping ipv6",
        "ping beyond",
        "dns own name",
        "dns udp",
        "dns tcp",
        "udp burst",
        "udp fragments",
        "udp refused",
        "tcp upload",
        "tcp download",
        "tcp short",
        "tcp refused",
        "tcp ipv6",
        "publish tcp",
        "publish udp",
        "unpublish",
        "policy names",
        "policy floor",
        "policy change",
        "service",
        "rate limit",
        "flows",
        "capture",
        "shutdown",
    ];
    for step in steps {
        let line = text.lines().find(|line| line.trim_start().starts_with(step));
        assert!(line.is_some_and(|line| line.ends_with(" ok")), "{step} in\n{text}");
    }
}

#[test]
fn what_is_wrong_is_one_line_and_status_2() {
    let wrong: &[&[&str]] = &[
        &[],
        &["fly"],
        &["serve"],
        &["serve", "--socket"],
        &["serve", "--socket", "/nowhere/s", "--mtu", "9000"],
        &["serve", "--socket", "/nowhere/s", "--mtu", "many"],
        &["serve", "--socket", "/nowhere/s", "--guest-ip", "100.96.0.2"],
        &["serve", "--socket", "/nowhere/s", "--guest-mac", "02:53:4d:00:00"],
        &["serve", "--socket", "/nowhere/s", "--offload", "fast"],
        // Addresses that contradict each other: the library's own check.
        &["serve", "--socket", "/nowhere/s", "--gateway-ip", "10.0.0.1"],
        &["serve", "--socket", "/nowhere/s", "--guest-mac", "02:53:4d:00:00:01"],
        &["serve", "--socket", "/nowhere/s", "--publish", "8080"],
        &["serve", "--socket", "/nowhere/s", "--publish", "8000-8009:80"],
        &["serve", "--socket", "/nowhere/s", "--dns", "dns.example"],
        &["serve", "--socket", "/nowhere/s", "--dns", "host", "--dns", "192.0.2.1"],
        &["serve", "--socket", "/nowhere/s", "--dns-record", "no name=192.0.2.1"],
        &["serve", "--socket", "/nowhere/s", "--allow", "10.0.0.0/33"],
        &["serve", "--socket", "/nowhere/s", "--deny", "icmp:*:8"],
        &["serve", "--socket", "/nowhere/s", "--egress", "perhaps"],
        &["serve", "--socket", "/nowhere/s", "--rate-to-guest", "fast"],
        &["serve", "--socket", "/nowhere/s", "--pcap-max", "1M"],
        &["serve", "--socket", "/nowhere/s", "--stats", "0"],
        &["demo", "--mib", "0"],
    ];
    for args in wrong {
        let output = output(args).unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(text.starts_with("framegate: "), "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_are_status_0() {
    for args in [&["--help"][..], &["serve", "--help"], &["--version"]] {
        let output = output(args).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn help_has_every_option_under_its_heading() {
    let output = output(&["serve", "--help"]).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let headings = [
        ("Options:", &["--socket", "--once", "--stats"][..]),
        (
            "The guest and its link:",
            &["--mtu", "--offload", "--overflow", "--guest-ip", "--guest-mac", "--no-dhcp"],
        ),
        ("Names:", &["--dns", "--dns-intercept", "--dns-record"]),
        (
            "Where the guest may go:",
            &["--allow", "--deny", "--egress", "--host-loopback", "--host-addresses", "--metadata"],
        ),
        ("Ports of the guest:", &["--publish"]),
        ("Rates:", &["--rate-from-guest", "--packets-to-guest"]),
        ("Capture:", &["--pcap", "--pcap-snap-len", "--pcap-max"]),
    ];
    let mut rest = text.as_str();
    for (heading, options) in headings {
        let section;
        (_, rest) = rest.split_once(&format!("\n{heading}\n")).expect(heading);
        (section, _) = rest.split_once("\n\n\n").unwrap_or((rest, ""));
        for option in options {
            assert!(
                section.contains(&format!("{option} ")) || section.contains(&format!("{option}\n")),
                "{option} in\n{section}"
            );
        }
    }
}

// --- Ports, captures and policies --------------------------------------------------------------

/// The address that the server says it has published.
fn published(server: &mut BufReader<ChildStderr>) -> io::Result<SocketAddr> {
    let mut line = String::new();
    server.read_line(&mut line)?;
    let address = line.trim_end().strip_prefix("framegate: published ");
    address.unwrap_or_default().parse().map_err(|_| io::Error::other(line))
}

#[test]
fn a_port_that_is_taken_is_status_1_before_any_guest_comes() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("taken");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap();
    let ports = format!("{}:80", taken.port());
    let output =
        output(&["serve", "--socket", socket.to_str().unwrap(), "--publish", &ports]).unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with(&format!("framegate: cannot publish {taken}: ")), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!socket.exists());
}

#[test]
fn published_ports_are_open_while_a_guest_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("publish");
    let (mut server, mut guest) = serve(&socket, &["--publish", "0:80"]).unwrap();
    let mut stderr = BufReader::new(server.stderr.take().unwrap());
    for _ in 0..2 {
        let address = published(&mut stderr).unwrap();
        assert!(address.ip().is_loopback());
        drop(TcpStream::connect(address).unwrap());
        drop(guest);
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("framegate: the guest is gone"), "{line}");
        assert!(TcpStream::connect(address).is_err(), "no guest, no port");
        guest = UnixStream::connect(&socket).unwrap();
    }
    published(&mut stderr).unwrap();
    terminate(&server).unwrap();
    assert_eq!(end(server).unwrap().0.code(), Some(0));
}

#[test]
fn a_capture_that_cannot_be_written_is_status_1_before_any_guest_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, file) = (dir.path().join("socket"), dir.path().join("none/link.pcap"));
    let (socket, file) = (socket.to_str().unwrap(), file.to_str().unwrap());
    let output = output(&["serve", "--socket", socket, "--pcap", file]).unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with(&format!("framegate: cannot capture to {file}: ")), "{text}");
}

#[test]
fn the_capture_has_the_frames_of_the_last_guest() {
    /// The header of the file, and for each of two frames one of 16 bytes and 42 of ARP.
    const BYTES: usize = 24 + 2 * (16 + 42);
    let dir = tempfile::tempdir().unwrap();
    let (socket, file) = (dir.path().join("socket"), dir.path().join("link.pcap"));
    let (server, mut guest) = serve(&socket, &["--pcap", file.to_str().unwrap()]).unwrap();
    ask(&mut guest).unwrap();
    ask(&mut guest).unwrap();
    drop(guest);
    let mut guest = UnixStream::connect(&socket).unwrap();
    ask(&mut guest).unwrap();
    terminate(&server).unwrap();
    assert_eq!(end(server).unwrap().0.code(), Some(0));
    let bytes = fs::read(&file).unwrap();
    assert_eq!(bytes.len(), BYTES);
    assert_eq!(bytes[..4], 0xa1b2_3c4d_u32.to_le_bytes());
}

#[test]
fn an_expired_capture_limit_ends_the_capture_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, file) = (dir.path().join("socket"), dir.path().join("link.pcap"));
    let options =
        ["--once", "--pcap", file.to_str().unwrap(), "--pcap-snap-len", "14", "--pcap-max", "54"];
    let (server, mut guest) = serve(&socket, &options).unwrap();
    ask(&mut guest).unwrap();
    ask(&mut guest).unwrap();
    drop(guest);
    assert_eq!(end(server).unwrap().0.code(), Some(0));
    assert_eq!(fs::metadata(&file).unwrap().len(), 54);
}

#[test]
fn a_policy_on_the_command_line_decides() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("policy");
    let options = ["--once", "--stats", "600", "--allow", "tcp:*:443", "--deny", "192.0.2.0/24"];
    let (server, mut guest) = serve(&socket, &options).unwrap();
    // A SYN to 192.0.2.1:80, and the ICMP error that says "prohibited" (RFC 1812 section 5.2.7.1).
    let mut frame = vec![2, 0x53, 0x4d, 0, 0, 1, 2, 0x53, 0x4d, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0x14, 0x6d]);
    frame.extend([100, 96, 0, 2, 192, 0, 2, 1]);
    frame.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    guest.write_all(&54u32.to_be_bytes()).unwrap();
    guest.write_all(&frame).unwrap();
    let mut prefix = [0; 4];
    guest.read_exact(&mut prefix).unwrap();
    let mut answer = vec![0; u32::from_be_bytes(prefix) as usize];
    guest.read_exact(&mut answer).unwrap();
    assert_eq!((answer[23], &answer[34..36]), (1, &[3, 13][..]), "{answer:02x?}");
    drop(guest);
    let (status, said) = end(server).unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(said.contains("policy_denied=1 "), "{said}");
}

#[test]
fn a_socket_in_use_is_refused_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("in-use");
    let _listener = UnixListener::bind(&socket).unwrap();
    let output = output(&["serve", "--socket", socket.to_str().unwrap()]).unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("another process listens there"), "{text}");
    UnixStream::connect(&socket).unwrap();
}

#[test]
fn a_file_that_is_no_socket_stays() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("notes");
    fs::write(&file, "mine").unwrap();
    let output = output(&["serve", "--socket", file.to_str().unwrap()]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn a_stale_socket_is_replaced_and_the_end_of_the_guest_is_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("stale");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(UnixStream::connect(&socket).is_err());
    let (server, guest) = serve(&socket, &["--once"]).unwrap();
    let file = fs::metadata(&socket).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    drop(guest);
    let (status, said) = end(server).unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
    assert!(!socket.exists());
}

#[test]
fn a_guest_that_breaks_the_framing_is_status_1() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("broken");
    let (server, mut guest) = serve(&socket, &["--once"]).unwrap();
    guest.write_all(&u32::MAX.to_be_bytes()).unwrap();
    let (status, said) = end(server).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("frame length of 4294967295"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!socket.exists());
}

#[test]
fn one_guest_after_another_until_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("many");
    let (server, mut guest) = serve(&socket, &[]).unwrap();
    for _ in 0..2 {
        ask(&mut guest).unwrap();
        guest = UnixStream::connect(&socket).unwrap();
    }
    ask(&mut guest).unwrap();
    // The guest is there and stays; the server leaves all the same.
    terminate(&server).unwrap();
    let (status, said) = end(server).unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(said, "framegate: the guest is gone: the VMM closed the link\n".repeat(2));
    assert!(!socket.exists());
}

#[test]
fn a_signal_ends_a_server_that_waits_for_a_guest() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("idle");
    let (server, mut guest) = serve(&socket, &[]).unwrap();
    ask(&mut guest).unwrap();
    drop(guest);
    terminate(&server).unwrap();
    let (status, said) = end(server).unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(!socket.exists());
}

#[test]
fn statistics_are_printed_while_the_guest_runs_and_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("stats");
    let (mut server, mut guest) = serve(&socket, &["--once", "--stats", "1"]).unwrap();
    ask(&mut guest).unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(server.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("framegate: frames_from_guest=1 "), "{line}");
    drop(guest);
    line.clear();
    stderr.read_to_string(&mut line).unwrap();
    assert!(line.contains("neighbor_replies=1"), "{line}");
    assert_eq!(end(server).unwrap().0.code(), Some(0));
}

#[test]
fn four_threads_serve_a_guest_and_one_waits_for_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("threads");
    let (server, mut guest) = serve(&socket, &["--stats", "600"]).unwrap();
    let tasks = format!("/proc/{}/task", server.id());
    let threads = || fs::read_dir(&tasks).unwrap().count();
    ask(&mut guest).unwrap();
    // The poll loop answers while the others start.
    while threads() < 4 {
        std::thread::yield_now();
    }
    assert_eq!(threads(), 4);
    drop(guest);
    while threads() > 1 {
        std::thread::yield_now();
    }
    terminate(&server).unwrap();
    assert_eq!(end(server).unwrap().0.code(), Some(0));
}

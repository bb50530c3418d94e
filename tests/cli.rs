//! The program, from its command line to its exit status.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process};

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
            Ok(guest) => return Ok((server, guest)),
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
        "arp",
        "ping ipv4",
        "ping ipv6",
        "tcp upload",
        "tcp download",
        "tcp short",
        "tcp refused",
        "tcp ipv6",
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

//! `framegate serve`: one guest after another on a Unix stream socket.
//!
//! The main thread waits in [`poll`] for the next guest, or for the end of this one. SIGINT and SIGTERM
//! write to a socket pair that nobody reads, so that "we are to stop" is a descriptor that stays readable.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use framegate::{NetworkFrameQueues, Runtime, StartError, StopReason};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Mode;
use rustix::process::umask;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::Serve;

/// Serves until it is told to stop, or with `--once` until the first guest is gone.
pub(crate) fn run(options: &Serve) -> ExitCode {
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("framegate: {failure}");
            failure.status()
        }
    }
}

fn serve(options: &Serve) -> Result<(), Failure> {
    rehearse(options)?;
    let stop = stop_signals().map_err(|e| Failure::host("cannot watch for signals", e))?;
    let socket = Socket::bind(&options.socket)?;
    loop {
        let Some(stream) = socket.next_guest(&stop)? else { return Ok(()) };
        let reason = serve_guest(options, stream, &stop)?;
        match reason {
            StopReason::Requested => return Ok(()),
            StopReason::PeerClosed if options.once => return Ok(()),
            reason if options.once => return Err(Failure::Link(reason)),
            reason => eprintln!("framegate: the guest is gone: {reason}"),
        }
    }
}

/// Starts a gateway that no guest sees, and stops it: a contradiction, a port that is taken or a capture
/// that cannot be written is to be found now, and not when a VM is waiting for its network.
fn rehearse(options: &Serve) -> Result<(), Failure> {
    let queues = NetworkFrameQueues::try_shared(1).map_err(|e| Failure::host("eventfd", e))?;
    options.uncaptured().start_with_queues(queues).map_err(Failure::Start)?.shutdown();
    let Some(path) = &options.pcap else { return Ok(()) };
    if fs::metadata(path).is_ok_and(|file| !file.is_file()) {
        // Whoever reads from a pipe would see its end.
        return Ok(());
    }
    // Not truncated: another server may still be writing to it.
    let mut file = OpenOptions::new();
    file.write(true).create(true).truncate(false).mode(0o600);
    file.open(path).map(drop).map_err(|error| Failure::Capture(path.clone(), error))
}

/// Says where the guest's ports are, if it has any.
fn say_published(runtime: &Runtime) {
    let Ok(all) = runtime.handle().published() else { return };
    let addresses: Vec<_> =
        all.iter().flat_map(|ports| &ports.addresses).map(SocketAddr::to_string).collect();
    if !addresses.is_empty() {
        eprintln!("framegate: published {}", addresses.join(", "));
    }
}

/// Runs the gateway for one guest until the link ends.
fn serve_guest(
    options: &Serve,
    stream: UnixStream,
    stop: &UnixStream,
) -> Result<StopReason, Failure> {
    let fault = |e| Failure::host("cannot watch the guest", e);
    let mut runtime = options.builder().start(stream).map_err(Failure::Start)?;
    say_published(&runtime);
    wait(&runtime, stop, options.stats.map(|seconds| Duration::from_secs(seconds.into())))
        .map_err(fault)?;
    let reason = runtime.wait();
    if options.stats.is_some() {
        eprintln!("framegate: {}", runtime.stats());
    }
    Ok(reason)
}

/// Waits until the network has stopped or we are to stop it, and prints the counters at each interval
/// meanwhile.
fn wait(runtime: &Runtime, stop: &UnixStream, interval: Option<Duration>) -> io::Result<()> {
    let mut due = interval.map(|interval| Instant::now() + interval);
    loop {
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        match poll(&mut [read_or_end(stop), read_or_end(&runtime.stopped())], left) {
            Ok(0) => {
                eprintln!("framegate: {}", runtime.stats());
                due = due.zip(interval).map(|(due, interval)| due + interval);
            }
            // By a signal handler, and what it wrote is to be seen.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(_) => {
                if is_ready(stop) {
                    runtime.queues().begin_shutdown();
                }
                return Ok(());
            }
        }
    }
}

/// A socket that becomes readable, for good, with the first SIGINT or SIGTERM.
fn stop_signals() -> io::Result<UnixStream> {
    let (stop, signal) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(SIGINT, signal.try_clone()?)?;
    signal_hook::low_level::pipe::register(SIGTERM, signal)?;
    Ok(stop)
}

/// The listening socket and the file that names it, which goes when this does.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of our file: another server may have put its own in this place since.
    identity: Option<(u64, u64)>,
}

impl Socket {
    /// Listens at `path`, for this user alone. The file of a server that is no more is removed first;
    /// anything else that has the name stays.
    fn bind(path: &Path) -> Result<Self, Failure> {
        let in_use = |why: &str| Failure::Socket(path.into(), why.into());
        let listener = match listen_privately(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                if !fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
                    return Err(in_use(
                        "there is a file of that name that is no socket; choose another",
                    ));
                }
                match UnixStream::connect(path) {
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Ok(_) => {
                        return Err(in_use(
                            "another process listens there; stop it or choose another",
                        ));
                    }
                    Err(error) => return Err(in_use(&error.to_string())),
                }
                fs::remove_file(path)
                    .or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })
                    .and_then(|()| listen_privately(path))
            }
            listener => listener,
        };
        let listener = listener.map_err(|error| in_use(&error.to_string()))?;
        let identity = fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()));
        Ok(Self { listener, path: path.into(), identity })
    }

    /// Waits for a guest; `None` when we are to stop.
    fn next_guest(&self, stop: &UnixStream) -> Result<Option<UnixStream>, Failure> {
        let fault = |e| Failure::host("cannot accept the VMM's connection", e);
        loop {
            match poll(&mut [read_or_end(&self.listener), read_or_end(stop)], None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(fault(error)),
                _ if is_ready(stop) => return Ok(None),
                _ => {}
            }
            match self.listener.accept() {
                Ok((stream, _)) => return Ok(Some(stream)),
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(fault(error)),
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.path).ok().map(|file| (file.dev(), file.ino()));
        if there.is_some() && there == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The file has mode 0600 from its first moment: a chmod afterwards would leave a gap.
fn listen_privately(path: &Path) -> io::Result<UnixListener> {
    let before = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let listener = UnixListener::bind(path);
    umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The VMM gave up between its connect and our accept, or a signal came.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
    )
}

fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    Ok(rustix::event::poll(fds, timeout.as_ref())?)
}

fn read_or_end(fd: &impl std::os::fd::AsFd) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::IN)
}

fn is_ready(fd: &UnixStream) -> bool {
    poll(&mut [read_or_end(fd)], Some(Duration::ZERO)).is_ok_and(|ready| ready > 0)
}

/// Why `serve` ends with a status other than 0.
#[derive(Debug)]
enum Failure {
    /// The socket cannot be used: its path and why.
    Socket(PathBuf, String),
    /// The capture cannot be written: its path and why.
    Capture(PathBuf, io::Error),
    /// The gateway did not start.
    Start(StartError),
    /// The host refused us something: what, and its error.
    Host(&'static str, io::Error),
    /// The link ended, and not because the guest closed it.
    Link(StopReason),
}

impl Failure {
    fn host(what: &'static str, error: io::Error) -> Self {
        Self::Host(what, error)
    }

    /// 2 for what the user can set right on the command line, 1 for all else.
    fn status(&self) -> ExitCode {
        match self {
            Self::Start(StartError::Config(_)) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path, why) => write!(f, "cannot use socket {}: {why}", path.display()),
            Self::Capture(path, error) => {
                write!(f, "cannot capture to {}: {error}", path.display())
            }
            Self::Start(error) => error.fmt(f),
            Self::Host(what, error) => write!(f, "{what}: {error}"),
            Self::Link(reason) => write!(f, "the guest's link failed: {reason}"),
        }
    }
}

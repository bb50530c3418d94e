//! The host's resolver configuration: resolv.conf(5), read again when it has changed.
//!
//! Whether it has is asked of stat(2) when somebody asks for the upstreams, as the resolver of the C
//! library does. So nothing polls it, it costs no descriptor, and every way in which the file changes is
//! seen: rewritten, renamed over, behind a symbolic link, bind-mounted into a container. An inotify
//! watch misses some of these, and a user has 128 of them.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use smoltcp::time::Instant;

/// More of the file is not read.
const BYTES: u64 = 64 << 10;
/// A change within this time of the one before may leave the same time stamp behind.
const STAMP: Duration = Duration::from_millis(100);

/// A resolv.conf(5) that is followed.
#[derive(Debug)]
pub(crate) struct ResolverFile {
    path: PathBuf,
    asked: Option<Instant>,
    read: Option<Stamp>,
    upstreams: Option<Vec<SocketAddr>>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl ResolverFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, asked: None, read: None, upstreams: None }
    }

    /// The upstreams that it names, if they are others than before. A file that is missing, or is no
    /// file, names none; one that cannot be read now names those that it named before. Asks the kernel once for each turn of the poll loop.
    pub(crate) fn changed(&mut self, now: Instant) -> Option<Vec<SocketAddr>> {
        if self.asked.replace(now) == Some(now) {
            return None;
        }
        let metadata = fs::metadata(&self.path).ok().filter(Metadata::is_file);
        let stamp = metadata.as_ref().map(Stamp::of);
        if stamp.is_some() && stamp == self.read {
            return None;
        }
        let upstreams = match metadata.as_ref().map(|_| self.read()) {
            None => Vec::new(),
            Some(Ok(upstreams)) => upstreams,
            // Out of descriptors, most likely: what was true last is the best guess, until the next query.
            Some(Err(_)) => return None,
        };
        // A stamp that is as good as new could be that of the next change too.
        self.read = stamp.filter(|_| metadata.is_some_and(|file| has_settled(&file)));
        if self.upstreams.as_ref() == Some(&upstreams) {
            return None;
        }
        self.upstreams = Some(upstreams.clone());
        Some(upstreams)
    }

    fn read(&self) -> io::Result<Vec<SocketAddr>> {
        // Not blocking, should somebody put a pipe there meanwhile.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&self.path);
        let mut bytes = Vec::new();
        file?.take(BYTES).read_to_end(&mut bytes)?;
        Ok(nameservers(&bytes))
    }
}

/// Whether the next change of the file will show in its stamp, which ticks with the kernel's clock.
fn has_settled(file: &Metadata) -> bool {
    let changed = u64::try_from(file.ctime()).ok().and_then(|seconds| {
        let nanoseconds = u32::try_from(file.ctime_nsec()).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
    });
    let age = changed.map(|changed| SystemTime::now().duration_since(changed));
    matches!(age, Some(Ok(age)) if age > STAMP)
}

/// The addresses of the `nameserver` lines, in order. What is no address is passed over, as the C
/// library does.
pub(crate) fn nameservers(bytes: &[u8]) -> Vec<SocketAddr> {
    let lines =
        bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let servers = lines.filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_server = words.next() == Some("nameserver");
        words.next().filter(|_| is_server)
    });
    servers.filter_map(address).collect()
}

/// An address, or a link-local one with its interface: `fe80::1%eth0`, `fe80::1%2`.
fn address(text: &str) -> Option<SocketAddr> {
    const PORT: u16 = 53;
    if let Some((address, scope)) = text.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        let scope = match scope.parse() {
            Ok(index) => index,
            Err(_) => nix::net::if_::if_nametoindex(scope).ok()?,
        };
        return Some(SocketAddrV6::new(address, PORT, 0, scope).into());
    }
    text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT))
}

#[cfg(test)]
mod tests;

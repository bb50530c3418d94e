//! What a test needs of the machine, and what happens without it.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use super::sys;

/// Whether the machine has what `test` needs. If not, says so where it can be seen; on CI, fails.
pub(crate) fn met(test: &str, tools: &[&str]) -> bool {
    let mut missing: Vec<&str> =
        tools.iter().copied().filter(|tool| program(tool).is_none()).collect();
    if !may_build_networks() || program("ip").is_none() {
        missing.insert(0, "root and /dev/net/tun");
    }
    missing.is_empty() || skip(test, &missing.join(", "))
}

/// Says that `test` is skipped for want of `what`; on CI, fails. Returns false.
pub(crate) fn skip(test: &str, what: &str) -> bool {
    let line = format!("SKIPPED (needs {what}): {test}");
    assert!(env::var("CI").is_err(), "CI may not skip: {line}");
    let _ = writeln!(io::stderr(), "{line}");
    false
}

/// Where an executable is.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var("PATH").unwrap_or_default();
    let mut places = path.split(':').map(|directory| Path::new(directory).join(name));
    places.find(|place| place.is_file())
}

fn may_build_networks() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_ok();
    root && tun && thread::spawn(sys::new_network).join().is_ok_and(|made| made.is_ok())
}

use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

fn servers(text: &str) -> Vec<String> {
    nameservers(text.as_bytes()).iter().map(ToString::to_string).collect()
}

#[test]
fn nameservers_of_every_form_are_read() {
    let text = "# a comment\n; another\nsearch example.com\n\
        nameserver 192.0.2.1\n  nameserver\t2001:db8::53 # with a comment\n\
        nameserver fe80::1%lo\nnameserver fe80::2%7\r\nnameserver 127.0.0.53";
    assert_eq!(
        servers(text),
        ["192.0.2.1:53", "[2001:db8::53]:53", "[fe80::1%1]:53", "[fe80::2%7]:53", "127.0.0.53:53"]
    );
}

#[test]
fn what_is_no_nameserver_is_passed_over() {
    let text = "nameserver\nnameserver dns.example\nnameserver 1.2.3\nnameserver 300.1.1.1\n\
        nameservers 192.0.2.9\n#nameserver 192.0.2.8\nnameserver fe80::1%no-such-interface\n\
        nameserver 192.0.2.1%eth0\noptions timeout:1\nNAMESERVER 192.0.2.7\n";
    assert_eq!(servers(text), [""; 0]);
    assert_eq!(servers(""), [""; 0]);
    assert_eq!(nameservers(&[0xff; 300]), []);
    assert_eq!(nameservers(b"\0\nnameserver \xff\nnameserver 192.0.2.1\n").len(), 1);
}

/// A file that is followed, and the turns of a poll loop that asks about it.
struct Followed {
    file: ResolverFile,
    turn: i64,
}

impl Followed {
    fn new(path: &Path) -> Self {
        Self { file: ResolverFile::new(path.to_owned()), turn: 0 }
    }

    fn changed(&mut self) -> Option<Vec<String>> {
        self.turn += 1;
        let changed = self.file.changed(Instant::from_millis(self.turn))?;
        Some(changed.iter().map(|address| address.ip().to_string()).collect())
    }
}

fn one(address: &str) -> Option<Vec<String>> {
    Some(vec![address.to_owned()])
}

#[test]
fn a_file_that_cannot_be_read_now_changes_nothing_and_is_read_again() {
    // As with EMFILE: there is a file of that name, and reading it fails.
    const UNREADABLE: &str = "/proc/self/mem";
    let directory = tempfile::tempdir().unwrap();
    let (path, good) = (directory.path().join("resolv.conf"), directory.path().join("good"));
    let lead_to = |target: &Path| {
        let _ = fs::remove_file(&path);
        symlink(target, &path).unwrap();
    };
    fs::write(&good, "nameserver 192.0.2.1\n").unwrap();
    lead_to(Path::new(UNREADABLE));
    let mut followed = Followed::new(&path);
    assert_eq!(followed.changed(), None);
    lead_to(&good);
    assert_eq!(followed.changed(), one("192.0.2.1"));
    lead_to(Path::new(UNREADABLE));
    assert_eq!((followed.changed(), followed.changed()), (None, None));
    fs::write(&good, "nameserver 192.0.2.2\n").unwrap();
    lead_to(&good);
    assert_eq!(followed.changed(), one("192.0.2.2"));
}

#[test]
fn every_way_to_change_the_file_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let mut followed = Followed::new(&path);
    assert_eq!(followed.changed(), Some(vec![]), "missing at first");
    assert_eq!(followed.changed(), None);
    let line = |n: u8| format!("nameserver 192.0.2.{n}\n");
    fs::write(&path, line(1)).unwrap();
    assert_eq!(followed.changed(), one("192.0.2.1"), "created");
    assert_eq!(followed.changed(), None);
    fs::write(&path, line(2)).unwrap();
    assert_eq!(followed.changed(), one("192.0.2.2"), "rewritten, at once and with the same length");
    let new = directory.path().join("new");
    fs::write(&new, line(3)).unwrap();
    fs::rename(&new, &path).unwrap();
    assert_eq!(followed.changed(), one("192.0.2.3"), "renamed over");
    fs::remove_file(&path).unwrap();
    assert_eq!(followed.changed(), Some(vec![]), "removed");
    fs::write(&new, line(4)).unwrap();
    symlink(&new, &path).unwrap();
    assert_eq!(followed.changed(), one("192.0.2.4"), "a symbolic link");
    fs::write(&new, line(5)).unwrap();
    assert_eq!(followed.changed(), one("192.0.2.5"), "rewritten behind the link");
    fs::remove_file(&new).unwrap();
    fs::create_dir(&new).unwrap();
    assert_eq!(followed.changed(), Some(vec![]), "a directory");
}

#[test]
fn many_rewrites_in_a_row_are_all_seen() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let mut followed = Followed::new(&path);
    for n in 100..200 {
        fs::write(&path, format!("nameserver 192.0.2.{n}\n")).unwrap();
        assert_eq!(followed.changed(), one(&format!("192.0.2.{n}")));
    }
}

#[test]
fn a_turn_asks_the_kernel_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let mut file = ResolverFile::new(path.clone());
    let now = Instant::from_millis(1);
    assert_eq!(file.changed(now), Some(vec![]));
    fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
    assert_eq!(file.changed(now), None);
    assert!(file.changed(now + smoltcp::time::Duration::from_millis(1)).is_some());
}

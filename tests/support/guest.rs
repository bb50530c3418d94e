//! A guest for QEMU: the kernel that Debian packages for clouds, its virtio modules, and busybox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::prerequisites;

/// A kernel image with its modules.
pub(crate) struct Kernel {
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The newest installed cloud kernel.
    pub(crate) fn find() -> Option<Self> {
        let names = fs::read_dir("/boot")
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let releases = names.filter_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()));
        let kernels =
            releases.filter(|release| release.ends_with("-cloud-amd64")).map(|release| Self {
                image: Path::new("/boot").join(format!("vmlinuz-{release}")),
                modules: Path::new("/lib/modules").join(&release),
                release,
            });
        kernels
            .filter(|kernel| kernel.modules.join("modules.dep").is_file())
            .max_by(|a, b| a.release.cmp(&b.release))
    }

    /// The modules that `wanted` come to, with what they depend on, each after its dependencies. One
    /// that is built in is not listed.
    fn modules(&self, wanted: &[&str]) -> Vec<PathBuf> {
        let dependencies = fs::read_to_string(self.modules.join("modules.dep")).unwrap();
        let mut modules = Vec::new();
        for name in wanted {
            let is_it =
                |path: &str| path.rsplit('/').next().unwrap().split('.').next() == Some(*name);
            let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
            for (module, needs) in lines.filter(|(module, _)| is_it(module)) {
                // modules.dep lists the deepest dependency last.
                for path in needs
                    .split_whitespace()
                    .rev()
                    .chain([module])
                    .map(|path| self.modules.join(path))
                {
                    if !modules.contains(&path) {
                        modules.push(path);
                    }
                }
            }
        }
        modules
    }
}

/// The module's object code, which distributions compress or not.
fn object(path: &Path) -> Vec<u8> {
    let unpack = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("gz") => "gzip",
        Some("zst") => "zstd",
        _ => return fs::read(path).unwrap(),
    };
    let output = Command::new(unpack).arg("-dc").arg(path).output().unwrap();
    assert!(output.status.success(), "{unpack} {}: {}", path.display(), output.status);
    output.stdout
}

/// Who configures the guest's network.
#[derive(Clone, Copy)]
pub(crate) enum Network {
    /// The image: addresses and routes are written in it.
    Static,
    /// DHCP and router advertisements, as with most images.
    Dynamic,
}

/// An initial file system that brings the network up, runs `script` and powers off.
pub(crate) fn initrd(kernel: &Kernel, network: Network, script: &str) -> Vec<u8> {
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "etc", "proc", "sys", "modules"] {
        archive.add(directory, 0o040_755, &[]);
    }
    let busybox = fs::read(prerequisites::program("busybox").unwrap()).unwrap();
    archive.add("bin/busybox", 0o100_755, &busybox);
    for (index, module) in kernel.modules(&["virtio_pci", "virtio_net"]).iter().enumerate() {
        archive.add(&format!("modules/{index:02}.ko"), 0o100_644, &object(module));
    }
    archive.add("lease", 0o100_755, LEASE.as_bytes());
    let network = match network {
        Network::Static => STATIC,
        Network::Dynamic => DYNAMIC,
    };
    archive.add("init", 0o100_755, format!("{INIT}{network}{script}poweroff -f\n").as_bytes());
    archive.finish()
}

const INIT: &str = "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in /modules/*.ko; do insmod $module; done
ip link set lo up
";

const STATIC: &str = "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
ip link set eth0 up
ip addr add 100.96.0.2/30 dev eth0
ip -6 addr add fd53:4d00::2/64 dev eth0
ip route add default via 100.96.0.1
ip -6 route add default via fd53:4d00::1
";

/// The kernel solicits a router when the link comes up. Duplicate address detection takes a second.
const DYNAMIC: &str = "ip link set eth0 up
udhcpc -i eth0 -f -n -q -t 10 -O mtu -s /lease
for try in $(seq 300); do
    ip -6 route | grep -q ^default && ! ip -6 addr show dev eth0 | grep -q tentative && break
    sleep 0.1
done
";

/// What udhcpc calls with the lease in its environment.
const LEASE: &str = "#!/bin/busybox sh
export PATH=/bin
[ $1 = bound ] || exit 0
ip link set eth0 mtu $mtu
ip addr add $ip/$mask dev eth0
ip route add default via $router
for server in $dns; do echo nameserver $server; done > /etc/resolv.conf
echo TEST lease $ip/$mask router $router dns $dns mtu $mtu seconds $lease
";

/// A cpio archive in the `newc` format, which the kernel unpacks.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (size, name_size) =
            (u32::try_from(content.len()).unwrap(), u32::try_from(name.len() + 1).unwrap());
        // inode, mode, user, group, links, time, size, device and its device numbers, name size, sum
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

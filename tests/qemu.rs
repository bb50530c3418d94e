//! The gateway and a whole virtual machine: QEMU boots a Debian kernel with the gateway behind its
//! virtio-net NIC, and the guest pings, fetches and sends. Needs what `netns` needs, and QEMU, a cloud
//! kernel of Debian's (`linux-image-cloud-amd64`), a static busybox (`busybox-static`) and dnsmasq.
//!
//! ```text
//! cargo test --release --features cli --test qemu
//! ```

#![cfg(all(feature = "cli", target_os = "linux", target_arch = "x86_64", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::thread;
use std::time::Instant;

use support::guest::{Kernel, Network, initrd};
use support::http::HttpServer;
use support::lab::{Lab, SERVER_V4, SERVER_V6, Setup};
use support::pattern::{self, MIB};
use support::{names, prerequisites, say, tcp};

/// QEMU is killed after this long: it emulates every instruction.
const LIMIT_SECONDS: u32 = 300;
const BULK: u64 = 64 * MIB;

#[test]
fn a_virtual_machine_has_a_network() {
    let setup = Setup::of("QEMU").tools(&["qemu-system-x86_64", "busybox"]).without_guest();
    let Some(kernel) = Kernel::find() else {
        prerequisites::skip("QEMU", "linux-image-cloud-amd64");
        return;
    };
    let Some(lab) = setup.start() else { return };
    let (v4, v6) = (
        HttpServer::start(&lab.server, (SERVER_V4, 0)),
        HttpServer::start(&lab.server, (SERVER_V6, 0)),
    );
    let (sink, sink_address) = lab.listen(SERVER_V4);
    let started = Instant::now();
    let (console, received) = thread::scope(|scope| {
        let received = scope.spawn(move || {
            // The guest has to boot first.
            socket2::SockRef::from(&sink).set_read_timeout(None).unwrap();
            tcp::accept(&sink).and_then(pattern::receive)
        });
        let script = script(&v4.url(BULK), &v6.url(MIB), sink_address.port());
        let console = boot(&lab, &kernel, Network::Static, &script);
        // Ends the wait if the guest never came.
        drop(lab.server.connect(sink_address));
        (console, received.join().unwrap())
    });
    report(&console, &kernel);
    let sums = [("v4", pattern::sum(BULK, BULK)), ("v6", pattern::sum(MIB, MIB))];
    for (what, sum) in sums {
        let line = format!("TEST {what} {} {}", sum.bytes, sum.sha256);
        assert!(console.contains(&line), "no `{line}` in:\n{console}");
    }
    assert_eq!(received.unwrap(), pattern::sum(BULK, BULK), "what the guest sent back");
    assert_eq!(console.matches(" 0% packet loss").count(), 2, "{console}");
    say(format_args!(
        "{BULK} + {MIB} bytes down, {BULK} up, in {:?} with the boot",
        started.elapsed()
    ));
}

/// An image that knows nothing of the network: DHCP for IPv4, router advertisements for IPv6, and pages
/// by name over each.
#[test]
fn a_virtual_machine_configures_itself_and_fetches_by_name() {
    let setup = Setup::of("QEMU with DHCP alone");
    let setup = setup.tools(&["qemu-system-x86_64", "busybox", names::DNSMASQ]).without_guest();
    let Some(kernel) = Kernel::find() else {
        prerequisites::skip("QEMU with DHCP alone", "linux-image-cloud-amd64");
        return;
    };
    let upstream = SERVER_V4.to_string();
    let Some(lab) = setup.gateway(&["--once", "--dns", &upstream]).start() else { return };
    let (v4, v6) = (
        HttpServer::start(&lab.server, (SERVER_V4, 0)),
        HttpServer::start(&lab.server, (SERVER_V6, 0)),
    );
    let (a, aaaa) = (
        format!("--host-record=four.test,{SERVER_V4}"),
        format!("--host-record=six.test,{SERVER_V6}"),
    );
    let records = [&a, &aaaa, "--txt-record=four.test,there and back"];
    let _names = names::start(&lab.server, lab.directory(), SERVER_V4, &records);
    let url = |name: &str, server: &HttpServer| {
        format!("http://{name}.test:{}/{MIB}", server.address().port())
    };
    let script = format!(
        "echo TEST kernel $(uname -r)
         ip addr show dev eth0
         ip -6 route
         cat /etc/resolv.conf
         {FETCH}
         fetch four {}
         fetch six {}
         echo TEST text $(nslookup -type=txt four.test | grep text)
         echo TEST none $(wget -O /none http://none.test/ 2>&1)\n",
        url("four", &v4),
        url("six", &v6),
    );
    let console = boot(&lab, &kernel, Network::Dynamic, &script);
    report(&console, &kernel);
    let page = pattern::sum(MIB, MIB);
    for line in [
        "default via fe80::53:4dff:fe00:1 dev eth0".to_owned(),
        "TEST lease 100.96.0.2/30 router 100.96.0.1 dns 100.96.0.1 mtu 1500".to_owned(),
        format!("TEST four {} {}", page.bytes, page.sha256),
        format!("TEST six {} {}", page.bytes, page.sha256),
        "TEST text four.test text = \"there and back\"".to_owned(),
        "TEST none wget: bad address 'none.test'".to_owned(),
    ] {
        assert!(console.contains(&line), "no `{line}` in:\n{console}");
    }
}

fn report(console: &str, kernel: &Kernel) {
    assert!(console.contains(&format!("TEST kernel {}", kernel.release)), "{console}");
    for line in
        console.lines().filter(|line| line.contains("TEST ") || line.contains("packet loss"))
    {
        say(format_args!("guest: {}", line.trim()));
    }
}

/// A function of the guest's shell: `fetch NAME URL` says how much came and its hash.
const FETCH: &str = "fetch() {
    wget -q -O /$1 $2
    echo TEST $1 $(wc -c < /$1) $(sha256sum < /$1 | cut -d' ' -f1)
}";

/// What the guest runs, once it has a network.
fn script(v4: &str, v6: &str, sink_port: u16) -> String {
    format!(
        "echo TEST kernel $(uname -r)
         ping -c 3 100.96.0.1
         ping6 -c 3 fd53:4d00::1
         {FETCH}
         fetch v4 {v4}
         fetch v6 {v6}
         nc {SERVER_V4} {sink_port} < /v4
         echo TEST sent\n"
    )
}

/// Boots, runs the script, powers off, and returns what the console showed.
fn boot(lab: &Lab, kernel: &Kernel, network: Network, script: &str) -> String {
    let image = lab.directory().join("initrd");
    fs::write(&image, initrd(kernel, network, script)).unwrap();
    let socket = lab.gateway.socket.display();
    let netdev = format!("stream,id=n0,server=off,addr.type=unix,addr.path={socket}");
    let device = "virtio-net-pci,netdev=n0,mac=02:53:4d:00:00:02,mrg_rxbuf=off";
    let mut command = vec!["qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-nodefaults"];
    command.extend(["-vga", "none", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    command.extend(["-kernel", kernel.image.to_str().unwrap(), "-initrd", image.to_str().unwrap()]);
    command.extend(["-append", "console=ttyS0 quiet panic=-1"]);
    command.extend(["-netdev", &netdev, "-device", device]);
    let output = lab.host.output(LIMIT_SECONDS, &command);
    let (out, errors) = (output.stdout, output.stderr);
    format!("{}{}", String::from_utf8_lossy(&out), String::from_utf8_lossy(&errors))
}

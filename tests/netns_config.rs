//! A guest with nothing configured: the DHCP clients and the IPv6 stack of a real Linux guest get what
//! they need from the shipped program. Needs root and /dev/net/tun; skips visibly without, and fails
//! without on CI.
//!
//! ```text
//! cargo test --release --features cli --test netns_config -- --test-threads=1
//! ```

#![cfg(all(feature = "cli", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use support::capture::Capture;
use support::lab::{GATEWAY_V4, GATEWAY_V6, Lab, SERVER_V6, Setup};
use support::namespace::Namespace;
use support::{eventually, say};

/// What a client, or the kernel, may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A guest whose NIC is up and has no address.
fn bare(test: &str, tools: &[&str]) -> Option<Lab> {
    Setup::of(test).tools(tools).unconfigured().start()
}

// --- DHCP --------------------------------------------------------------------------------------

/// Where a client runs: files that it thinks are the system's are its own, and go with it. So do the
/// processes that it starts, since it is the first of a process namespace.
const ISOLATED: &str = "
    mount -t tmpfs tmpfs /run
    for state in /var/lib/dhcp /var/lib/dhcpcd; do
        if [ -d $state ]; then mount -t tmpfs tmpfs $state; fi
    done
    touch /run/resolv.conf
    mount --bind /run/resolv.conf /etc/resolv.conf
    exec \"$@\"
";

/// The words that run a program so.
fn isolated<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let own = ["unshare", "--mount", "--pid", "--mount-proc", "--kill-child"];
    [&own[..], &["sh", "-eu", "-c", ISOLATED, "isolated"], words].concat()
}

/// A program of the guest that is killed, with all that it has started, when this is dropped.
struct Background(Child);

impl Background {
    fn start(guest: &Namespace, words: &[&str], log: &Path) -> Self {
        let output = fs::File::create(log).unwrap();
        let words = isolated(words);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        Self(guest.run(|| command.spawn()).unwrap())
    }

    /// Signals the program, which is the one child of `unshare`.
    fn signal(&self, signal: &str) -> bool {
        let unshare = self.0.id();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
        let Some(id) =
            children.ok().and_then(|ids| Some(ids.split_whitespace().next()?.to_owned()))
        else {
            return false;
        };
        Command::new("kill").args([signal, &id]).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Its parent then ends by itself, and has reaped it; killed first, it would leave that to others.
        if !self.signal("-KILL") {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

/// The script that a client calls with what it got. It configures the guest, and appends the
/// environment to the file `heard` when it is done.
struct Script {
    path: PathBuf,
    heard: PathBuf,
}

impl Script {
    fn new(lab: &Lab, configure: &str) -> Self {
        let (path, heard) = (lab.directory().join("script"), lab.directory().join("heard"));
        let text = format!(
            "#!/bin/sh -eu\n{configure}\nenv > {heard}.new\nmv {heard}.new {heard}\n",
            heard = heard.display()
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path, heard }
    }

    fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Waits until the script has run, and forgets that.
    fn ran(&self, log: &Path) -> Environment {
        let text = eventually(PATIENCE, || fs::read_to_string(&self.heard).ok());
        let text = text.unwrap_or_else(|| {
            panic!("no lease:\n{}", fs::read_to_string(log).unwrap_or_default());
        });
        fs::remove_file(&self.heard).unwrap();
        Environment(text)
    }
}

/// What a script was told.
struct Environment(String);

impl Environment {
    #[track_caller]
    fn is(&self, name: &str, value: &str) {
        let mut found = self.0.lines().filter_map(|line| line.split_once('='));
        let found = found.find(|(key, _)| *key == name).map(|(_, value)| value);
        assert_eq!(found, Some(value), "{name} in:\n{}", self.0);
    }
}

/// The guest has its address and its route, and they work.
fn is_configured(lab: &Lab) {
    let text = |command: &str| String::from_utf8(lab.guest.stdout_of(10, command)).unwrap();
    let addresses = text("ip -4 -o addr show dev tap0");
    assert!(addresses.contains("inet 100.96.0.2/30"), "{addresses}");
    let routes = text("ip -4 route show default");
    assert!(routes.contains("via 100.96.0.1"), "{routes}");
    lab.guest.stdout_of(20, &format!("ping -n -c 1 -W 5 {GATEWAY_V4}"));
}

fn said(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

#[test]
fn busybox_udhcpc_gets_a_lease_and_renews_it() {
    let Some(lab) = bare("udhcpc", &["busybox", "tcpdump"]) else { return };
    let script = Script::new(
        &lab,
        "case $1 in bound|renew) ;; *) exit 0 ;; esac
         ip addr replace $ip/$mask dev $interface
         ip route replace default via $router
         event=$1; export event",
    );
    let capture = Capture::dhcp(&lab.guest, lab.directory());
    let log = lab.directory().join("udhcpc");
    // -a: it asks by ARP whether anybody has the address, and nobody may say so.
    let words = ["busybox", "udhcpc", "-f", "-a", "-O", "mtu", "-i", "tap0", "-s", script.path()];
    let client = Background::start(&lab.guest, &words, &log);
    let lease = script.ran(&log);
    for (name, value) in [
        ("event", "bound"),
        ("ip", "100.96.0.2"),
        ("mask", "30"),
        ("subnet", "255.255.255.252"),
        ("router", "100.96.0.1"),
        ("dns", "100.96.0.1"),
        ("serverid", "100.96.0.1"),
        ("mtu", "1500"),
        ("lease", "86400"),
    ] {
        lease.is(name, value);
    }
    is_configured(&lab);
    // It renews by unicast.
    assert!(client.signal("-USR1"));
    script.ran(&log).is("event", "renew");
    assert!(!said(&log).contains("declin"), "{}", said(&log));
    capture.say_reply_times("udhcpc", 3);
}

const DHCLIENT: &str = "
    case $reason in BOUND|REBOOT|RENEW) ;; *) exit 0 ;; esac
    ip addr replace $new_ip_address/$new_subnet_mask dev $interface
    ip route replace default via $new_routers";

/// Runs dhclient, in the foreground, until the test ends.
fn dhclient(lab: &Lab, script: &Script, leases: &Path, log: &Path) -> Background {
    let configuration = lab.directory().join("dhclient.conf");
    fs::write(
        &configuration,
        "request subnet-mask, routers, domain-name-servers, interface-mtu, dhcp-lease-time,
             dhcp-renewal-time, dhcp-rebinding-time;\n",
    )
    .unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (configuration, leases) = (path(&configuration), path(leases));
    let words = ["dhclient", "-4", "-d", "-1", "-v", "-cf", &configuration, "-lf", &leases];
    let more = ["-pf", "/run/dhclient.pid", "-sf", script.path(), "tap0"];
    Background::start(&lab.guest, &[&words[..], &more].concat(), log)
}

#[test]
fn dhclient_gets_a_lease_and_again_after_a_reboot() {
    let Some(lab) = bare("dhclient", &["dhclient", "tcpdump"]) else { return };
    let script = Script::new(&lab, DHCLIENT);
    let capture = Capture::dhcp(&lab.guest, lab.directory());
    let (leases, log) = (lab.directory().join("leases"), lab.directory().join("dhclient"));
    fs::write(&leases, "").unwrap();
    for reason in ["BOUND", "REBOOT"] {
        let client = dhclient(&lab, &script, &leases, &log);
        let lease = script.ran(&log);
        for (name, value) in [
            ("reason", reason),
            ("new_ip_address", "100.96.0.2"),
            ("new_subnet_mask", "255.255.255.252"),
            ("new_routers", "100.96.0.1"),
            ("new_domain_name_servers", "100.96.0.1"),
            ("new_dhcp_server_identifier", "100.96.0.1"),
            ("new_interface_mtu", "1500"),
            ("new_dhcp_lease_time", "86400"),
            ("new_dhcp_renewal_time", "43200"),
            ("new_dhcp_rebinding_time", "75600"),
        ] {
            lease.is(name, value);
        }
        is_configured(&lab);
        let bound = eventually(PATIENCE, || said(&log).contains("bound to").then_some(()));
        assert!(bound.is_some(), "{}", said(&log));
        drop(client);
    }
    capture.say_reply_times("dhclient", 3);
}

#[test]
fn dhclient_with_the_lease_of_another_network_is_told_no_and_gets_its_own() {
    let Some(lab) = bare("dhclient elsewhere", &["dhclient", "tcpdump"]) else { return };
    let script = Script::new(&lab, DHCLIENT);
    let capture = Capture::dhcp(&lab.guest, lab.directory());
    let (leases, log) = (lab.directory().join("leases"), lab.directory().join("dhclient"));
    fs::write(
        &leases,
        "lease {
           interface \"tap0\";
           fixed-address 192.168.1.77;
           option subnet-mask 255.255.255.0;
           option dhcp-lease-time 86400;
           option dhcp-message-type 5;
           option dhcp-server-identifier 192.168.1.1;
           renew 4 2098/01/02 00:00:00;
           rebind 4 2098/01/02 00:00:00;
           expire 4 2098/01/02 00:00:00;
         }\n",
    )
    .unwrap();
    let _client = dhclient(&lab, &script, &leases, &log);
    script.ran(&log).is("new_ip_address", "100.96.0.2");
    is_configured(&lab);
    assert!(said(&log).contains("DHCPNAK from 100.96.0.1"), "{}", said(&log));
    capture.say_reply_times("dhclient with a lease of another network", 3);
}

#[test]
fn dhcpcd_gets_a_lease() {
    let Some(lab) = bare("dhcpcd", &["dhcpcd", "tcpdump"]) else { return };
    let script = Script::new(&lab, "case $reason in BOUND) ;; *) exit 0 ;; esac");
    let capture = Capture::dhcp(&lab.guest, lab.directory());
    let log = lab.directory().join("dhcpcd");
    // With its own configuration, which asks for rapid commit.
    let words = ["dhcpcd", "-4", "-B", "-d", "-c", script.path(), "tap0"];
    let _client = Background::start(&lab.guest, &words, &log);
    let lease = script.ran(&log);
    for (name, value) in [
        ("new_ip_address", "100.96.0.2"),
        ("new_subnet_cidr", "30"),
        ("new_routers", "100.96.0.1"),
        ("new_domain_name_servers", "100.96.0.1"),
        ("new_interface_mtu", "1500"),
        ("new_dhcp_lease_time", "86400"),
    ] {
        lease.is(name, value);
    }
    is_configured(&lab);
    capture.say_reply_times("dhcpcd", 1);
}

/// libkrun's in-guest client: a UDP socket on a device without an address, a buffer of 576 bytes, the
/// broadcast flag and rapid commit; of the answer it reads the address that the reply came from and the
/// options 1, 3, 6 and 26. It waits for 100 ms.
struct Libkrun {
    socket: UdpSocket,
    rapid_commit: bool,
}

impl Libkrun {
    fn new(guest: &Namespace, rapid_commit: bool) -> Self {
        let socket = guest.run(|| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.set_broadcast(true).unwrap();
            socket.bind_device(Some(b"tap0")).unwrap();
            socket.bind(&SocketAddr::from(([0, 0, 0, 0], 68)).into()).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        });
        Self { socket: socket.into(), rapid_commit }
    }

    /// Sends a message and returns the type of the answer, its options, and where it came from.
    fn ask(&self, options: &[u8]) -> (u8, HashMap<u8, Vec<u8>>, Ipv4Addr) {
        let mut message = vec![1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x80, 0];
        message.resize(28, 0);
        message.extend_from_slice(&[0x02, 0x53, 0x4d, 0, 0, 2]);
        message.resize(236, 0);
        message.extend_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        message.extend_from_slice(options);
        if self.rapid_commit {
            message.extend_from_slice(&[80, 0]);
        }
        message.push(255);
        message.resize(300, 0);
        let asked = Instant::now();
        self.socket.send_to(&message, (Ipv4Addr::BROADCAST, 67)).unwrap();
        let mut buffer = [0; 576];
        let (length, from) = self.socket.recv_from(&mut buffer).expect("an answer");
        say(format_args!("libkrun's client: {length} bytes after {:?}", asked.elapsed()));
        assert!(length < buffer.len(), "the answer may have been cut");
        let answer = &buffer[..length];
        assert_eq!((answer[0], &answer[4..8]), (2, &[0x12, 0x34, 0x56, 0x78][..]));
        assert_eq!(answer[16..20], [100, 96, 0, 2], "yiaddr");
        let (mut options, mut rest) = (HashMap::new(), &answer[240..]);
        while let [kind, length, data @ ..] = rest
            && *kind != 255
        {
            let (data, others) = data.split_at((*length).into());
            options.insert(*kind, data.to_vec());
            rest = others;
        }
        let IpAddr::V4(server) = from.ip() else { panic!("{from}") };
        (options[&53][0], options, server)
    }
}

#[test]
fn libkruns_client_gets_a_lease_with_and_without_rapid_commit() {
    let Some(lab) = bare("libkrun's DHCP client", &[]) else { return };
    for rapid_commit in [true, false] {
        let client = Libkrun::new(&lab.guest, rapid_commit);
        let (mut kind, mut options, server) = client.ask(&[53, 1, 1]);
        if !rapid_commit {
            assert_eq!(kind, 2, "an offer");
            let mut request = vec![53, 1, 3, 50, 4, 100, 96, 0, 2, 54, 4];
            request.extend_from_slice(&server.octets());
            (kind, options, _) = client.ask(&request);
        }
        assert_eq!(kind, 5, "an acknowledgement");
        assert_eq!(options[&1], [255, 255, 255, 252]);
        assert_eq!(
            (&options[&3][..], &options[&6][..]),
            (&[100, 96, 0, 1][..], &[100, 96, 0, 1][..])
        );
        assert_eq!(options[&26], [0x05, 0xdc], "without it the guest takes an MTU of 65,520");
    }
}

#[test]
fn without_dhcp_nobody_answers() {
    let setup = Setup::of("--no-dhcp").tools(&["busybox"]).unconfigured();
    let Some(lab) = setup.gateway(&["--once", "--no-dhcp"]).start() else { return };
    let words =
        ["busybox", "udhcpc", "-n", "-q", "-t", "1", "-T", "1", "-i", "tap0", "-s", "/bin/true"];
    let output = lab.guest.output(20, &isolated(&words));
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

// --- IPv6 --------------------------------------------------------------------------------------

/// The address that the guest makes of its prefix and its MAC address.
const SLAAC: &str = "fd53:4d00::53:4dff:fe00:2";

fn rdisc6(lab: &Lab) -> String {
    // The kernel gives an interface its link-local address some time after it is up.
    let addresses = "ip -6 -o addr show dev tap0 scope link -tentative";
    let has_address = || (!lab.guest.stdout_of(10, addresses).is_empty()).then_some(());
    eventually(PATIENCE, has_address).expect("a link-local address to ask from");
    let output = lab.guest.stdout_of(20, "rdisc6 -1 -n tap0");
    // "Router lifetime           :         9000 (0x00002328) seconds"
    let text = String::from_utf8(output).unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn rdisc6_sees_prefix_mtu_and_resolver_and_what_becomes_of_the_host_s_route() {
    let Some(lab) = bare("rdisc6", &["rdisc6"]) else { return };
    let seen = rdisc6(&lab);
    for part in [
        "Hop limit : 64",
        "Stateful address conf. : No",
        "Router lifetime : 9000 ",
        "Prefix : fd53:4d00::/64",
        "On-link : Yes",
        "Autonomous address conf.: Yes",
        "Valid time : 2592000 ",
        "Pref. time : 604800 ",
        "MTU : 1500 bytes (valid)",
        "Recursive DNS server : fd53:4d00::1",
        "DNS server lifetime : 9000 ",
        "Source link-layer address: 02:53:4D:00:00:01",
        "from fe80::53:4dff:fe00:1",
    ] {
        assert!(seen.contains(part), "{part} in {seen}");
    }
    say(&seen);
    lab.host.ip("route del default via 2001:db8::1");
    let seen = eventually(PATIENCE, || {
        Some(rdisc6(&lab)).filter(|seen| seen.contains("Router lifetime : 0 "))
    });
    let seen = seen.expect("no default router without a way to the world");
    assert!(seen.contains("DNS server lifetime : 9000 "), "{seen}");
    assert!(seen.contains("Valid time : 2592000 "), "{seen}");
}

/// Lets the guest's kernel configure itself, with duplicate address detection, and waits until it has
/// an address.
fn configure_by_slaac(lab: &Lab) {
    lab.guest.ip("link set tap0 down");
    for key in ["accept_ra", "accept_dad"] {
        lab.guest.sysctl(&format!("ipv6/conf/tap0/{key}"), "1");
    }
    lab.guest.ip("link set tap0 up");
    let found = eventually(PATIENCE, || {
        let addresses = guest_says(lab, "ip -6 -o addr show dev tap0 scope global -tentative");
        addresses.contains(&format!("{SLAAC}/64")).then_some(addresses)
    });
    say(found.expect("an address of the prefix").trim());
}

fn guest_says(lab: &Lab, command: &str) -> String {
    String::from_utf8(lab.guest.stdout_of(20, command)).unwrap()
}

#[test]
fn the_guest_s_kernel_configures_itself_and_reaches_the_world() {
    let Some(mut lab) = bare("SLAAC", &["ping"]) else { return };
    configure_by_slaac(&lab);
    let routes = guest_says(&lab, "ip -6 route show default");
    assert!(routes.contains("via fe80::53:4dff:fe00:1 dev tap0 proto ra"), "{routes}");
    guest_says(&lab, &format!("ping -n -c 1 -W 5 -I {SLAAC} {GATEWAY_V6}"));
    let (client, _server) = lab.connection(SERVER_V6);
    assert_eq!(client.local_addr().unwrap().ip().to_string(), SLAAC);
    // A gateway that stops is a router no longer.
    lab.gateway.terminate();
    lab.gateway.exit_within(PATIENCE).expect("it ends");
    let gone = eventually(PATIENCE, || {
        guest_says(&lab, "ip -6 route show default").is_empty().then_some(())
    });
    gone.expect("the default route goes with the router");
}

#[test]
fn a_host_without_ipv6_gives_an_address_but_no_default_route() {
    let Some(lab) = bare("SLAAC without a route", &["ping"]) else { return };
    lab.host.ip("route del default via 2001:db8::1");
    configure_by_slaac(&lab);
    assert_eq!(guest_says(&lab, "ip -6 route show default"), "");
    guest_says(&lab, &format!("ping -n -c 1 -W 5 -I {SLAAC} {GATEWAY_V6}"));
    // So nothing is tried over IPv6, and nothing is waited for.
    let error = lab.guest.connect((SERVER_V6, 80).into()).expect_err("there is no route");
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable, "{error}");
}

#[test]
fn a_guest_hears_of_a_route_that_the_host_gets_with_an_address() {
    let Some(lab) = bare("a route comes", &[]) else { return };
    lab.host.ip("route del default via 2001:db8::1");
    configure_by_slaac(&lab);
    assert_eq!(guest_says(&lab, "ip -6 route show default"), "");
    lab.host.ip("route add default via 2001:db8::1
         addr add 2001:db8::77/64 dev d0 nodad");
    let route = eventually(PATIENCE, || {
        Some(guest_says(&lab, "ip -6 route show default")).filter(|route| !route.is_empty())
    });
    say(route.expect("an advertisement that was not asked for").trim());
}

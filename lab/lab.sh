# shellcheck shell=bash
# A lab of network namespaces, to be sourced: `net` holds the servers, `host` the gateway under test,
# and each guest has one of its own. Their names are of this process alone, and nothing outlives it.
#
#   lab_up; start_gateway PEER SOCKET; add_guest NAME; start_link NAME SOCKET; wait_ready NAME
#
# $gateway and $link are the processes that were started last.

lab="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
repository="$(dirname "$lab")"
bin="${CARGO_TARGET_DIR:-$lab/target}/release"

# What a test may choose.
: "${MTU:=1500}"
: "${OFFLOAD:=none}"      # none, upload or jumbo: what guest and gateway have agreed on
: "${LINK:=}"             # more options of taplink, as in '--libkrun' or '--loss 10'
: "${TEST_SECONDS:=3}"
: "${PASST:=passt}"
: "${SLIRP4NETNS:=slirp4netns}"
# The gateway: any command that serves the Unix stream socket $SOCK.
program="${CARGO_TARGET_DIR:-$repository/target}/release/framegate"
: "${GATEWAY:=$program serve --socket \$SOCK --mtu \$MTU --offload \$OFFLOAD \$PUBLISH}"
PUBLISH="${PUBLISH:-}"
export MTU OFFLOAD PUBLISH

server=192.0.2.1
port=5201
prefix="lab-$$"
namespaces=()
export gateway='' link=''
work="$(mktemp -d)"
ulimit -n "$(ulimit -Hn)"

in_ns() { local name="$1"; shift; ip netns exec "$prefix-$name" "$@"; }
# The same for the background, where $! has to be the program.
become_ns() { local name="$1"; shift; exec ip netns exec "$prefix-$name" "$@"; }
ip_ns() { local name="$1"; shift; ip -n "$prefix-$name" "$@"; }

add_namespace() {
    ip netns add "$prefix-$1" || exit 1
    namespaces+=("$prefix-$1")
    ip_ns "$1" link set lo up
    # The default of the host, whatever it is, is none of the comparison's business.
    in_ns "$1" sysctl -qw net.ipv4.tcp_congestion_control=cubic net.ipv4.tcp_tw_reuse=1 \
        net.ipv4.ip_local_port_range="1024 65000" net.core.somaxconn=8192 \
        net.ipv4.tcp_max_syn_backlog=8192
}

lab_up() {
    trap lab_down EXIT
    trap 'exit 130' INT TERM HUP
    add_namespace net
    add_namespace host
    ip link add d0 netns "$prefix-host" type veth peer name d1 netns "$prefix-net"
    ip_ns host addr add 192.0.2.2/24 dev d0
    ip_ns net addr add "$server/24" dev d1
    ip_ns host link set d0 up
    ip_ns net link set d1 up
    ip_ns host route add default via "$server"
    ip_ns net route add default via 192.0.2.2
    in_ns host sysctl -qw net.ipv4.ip_forward=1
    become_ns net "$bin/netprobe" serve "$server:$port" 2>"$work/server.err" &
}

lab_down() {
    local name pids=()
    trap '' INT TERM HUP
    for name in "${namespaces[@]}"; do
        while mapfile -t pids < <(ip netns pids "$name") && ((${#pids[@]} > 0)); do
            kill -KILL "${pids[@]}" 2>/dev/null
            wait "${pids[@]}" 2>/dev/null
        done
        ip netns del "$name"
    done
    rm -rf "$work"
}

# Starts the gateway of PEER behind SOCKET.
start_gateway() {
    local log="$work/$1.log"
    export SOCK="$2"
    case "$1" in
    ours) become_ns host bash -c "exec $GATEWAY" >"$log" 2>&1 & ;;
    passt)
        local publish=()
        [[ -z "$PUBLISH" ]] || publish=(-t 8080:80)
        become_ns host "$PASST" -f -q -s "$SOCK" -a 100.96.0.2 -n 30 -g 100.96.0.1 -m "$MTU" \
            --no-map-gw --runas 0 "${publish[@]}" >"$log" 2>&1 &
        ;;
    smolvm) become_ns host "$bin/peer-smolvm" "$SOCK" >"$log" 2>&1 & ;;
    *) echo "no such peer: $1" >&2 && exit 2 ;;
    esac
    gateway=$!
}

# A namespace with a tap device; IPv4 alone, so that an idle guest says nothing.
add_guest() {
    local header=()
    [[ "$OFFLOAD" != upload ]] || header=(vnet_hdr)
    add_namespace "$1"
    in_ns "$1" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    ip_ns "$1" tuntap add tap0 mode tap "${header[@]}"
    # The queue is long, so that the link itself loses nothing.
    ip_ns "$1" link set tap0 address 02:53:4d:00:00:02 mtu "$MTU" txqueuelen 20000 up
    ip_ns "$1" addr add 100.96.0.2/30 dev tap0
    ip_ns "$1" route add default via 100.96.0.1
}

# Carries the frames of guest NAME.
start_link() {
    local options=()
    read -ra options <<<"$LINK"
    [[ "$OFFLOAD" != upload ]] || options+=(--offload)
    become_ns "$1" "$bin/taplink" tap0 "$2" "${options[@]}" 2>"$work/taplink.log" &
    link=$!
}

# slirp4netns brings its own tap device.
start_slirp4netns() {
    add_namespace "$1"
    become_ns "$1" sleep infinity &
    local holder=$!
    until [[ "$(readlink "/proc/$holder/ns/net")" != "$(readlink /proc/self/ns/net)" ]]; do :; done
    become_ns host "$SLIRP4NETNS" -c -m "$MTU" --disable-host-loopback "$holder" tap0 \
        >"$work/slirp4netns.log" 2>&1 &
    gateway=$!
}

# No gateway: the kernel forwards. The floor for latency.
start_direct() {
    add_namespace "$1"
    ip link add v0 netns "$prefix-host" type veth peer name v1 netns "$prefix-$1"
    ip_ns host addr add 100.96.0.1/30 dev v0
    ip_ns host link set v0 up
    ip_ns "$1" addr add 100.96.0.2/30 dev v1
    ip_ns "$1" link set v1 up
    ip_ns "$1" route add default via 100.96.0.1
    ip_ns net route add 100.96.0.0/30 via 192.0.2.2
}

wait_ready() {
    in_ns "$1" "$bin/netprobe" ready "$server:$port" || {
        tail -n 5 "$work"/*.log "$work/server.err" >&2
        exit 1
    }
}

# CPU seconds so far of all the threads of the processes, also of those that have ended.
cpu() {
    local pid files=()
    for pid; do files+=("/proc/$pid/stat"); done
    awk -v hz="$(getconf CLK_TCK)" '{s += $14 + $15} END {printf "%.2f", s / hz}' "${files[@]}"
}

# Context switches so far.
switches() {
    local pid files=()
    for pid; do files+=("/proc/$pid/task/"*/status); done
    awk '/ctxt_switches/ {s += $2} END {print s + 0}' "${files[@]}"
}

# A field of status or smaps_rollup, summed up, in KiB.
memory() {
    local field="$1" file="$2" pid files=()
    shift 2
    for pid; do files+=("/proc/$pid/$file"); done
    awk -v field="$field:" '$1 == field {s += $2} END {print s + 0}' "${files[@]}"
}

calculate() { awk "BEGIN {printf \"%.3f\", $1}"; }

#!/usr/bin/env bash
# Many NICs in one process group, each with a gateway and a guest of its own: first one, then all of
# them, idle and then busy. A line of key=value figures for each.
#
#   nics.sh PEER [NICS]
#
# The throughput is what crosses the servers' veth while all are busy. In the environment: TEST_SECONDS,
# GATEWAY (see lab.sh). Needs root.
set -uo pipefail
(($# > 0)) || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2; }
peer="$1" nics="${2:-64}"
# shellcheck source=lab.sh
. "$(dirname "${BASH_SOURCE[0]}")/lab.sh"
gateways=() links=()

add_nics() {
    local nic first=${#gateways[@]}
    for ((nic = first; nic < $1; nic++)); do
        start_gateway "$peer" "$work/$nic.sock"
        gateways+=("$gateway")
        add_guest "guest$nic"
        start_link "guest$nic" "$SOCK"
        links+=("$link")
    done
    for ((nic = first; nic < $1; nic++)); do
        wait_ready "guest$nic"
    done
}

# The line of one test, with what the gateways took together.
line() {
    echo "peer=$peer nics=${#gateways[@]} test=$1 mtu=$MTU offload=$OFFLOAD $2" \
        "rss_kib=$(memory VmRSS status "${gateways[@]}")" \
        "pss_kib=$(memory Pss smaps_rollup "${gateways[@]}")"
}

idle() {
    local seconds=5 cpu_before switches_before
    sleep 2
    cpu_before="$(cpu "${gateways[@]}")" switches_before="$(switches "${gateways[@]}")"
    sleep "$seconds"
    line idle "seconds=$seconds switches=$(($(switches "${gateways[@]}") - switches_before)) \
gateway_cpu_s=$(calculate "$(cpu "${gateways[@]}") - $cpu_before")"
}

# What has crossed the veth: a counter and the uptime.
crossed() {
    in_ns net cat /proc/net/dev | awk '/d1:/ {printf "%.0f\n", $2 + $10}'
    cut -d ' ' -f 1 /proc/uptime
}

busy() {
    local direction="$1" nic probes=() before after cpu_before link_before bytes seconds cpu_s
    for ((nic = 0; nic < ${#gateways[@]}; nic++)); do
        # Long enough that the first is still there when the last has begun.
        become_ns "guest$nic" "$bin/netprobe" "$direction" "$server:$port" \
            $((TEST_SECONDS + 3 + nics / 16)) 1 >>"$work/probes" 2>&1 &
        probes+=($!)
    done
    sleep 1.5
    # In the same order before and after, as each takes its time with many processes.
    mapfile -t before < <(crossed)
    cpu_before="$(cpu "${gateways[@]}")" link_before="$(cpu "${links[@]}")"
    sleep "$TEST_SECONDS"
    mapfile -t after < <(crossed)
    cpu_s="$(calculate "$(cpu "${gateways[@]}") - $cpu_before")"
    bytes=$((after[0] - before[0])) seconds="$(calculate "${after[1]} - ${before[1]}")"
    line "$direction" "bytes=$bytes seconds=$seconds gbps=$(calculate "$bytes * 8e-9 / $seconds") \
gateway_cpu_s=$cpu_s cpu_s_per_gb=$(calculate "$cpu_s * 1e9 / $bytes") \
link_cpu_s=$(calculate "$(cpu "${links[@]}") - $link_before")"
    wait "${probes[@]}"
}

lab_up
for count in 1 "$nics"; do
    add_nics "$count"
    idle
    busy up
    busy down
done
if grep -v ' errors=0$' "$work/probes" >&2; then
    exit 1
fi

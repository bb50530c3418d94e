#!/usr/bin/env bash
# The same work through one gateway; a line of key=value figures for each test.
#
#   measure.sh PEER TEST...
#
#   PEER  ours | passt | slirp4netns | smolvm | direct
#   TEST  idle | rr | udprr | crr | up1 | down1 | up8 | down8 | hold
#         | http8 | http64 | close8 | close64    wrk at a published port; close: a connection each time
#
# In the environment: MTU, OFFLOAD, LINK, TEST_SECONDS, GATEWAY, PASST, SLIRP4NETNS (see lab.sh), and
# COUNT, the connections of hold. Needs root.
set -uo pipefail
(($# > 1)) || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2; }
peer="$1"
shift
tests=("$@")
web=''
case " ${tests[*]}" in
*' http'* | *' close'*) web=8080 PUBLISH="--publish 0.0.0.0:8080:80" ;;
esac
# shellcheck source=lab.sh
. "$(dirname "${BASH_SOURCE[0]}")/lab.sh"
: "${COUNT:=10000}"

lab_up
case "$peer" in
direct) start_direct guest ;;
slirp4netns) start_slirp4netns guest ;;
*)
    start_gateway "$peer" "$work/gateway.sock"
    add_guest guest
    start_link guest "$SOCK"
    ;;
esac
wait_ready guest
if [[ -n "$web" ]]; then
    become_ns guest "$bin/netprobe" http 0.0.0.0:80 1024 2>"$work/http.log" &
    page="http://192.0.2.2:$web/"
    [[ "$peer" != direct ]] || page=http://100.96.0.2/
fi

# The line of one test: what the COMMAND says, and what it cost.
line() {
    local test="$1" out gateway_cpu=0 link_cpu=0
    shift
    [[ -z "$gateway" ]] || gateway_cpu="$(cpu "$gateway")"
    [[ -z "$link" ]] || link_cpu="$(cpu "$link")"
    # A line, whatever was said: what went well has said its figures, and no more.
    out="$("$@" 2>&1)" || out="failed=1 why=$(tr -s ' \n' '_' <<<"$out")"
    out="$(tail -n 1 <<<"$out")"
    out="peer=$peer test=$test mtu=$MTU offload=$OFFLOAD ${LINK:+link=${LINK// /_} }$out"
    if [[ -n "$gateway" ]]; then
        gateway_cpu="$(calculate "$(cpu "$gateway") - $gateway_cpu")"
        out+=" gateway_cpu_s=$gateway_cpu"
        [[ ! "$out" =~ \ bytes=([1-9][0-9]*) ]] ||
            out+=" cpu_s_per_gb=$(calculate "$gateway_cpu * 1e9 / ${BASH_REMATCH[1]}")"
        out+=" rss_kib=$(memory VmRSS status "$gateway") peak_kib=$(memory VmHWM status "$gateway")"
    fi
    [[ -z "$link" ]] || out+=" link_cpu_s=$(calculate "$(cpu "$link") - $link_cpu")"
    echo "$out"
}

probe() { timeout 120 ip netns exec "$prefix-guest" "$bin/netprobe" "$1" "$server:$port" "${@:2}"; }

# What readiness took is over by then.
idle() {
    local before seconds=5
    sleep 2
    before="$(switches "$gateway")"
    sleep "$seconds"
    echo "seconds=$seconds switches=$(($(switches "$gateway") - before))" \
        "threads=$(find "/proc/$gateway/task" -mindepth 1 -maxdepth 1 | wc -l)"
}

# From the servers' namespace, so that both ways cross the same veth.
web() {
    local at_once="$1"
    shift
    in_ns net wrk --threads 2 --connections "$at_once" --duration "${TEST_SECONDS}s" --latency \
        "$@" "$page" |
        awk '/Requests\/sec/ {print "per_s=" $2}
             /^ +50%/ {print "p50=" $2} /^ +99%/ {print "p99=" $2}
             /Socket errors/ {gsub(/[ ,]+/, "_"); print "errors=" $0}' | paste -sd ' '
}

for test in "${tests[@]}"; do
    case "$test" in
    idle) line idle idle ;;
    rr) line rr probe rr "$TEST_SECONDS" ;;
    udprr) line udprr probe udprr "$TEST_SECONDS" 64 ;;
    crr) line crr probe crr "$TEST_SECONDS" 8 ;;
    up? | down?) line "$test" probe "${test%?}" "$TEST_SECONDS" "${test: -1}" ;;
    hold) line hold probe hold "$COUNT" "$TEST_SECONDS" ;;
    http*) line "$test" web "${test#http}" ;;
    close*) line "$test" web "${test#close}" --header 'Connection: close' ;;
    *) echo "no such test: $test" >&2 && exit 2 ;;
    esac
done

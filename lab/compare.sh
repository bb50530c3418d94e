#!/usr/bin/env bash
# framegate beside its peers: every row of the comparison, ours and the peers by turns, the raw lines
# appended to a file, from which table.py makes the page.
#
#   compare.sh [FILE]        docs/performance.raw.txt if none is given
#
# In the environment:
#   ROUNDS        how often each row is measured, 5
#   TEST_SECONDS  how long each test takes, 3
#   ROWS          which of: stream latency idle upload paced jumbo loss hold published nics
#   GATEWAY, PASST, SLIRP4NETNS, see lab.sh; without GATEWAY this checkout is built and measured
#
# A row that was measured again with another commit takes the place of the older figures. Needs root
# and a quiet machine; 5 rounds take half an hour.
set -uo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
repository="$(dirname "$here")"
: "${ROUNDS:=5}"
: "${ROWS:=stream latency idle upload paced jumbo loss hold published nics}"
export TEST_SECONDS="${TEST_SECONDS:-3}"
export PASST="${PASST:-passt}" SLIRP4NETNS="${SLIRP4NETNS:-slirp4netns}"
raw="${1:-$repository/docs/performance.raw.txt}"

build() { cargo build --quiet --locked --release "$@" || exit 1; }

((EUID == 0)) || { echo 'network namespaces need root' >&2; exit 1; }
if [[ -z "${GATEWAY:-}" ]]; then
    build --features cli --manifest-path "$repository/Cargo.toml"
fi
build --features smolvm --manifest-path "$here/Cargo.toml"
for tool in ip wrk "$PASST" "$SLIRP4NETNS"; do
    command -v "$tool" >/dev/null || { echo "$tool is missing, see README.md" >&2; exit 1; }
done

# What a program says of its version, or else its package.
version() {
    local said package
    package="$(basename "$1")"
    said="$("$1" --version 2>&1 | head -n 1)"
    [[ "$said" =~ [0-9] ]] || said="$package $(dpkg-query -W -f '${Version}' "$package" 2>&1)"
    echo "$said"
}

# The last change of what is measured.
commit() {
    local sources=(src Cargo.toml Cargo.lock)
    git -C "$repository" log -1 --format=%h --abbrev=12 -- "${sources[@]}"
    git -C "$repository" diff --quiet HEAD -- "${sources[@]}" || echo and changes
}

run="$(date -u +%Y%m%dT%H%M%SZ)-$$"
cat >>"$raw" <<HEADER
# run=$run
# date=$(date -u +%F)
# commit=$(commit | paste -sd " ")
# kernel=$(uname -sr)
# cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
# cores=$(nproc)
# memory=$(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo)
# passt=$(version "$PASST")
# slirp4netns=$(version "$SLIRP4NETNS")
# smolvm=$(sed -n '/^name = "smolvm-network"/{n;s/^version = "\(.*\)"/\1/p}' "$here/Cargo.lock")
# wrk=$(wrk --version 2>&1 | awk 'NR == 1 {print $1, $2, $3}')
HEADER

# The lines of one command, each with its row.
record() {
    local row="$1" line
    shift
    "$@" | while read -r line; do
        echo "run=$run round=$round row=$row $line" | tee -a "$raw"
    done
    ((PIPESTATUS[0] == 0)) || echo "$row: $* failed" >&2
}

# by_turns ROW 'PEER...' TEST...: every other round in the other order.
by_turns() {
    local row="$1" peers peer
    read -ra peers <<<"$2"
    shift 2
    ((round % 2)) || mapfile -t peers < <(printf '%s\n' "${peers[@]}" | tac)
    for peer in "${peers[@]}"; do
        record "$row" "$here/measure.sh" "$peer" "$@"
    done
}

for ((round = 1; round <= ROUNDS; round++)); do
    for row in $ROWS; do
        case "$row" in
        stream) by_turns stream 'ours passt smolvm slirp4netns' up1 down1 up8 down8 ;;
        latency) by_turns latency 'ours passt slirp4netns smolvm direct' rr udprr crr ;;
        idle) by_turns idle 'ours passt slirp4netns smolvm' idle ;;
        upload) OFFLOAD=upload by_turns upload 'ours passt' up1 ;;
        paced) OFFLOAD=upload LINK=--libkrun by_turns paced 'ours passt' up1 ;;
        jumbo) OFFLOAD=jumbo MTU=65520 by_turns jumbo 'ours passt' up1 down1 up8 down8 ;;
        loss) LINK="--loss 10 --seed $round" by_turns loss 'ours passt' up1 down1 ;;
        hold) by_turns hold 'ours direct' hold ;;
        published) by_turns published 'ours direct passt' http8 http64 close8 close64 ;;
        nics) record nics "$here/nics.sh" ours 64 ;;
        *) echo "no such row: $row" >&2 && exit 2 ;;
        esac
    done
done

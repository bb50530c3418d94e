#!/usr/bin/env bash
# The project's checks, the same by hand and on CI.
#
#   ./ci.sh VERB...
#
#   fmt lint docs deny test demo netns loom mutants-quick spec tsan counts fuzz
#                   all of them: all. mutants-quick is mutants with one kill for each; tsan runs the models'
#                   bodies under ThreadSanitizer; counts fails if a part of the per-packet path takes more
#                   instructions than benches/instructions.txt says
#   loom-full       explores the models further than loom, in less than an hour
#   stress          the models' bodies on real threads, as in test, but optimised
#   mutants         breaks the code in one place after another, has every model judge each, and prints
#                   the matrix; fails if one survives that should not
#   mutants-core    cargo-mutants over the core, which must be installed
#   records         writes what loom, loom-full and mutants have found into the repository, and into the
#                   tables of SPECIFICATION.md
#   bench           what each part of the per-packet path costs, in time and in instructions
#   bench-update    writes benches/instructions.txt anew
#   lab             measures framegate beside its peers, one round
#
# Needs what .ci/run installs. Every step is printed, timed and summed up; one that fails does not
# keep the others from running, and makes the whole fail.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1

# How long each fuzz target runs, in seconds.
: "${FUZZ_SECONDS:=20}"
# A step that takes longer is stuck.
: "${STEP_SECONDS:=900}"
limit=(timeout --kill-after=10 "$STEP_SECONDS")

target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
export CARGO_TARGET_DIR="$target"
records="$target/records"
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
lines=()
passed=0
failed=0

# step NAME COMMAND...
step() {
    local name="$1" begun=$SECONDS result code=0
    shift
    printf '\n=== %s\n$ %s\n' "$name" "${*//$'\n'/ }"
    if declare -F "$1" >/dev/null; then
        "$@" </dev/null || code=$?
    else
        "${limit[@]}" "$@" </dev/null || code=$?
    fi
    ((code != 124)) || echo "stuck: no end after $STEP_SECONDS s" >&2
    if ((code == 0)); then
        result=ok passed=$((passed + 1))
    else
        result=FAILED failed=$((failed + 1))
        printf '!!! %s FAILED with exit status %d\n' "$name" "$code" >&2
    fi
    lines+=("$(printf '%-6s %5d s  %s' "$result" $((SECONDS - begun)) "$name")")
}

# Runs a command as a user who may change no network; for root that is nobody, who may read
# everything, so that the toolchain can stay where it is.
unprivileged() {
    if ((EUID != 0)); then
        "${limit[@]}" "$@"
        return
    fi
    cargo fetch --locked --quiet || return
    mkdir -p "$target" "$scratch/home"
    chown -R nobody "$target" "$scratch"
    setpriv --securebits=+no_setuid_fixup --reuid=nobody --regid=nogroup --clear-groups \
        --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search \
        --bounding-set=-all,+dac_read_search \
        env HOME="$scratch/home" CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" \
        RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" \
        "${limit[@]}" "$@"
}

# cargo-fuzz wants a nightly compiler; where there is none, the stable one is told to be one.
fuzz() {
    if cargo +nightly --version >/dev/null 2>&1; then
        CARGO_TARGET_DIR="$target/fuzz" "${limit[@]}" cargo +nightly fuzz "$@"
    else
        RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$target/fuzz" "${limit[@]}" cargo fuzz "$@"
    fi
}

# Old inputs first, then new ones, which go to a scratch directory and not to the corpus.
fuzz_run() {
    mkdir -p "$scratch/$1"
    fuzz run "$1" "$scratch/$1" "fuzz/corpus/$1" -- \
        -timeout=10 -max_total_time="$FUZZ_SECONDS"
}

# What they measure is no API: the crate shows it under a cfg of theirs.
benches() {
    local verb="$1"
    shift
    RUSTFLAGS='--cfg framegate_bench' CARGO_TARGET_DIR="$target/bench" \
        "${limit[@]}" cargo "$verb" --locked --manifest-path benches/Cargo.toml "$@"
}

seeds() {
    CARGO_MANIFEST_DIR="$PWD/fuzz" rustc --edition 2024 -o "$scratch/seeds" \
        fuzz/examples/seeds/main.rs && "$scratch/seeds" --check
}

# Makes the page and the plot again, from the raw figures that are beside them.
comparison() {
    cp docs/performance.md docs/performance.svg "$scratch" &&
        python3 lab/table.py docs/performance.raw.txt \
            --page "$scratch/performance.md" --plot "$scratch/performance.svg" &&
        diff docs/performance.md "$scratch/performance.md" &&
        cmp docs/performance.svg "$scratch/performance.svg"
}

measure() {
    ROUNDS="${ROUNDS:-1}" lab/compare.sh "$scratch/raw.txt" && python3 lab/table.py "$scratch/raw.txt"
}

do_fmt() {
    step 'format' cargo fmt --all --check
    step 'format of the benches' cargo fmt --manifest-path benches/Cargo.toml --check
    step 'format of the fuzz crate' cargo fmt --manifest-path fuzz/Cargo.toml --check
    step 'format of the lab' cargo fmt --manifest-path lab/Cargo.toml --check
}

do_lint() {
    local clippy=(cargo clippy --locked --all-targets)
    step 'lint' "${clippy[@]}" --workspace -- -D warnings
    step 'lint, features: cli' "${clippy[@]}" --workspace --features cli -- -D warnings
    step 'lint, no features' "${clippy[@]}" -p framegate --no-default-features -- -D warnings
    step 'lint, loom' env RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR="$target/loom" \
        "${clippy[@]}" -p framegate-loom-tests -- -D warnings
    step 'lint, benches' benches clippy --all-targets -- -D warnings
    step 'lint, fuzz crate' env RUSTFLAGS='--cfg fuzzing' CARGO_TARGET_DIR="$target/fuzz" \
        "${clippy[@]}" --manifest-path fuzz/Cargo.toml -- -D warnings
    step 'lint, lab' env CARGO_TARGET_DIR="$target/lab" \
        "${clippy[@]}" --manifest-path lab/Cargo.toml -- -D warnings
    step 'lint, scripts' shellcheck -x -P lab .ci/run ci.sh lab/*.sh loom-tests/mutants/core loom-tests/spec/*.sh
    step 'the comparison is what its raw figures give' comparison
}

do_docs() {
    step 'documentation' env RUSTDOCFLAGS='-D warnings' \
        cargo doc --locked --no-deps --features cli
    step 'documentation of private items' env RUSTDOCFLAGS='-D warnings' \
        cargo doc --locked --no-deps --features cli --lib --document-private-items
    step 'the specification names its tests' cargo test --locked --test specification
}

# Advisories are left out: their database is a git repository, which not every machine reaches.
# By hand: cargo deny check advisories
do_deny() {
    step 'licences, bans, sources' cargo deny --all-features check bans licenses sources
    step 'licences, bans, sources of the benches' \
        cargo deny --manifest-path benches/Cargo.toml check bans licenses sources
}

# Without CI's promise that nothing is skipped: what needs root is skipped here, and run by netns.
do_test() {
    step 'tests, as the README has it, without root' \
        unprivileged env -u CI cargo test --workspace --features cli
}

do_demo() {
    step 'demo, as the README has it, without root' \
        unprivileged cargo run --release --features cli -- demo
}

do_netns() {
    local file tests=()
    # Part of what the policy and the capture promise needs root, or tools.
    for file in tests/netns*.rs tests/policy.rs tests/capture.rs tests/qemu.rs; do
        tests+=(--test "$(basename "$file" .rs)")
    done
    step 'tests on real kernels: network namespaces, QEMU' env CI="${CI:-true}" \
        cargo test --locked --no-fail-fast --release --features cli "${tests[@]}" -- \
        --test-threads=1 --nocapture
}

# SET: quick or full.
loom_models() {
    mkdir -p "$records"
    RUSTFLAGS='--cfg loom' CARGO_TARGET_DIR="$target/loom" FRAMEGATE_LOOM="$1" \
        timeout --kill-after=10 3600 \
        cargo test --locked -p framegate-loom-tests --release --test models -- \
        --record "$records/$1.tsv" \
        && loom-tests/table.py compare "loom-tests/records/$1.tsv" "$records/$1.tsv"
}

do_loom() {
    step 'loom models' loom_models quick
    step 'loom models: the tables of what they found' loom-tests/table.py page --check
}

do_loom-full() {
    step 'loom models, explored as far as they end' loom_models full
}

# What loom, loom-full and mutants have found since is what is to be found from now on.
records() {
    cp --verbose --update "$records"/*.tsv loom-tests/records/ && loom-tests/table.py page
}

do_records() {
    step 'loom models: new tables' records
}

do_spec() {
    step 'specification: Spin, and its broken variants' loom-tests/spec/check.sh
}

# Real threads and descriptors: what differs from run to run has its seed printed.
do_stress() {
    step 'stress: the models on real threads, the twin beside the queue' \
        cargo test --locked --release -p framegate-loom-tests --test stress --test queue_twin
}

# cargo with ThreadSanitizer in all but the standard library; a stable compiler is told that it may.
tsan() {
    local verb="$1" host
    shift
    host="$(rustc -vV | sed -n 's/^host: //p')"
    RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$target/tsan" \
        RUSTFLAGS='-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer' \
        TSAN_OPTIONS="suppressions=$PWD/loom-tests/tsan.supp" \
        "${limit[@]}" cargo "$verb" --locked --release --target "$host" -p framegate-loom-tests "$@"
}

# Of two programs that differ in one order, ThreadSanitizer reports the one that has a race.
seeded_race() {
    local said
    tsan run --example seeded_race -- release || return
    if said="$(tsan run --example seeded_race -- relaxed 2>&1)"; then
        echo 'the race went unseen' >&2
        return 1
    fi
    grep 'WARNING: ThreadSanitizer: data race' <<<"$said"
}

do_tsan() {
    step 'ThreadSanitizer sees a race' seeded_race
    step 'ThreadSanitizer: the models on real threads' tsan test --test stress
}

# OPTION... of the runner.
mutants() {
    mkdir -p "$records"
    timeout --kill-after=10 7200 loom-tests/mutants/run "$@"
}

do_mutants() {
    step 'mutants of the models, the whole matrix' mutants --record "$records/mutants.tsv"
}

do_mutants-quick() {
    step 'mutants of the models, a kill for each' mutants --first-kill
}

do_mutants-core() {
    step 'mutants of the core' timeout --kill-after=10 7200 loom-tests/mutants/core
}

# Only counts can fail: times are another thing on every machine, and on a busy one.
do_counts() {
    step 'benches: each part once' benches test --release --all-targets
    step 'benches: instruction counts' benches run --release --bin instructions
}

do_bench() {
    step 'benches: times' benches bench --bench times -- --quick --noplot
    step 'benches: instruction counts' benches run --release --bin instructions
}

do_bench-update() {
    step 'benches: new instruction counts' benches run --release --bin instructions update
}

do_fuzz() {
    step 'fuzz: the seeds are those of their generator' seeds
    step 'fuzz: build' fuzz build
    for name in classify dns flow fragments framing; do
        step "fuzz: $name, corpus and $FUZZ_SECONDS s" fuzz_run "$name"
    done
}

do_lab() {
    step 'framegate beside its peers' measure
}

do_all() {
    do_fmt
    do_lint
    do_docs
    do_deny
    do_test
    do_demo
    do_netns
    do_loom
    do_mutants-quick
    do_spec
    do_tsan
    do_counts
    do_fuzz
}

(($# > 0)) || set -- help
for verb in "$@"; do
    if ! declare -F "do_$verb" >/dev/null; then
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2
        exit 2
    fi
done
for verb in "$@"; do
    "do_$verb"
done

printf '\n'
printf '%s\n' "${lines[@]}"
printf '%d s in all\n%d passed, %d failed\n' "$SECONDS" "$passed" "$failed"
((failed == 0))

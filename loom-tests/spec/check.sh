#!/usr/bin/env bash
# Checks the specification with Spin: that the protocol holds, that each broken variant of it is rejected in
# the way it should be, that nothing in a model is out of reach, and that README.md's table still quotes
# the code. Every search is exhaustive. Prints a table, and fails on any surprise.
#
#   ./check.sh [MODEL...]     JOBS=2 at once
#
# Needs Spin 6 and a C compiler: apt-get install spin gcc
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
cd "$here"

: "${JOBS:=2}"
: "${CC:=gcc}"
# Of one search, in megabytes.
: "${MEMORY:=6000}"
# A search that takes longer is stuck, in seconds.
: "${LIMIT:=300}"

for tool in spin "$CC"; do
    if ! command -v "$tool" >/dev/null; then
        echo "$tool is missing; on Debian: apt-get install spin gcc" >&2
        exit 2
    fi
done

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# What is run, in the order of the table.
jobs=()
models=("$@")

# job EXPECTED MODEL "PROPERTIES" "DEFINES": one build for each kind of search, one search for each property.
#
# The protocol's own properties are `safety`, which is assertions and deadlocks, and the LTL formulas of the
# model, under weak fairness. A broken variant is named by the error that must be found: `assertion`,
# `deadlock` (somebody sleeps for ever), or a formula.
job() {
    local model
    if ((${#models[@]} > 0)); then
        for model in "${models[@]}"; do
            [[ "$model" == "$2" ]] && jobs+=("$1|$2|$3|$4")
        done
        return 0
    fi
    jobs+=("$1|$2|$3|$4")
}
holds() { job holds "$@"; }
broken() { job broken "$@"; }
# What looks broken and is not: the difference between it and its broken neighbour is the argument.
harmless() { job harmless "$@"; }

# shellcheck source=loom-tests/spec/runs.sh
source ./runs.sh

# build DIRECTORY KIND MODEL DEFINES...
build() {
    local directory="$1" kind="$2" model="$3" options
    shift 3
    mkdir -p "$directory"
    case "$kind" in
        safety) options=(-DSAFETY -DNOCLAIM) ;;
        liveness) options=(-DNFAIR=3) ;;
    esac
    (
        cd "$directory"
        spin -a "${@/#/-D}" "$here/$model.pml" >spin.log 2>&1
        "$CC" -O1 -w "${options[@]}" -DMEMLIM="$MEMORY" -o pan pan.c >cc.log 2>&1
    )
}

# What a search has found: none, assertion, deadlock, cycle; or that it did not go through.
verdict() {
    local log="$1"
    if grep -q 'assertion violated' "$log"; then
        echo assertion
    elif grep -q 'invalid end state (' "$log"; then
        echo deadlock
    elif grep -q 'acceptance cycle (' "$log"; then
        echo cycle
    elif grep -Eq 'too small|not completed|memory limit|out of memory' "$log"; then
        echo truncated
    elif grep -q 'errors: 0' "$log"; then
        echo none
    else
        echo failed
    fi
}

# search DIRECTORY INDEX EXPECTED MODEL PROPERTY DEFINES...: one line of the table.
search() {
    local directory="$1" index="$2" expected="$3" model="$4" property="$5"
    shift 5
    local kind=liveness want=none log found states depth seconds result=ok
    local options=(-m500000)
    case "$expected:$property" in
        *:safety) kind=safety ;;
        broken:assertion) kind=safety want=assertion options+=(-E) ;;
        broken:deadlock) kind=safety want=deadlock options+=(-A) ;;
        broken:*) want=cycle options+=(-A -a -f -N "$property") ;;
        *) options+=(-a -f -N "$property") ;;
    esac
    directory="$directory/$kind"
    log="$directory/$property.log"
    if [[ ! -d "$directory" ]] && ! build "$directory" "$kind" "$model" "$@"; then
        cat "$directory"/*.log >"$log" 2>/dev/null || true
    else
        (cd "$directory" && timeout "$LIMIT" ./pan "${options[@]}" >"$log" 2>&1) || true
    fi
    found="$(verdict "$log")"
    states="$(awk '/states, stored/ { print $1; exit }' "$log")"
    depth="$(sed -n 's/.*depth reached \([0-9]*\).*/\1/p' "$log" | head -n 1)"
    seconds="$(sed -n 's/.*elapsed time \([0-9.e+-]*\) seconds/\1/p' "$log" | head -n 1)"
    if [[ "$found" != "$want" ]]; then
        result=SURPRISE
        {
            echo "--- $model ${*/#/-D}: $property: found $found, expected $want"
            if [[ -e "$directory/$model.pml.trail" ]]; then
                (cd "$directory" && spin -t -p "${@/#/-D}" -k "$model.pml.trail" "$here/$model.pml" 2>&1) | tail -n 60
            else
                tail -n 20 "$log"
            fi
        } >"$scratch/$index.surprise"
    fi
    printf '%-9s %-9s %-12s %-10s %10s %6s %7s  %s\n' "$result" "$model" "$property" "$found" \
        "${states:-?}" "${depth:-?}" "${seconds:-?}" "$*" >>"$scratch/$index.rows"
    if [[ "$expected:$property" == holds:safety ]]; then
        unreached "$model" "$log" | sort | uniq -c >"$scratch/$index.unreached.$model"
    fi
}

# Statements that a search did not get to: model, process, statement.
unreached() {
    awk -v model="$1" '
        /^unreached in proctype/ { process = $4; next }
        /^unreached in/ { process = ""; next }
        process != "" && /, state [0-9]+, "/ {
            sub(/^.*, state [0-9]+, "/, "")
            sub(/"$/, "")
            print model "|" process "|" $0
        }' "$2"
}

run() {
    local index="$1" expected model properties defines property
    IFS='|' read -r expected model properties defines <<<"$2"
    local directory="$scratch/build.$index"
    mkdir -p "$directory"
    for property in $properties; do
        # shellcheck disable=SC2086 # one word for each
        search "$directory" "$index" "$expected" "$model" "$property" $defines
    done
    rm -rf "$directory"
}

failures=0
begun=$SECONDS
printf '%-9s %-9s %-12s %-10s %10s %6s %7s  %s\n' result model property found states depth seconds defines
for index in "${!jobs[@]}"; do
    while (($(jobs -rp | wc -l) >= JOBS)); do
        wait -n || true
    done
    run "$index" "${jobs[$index]}" &
done
wait
for index in "${!jobs[@]}"; do
    cat "$scratch/$index.rows" 2>/dev/null || echo "SURPRISE  no result: ${jobs[$index]}"
done | tee "$scratch/table"
cat "$scratch"/*.surprise 2>/dev/null || true
failures=$((failures + $(grep -c '^SURPRISE' "$scratch/table" || true)))

# Out of reach in every search of a model: as often as the fewest searches say, and unreached.txt explains it.
for model in $(printf '%s\n' "${jobs[@]}" | awk -F'|' '$1 == "holds" { print $2 }' | sort -u); do
    files=("$scratch"/*.unreached."$model")
    awk -v searches="${#files[@]}" '
        { count = $1; sub(/^ *[0-9]+ /, ""); seen[$0]++
          if (!($0 in least) || count < least[$0]) least[$0] = count }
        END { for (key in seen) if (seen[key] == searches) print key "|" least[key] }' "${files[@]}"
done | sort >"$scratch/out-of-reach"
if ((${#models[@]} == 0)); then
    if ! diff <(grep -v '^#' unreached.txt | cut -d'|' -f1-4 | sort) "$scratch/out-of-reach"; then
        echo 'SURPRISE  unreached.txt (<) is not what is out of reach (>)'
        failures=$((failures + 1))
    else
        echo "out of reach, as unreached.txt explains: $(wc -l <"$scratch/out-of-reach") statements"
    fi
fi

# A formula that no broken variant violates may hold for want of what it is about.
for formula in $(printf '%s\n' "${jobs[@]}" | awk -F'|' '
    { n = split($3, properties, " ") }
    { for (i = 1; i <= n; i++) at[$1, $2 ":" properties[i]] = 1 }
    $1 == "holds" { for (i = 1; i <= n; i++) formulas[$2 ":" properties[i]] = 1 }
    END { for (f in formulas) if (f !~ /:safety$/ && !(("broken", f) in at)) print f }'); do
    echo "SURPRISE  no broken variant violates $formula"
    failures=$((failures + 1))
done

# The text of all functions of a name in a file.
functions() {
    awk -v name="$2" '
        /^ *(pub(\([a-z]+\))? )?(const )?fn / { inside = $0 ~ "fn " name "[(<]" }
        inside' "$1"
}

# Rows of the table in README.md: | transition | in | file | function | code |
# shellcheck disable=SC2016 # these are Markdown's backticks
row='^\| `[a-zA-Z_]+` \| `[a-z]+\.(inc|pml)` \|'
quotes=0
while IFS='|' read -r _ transition in file function code _; do
    transition="${transition//[ \`]/}" in="${in//[ \`]/}" file="${file//[ \`]/}" function="${function//[ \`]/}"
    code="${code# \`}" code="${code%\` }"
    quotes=$((quotes + 1))
    if ! grep -Eq "(inline|proctype) $transition\(" "$in"; then
        echo "SURPRISE  README.md: $in has no $transition"
        failures=$((failures + 1))
    fi
    if ! functions "$root/$file" "$function" | grep -Fq -- "$code"; then
        echo "SURPRISE  README.md: $file, $function: no more: $code"
        failures=$((failures + 1))
    fi
done < <(grep -E "$row" README.md)
if ((quotes < 20)); then
    echo "SURPRISE  README.md: only $quotes transitions found"
    failures=$((failures + 1))
fi
echo "quoted from the code: $quotes transitions"

rows="$(grep -c . "$scratch/table" || true)"
rejected="$(printf '%s\n' "${jobs[@]}" | grep -c '^broken|' || true)"
echo "$rows searches in $((SECONDS - begun)) s; $rejected broken variants; $failures surprises"
((failures == 0))

#!/usr/bin/env python3
"""The comparison, from the raw figures that compare.sh writes.

    table.py RAW                 prints the tables
    table.py RAW --page PAGE     writes them between the markers of PAGE
    table.py RAW --plot PLOT     writes the plot, an SVG

Of each row the figures of the last commit count. A ratio is the median of the rounds' ratios.
"""

import argparse
import sys
from collections import namedtuple
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True
sys.path.append(str(Path(__file__).resolve().parent.parent / "docs"))
from marked import replaced

PEERS = {
    "ours": "framegate",
    "passt": "passt",
    "smolvm": "smolvm-network",
    "slirp4netns": "slirp4netns",
    "direct": "no gateway",
    "one": "one NIC",
}

# The tests of the plot, and who is in it.
PLOTTED = ["up1", "down1", "up8", "down8"]
COLOURS = {"ours": "#0072b2", "passt": "#e69f00", "smolvm": "#009e73", "slirp4netns": "#8c8c8c"}

# A figure to reach: `goal` is a ratio to the peer's figure, or the figure itself if there is no peer.
Target = namedtuple("Target", "what row test figure peer sign goal")
# A figure for people: its name, its unit, and how it comes from a line of the raw file.
Figure = namedtuple("Figure", "name unit form value")

FIGURES = {
    "gbps": Figure("throughput", "Gb/s", "{:.2f}", lambda line: line["gbps"]),
    "cost": Figure("CPU", "s/GB", "{:.2f}", lambda line: line["cpu_s_per_gb"]),
    "yield": Figure("throughput per CPU", "GB/s", "{:.2f}", lambda line: 1 / line["cpu_s_per_gb"]),
    "p50": Figure("p50", "µs", "{:.0f}", lambda line: line["p50_us"]),
    "p99": Figure("p99", "µs", "{:.0f}", lambda line: line["p99_us"]),
    "rate": Figure("rate", "/s", "{:.0f}", lambda line: line["per_s"]),
    "gap": Figure("longest gap", "ms", "{:.0f}", lambda line: line["longest_gap_ms"]),
    "wakes": Figure("wakes", "/s", "{:.1f}", lambda line: line["switches"] / line["seconds"]),
    "threads": Figure("threads", "", "{:.0f}", lambda line: line["threads"]),
    "rss": Figure("memory", "MB", "{:.1f}", lambda line: line["rss_kib"] * 1024 / 1e6),
    "peak": Figure("peak memory", "MB", "{:.0f}", lambda line: line["peak_kib"] * 1024 / 1e6),
    "alive": Figure("alive", "", "{:.0f}", lambda line: line["alive"]),
    "up kept": Figure(
        "upload kept", "", "{:.2f}", lambda line: line["up_gbps"] / line["lone_up_gbps"]
    ),
    "down kept": Figure(
        "download kept", "", "{:.2f}", lambda line: line["down_gbps"] / line["lone_down_gbps"]
    ),
    "each": Figure(
        "memory of each", "MB", "{:.2f}", lambda line: line["pss_kib"] * 1024 / 1e6 / line["nics"]
    ),
}


def targets():
    """The rows of the comparison, in the order of the page."""
    for test in "up1", "up8":
        yield Target(f"{test}, MTU 1500", "stream", test, "gbps", "passt", "≥", 1.0)
        yield Target(f"{test}, MTU 1500", "stream", test, "cost", "passt", "≤", 1.0)
        yield Target(f"{test}, MTU 1500", "stream", test, "yield", "smolvm", "≥", 6.0)
    for test in "down1", "down8":
        yield Target(f"{test}, MTU 1500", "stream", test, "gbps", "passt", "≥", 1.5)
        yield Target(f"{test}, MTU 1500", "stream", test, "cost", "passt", "≤", 0.6)
    for row, what in ("upload", "up1, TSO"), ("paced", "up1, TSO, libkrun's pace"):
        yield Target(what, row, "up1", "gbps", "passt", "≥", 1.0)
        yield Target(what, row, "up1", "cost", "passt", "≤", 1.1)
    for test in "up1", "down1", "up8", "down8":
        yield Target(f"{test}, MTU 65520", "jumbo", test, "gbps", "passt", "≥", 1.0)
        yield Target(f"{test}, MTU 65520", "jumbo", test, "cost", "passt", "≤", 1.2)
    for test in "rr", "udprr":
        for figure in "p50", "p99":
            yield Target(test, "latency", test, figure, "passt", "≤", 1.0)
    yield Target("crr, 8 at a time", "latency", "crr", "rate", "slirp4netns", "≥", 1.0)
    yield Target("crr, 8 at a time", "latency", "crr", "rate", "passt", "≥", 1.3)
    yield Target("idle", "idle", "idle", "wakes", None, "≤", 0)
    yield Target("idle", "idle", "idle", "rss", None, "≤", 6)
    yield Target("idle", "idle", "idle", "threads", None, "≤", 4)
    yield Target("hold, 10,000 idle", "hold", "hold", "alive", None, "≥", 10_000)
    yield Target("hold, 10,000 idle", "hold", "hold", "peak", None, "≤", 150)
    yield Target("hold, 10,000 idle", "hold", "hold", "up kept", None, "≥", 0.9)
    yield Target("hold, 10,000 idle", "hold", "hold", "down kept", None, "≥", 0.9)
    for test in "up1", "down1":
        yield Target(f"{test}, 1 % loss", "loss", test, "gbps", "passt", "≥", 1.0)
        yield Target(f"{test}, 1 % loss", "loss", test, "gap", None, "≤", 1000)
    for at_once in 8, 64:
        kept, anew = f"published, {at_once} at a time", f"published, {at_once}, each anew"
        yield Target(kept, "published", f"http{at_once}", "rate", "direct", "≥", 0.8)
        yield Target(anew, "published", f"close{at_once}", "rate", "direct", "≥", 0.8)
    yield Target("64 NICs, idle", "nics", "idle", "each", "one", "≤", 1.0)
    yield Target("64 NICs, idle", "nics", "idle", "wakes", None, "≤", 0)
    for test in "up", "down":
        yield Target(f"64 NICs, all {test}", "nics", test, "gbps", "one", "≥", 0.9)
        yield Target(f"64 NICs, all {test}", "nics", test, "cost", "one", "≤", 1.1)


def number(text):
    try:
        return float(text)
    except ValueError:
        return text


def parse(text):
    """A line of the raw file: `key=value` words."""
    line = {key: number(value) for key, _, value in (word.partition("=") for word in text.split())}
    # One NIC is what many are compared with.
    line["who"] = "one" if line.get("nics") == 1 else line["peer"]
    return line


def read(path):
    """The headers and the lines that count, each a dictionary."""
    headers, lines = {}, []
    with open(path, encoding="utf-8") as raw:
        for text in raw:
            if text.startswith("# "):
                key, _, value = text[2:].strip().partition("=")
                if key == "run":
                    header = headers[value] = {}
                header[key] = value
            elif text.strip():
                lines.append(parse(text))
    commits = {run: header["commit"] for run, header in headers.items()}
    last = {line["row"]: commits[line["run"]] for line in lines}
    counted = [line for line in lines if commits[line["run"]] == last[line["row"]]]
    runs = {line["run"] for line in counted}
    return [header for run, header in headers.items() if run in runs], counted


def chosen(lines, row, test, who):
    return [line for line in lines if (line["row"], line["test"], line["who"]) == (row, test, who)]


def failed(line):
    return line.get("failed", 0) != 0 or line.get("errors", 0) != 0


def by_round(lines, row, test, who, figure):
    """The figure in each round that went well."""
    return {
        (line["run"], line["round"]): FIGURES[figure].value(line)
        for line in chosen(lines, row, test, who)
        if not failed(line)
    }


def link_share(lines, row, test):
    """How busy taplink was with ours, in cores; nobody asks while nothing moves."""
    shares = [
        line["link_cpu_s"] / line["seconds"]
        for line in chosen(lines, row, test, "ours")
        if "bytes" in line and "seconds" in line
    ]
    return f"{median(shares):.1f}" if shares else ""


def rounds(lines, row, test):
    """How many rounds there are, and how many of them failed."""
    ours = chosen(lines, row, test, "ours")
    bad = sum(failed(line) for line in ours)
    return f"{len(ours)}, {bad} failed" if bad else str(len(ours))


def table(header, rows):
    yield "| " + " | ".join(header) + " |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def comparison(lines):
    rows = []
    for target in targets():
        figure = FIGURES[target.figure]
        ours = by_round(lines, target.row, target.test, "ours", target.figure)
        theirs = by_round(lines, target.row, target.test, target.peer, target.figure)
        ratios = [ours[key] / theirs[key] for key in ours if theirs.get(key)]
        if not ours or (target.peer and not ratios):
            continue
        # A stall is not excused by the rounds without one.
        told = reached = max(ours.values()) if target.figure == "gap" else median(ours.values())
        peer = ratio = ""
        if target.peer:
            reached = median(ratios)
            ratio = f"{reached:.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            peer = f"{PEERS[target.peer]}: {figure.form.format(median(theirs.values()))}"
        met = reached >= target.goal if target.sign == "≥" else reached <= target.goal
        rows.append([
            target.what,
            ", ".join(filter(None, (figure.name, figure.unit))),
            figure.form.format(told),
            peer,
            ratio,
            f"{target.sign} {target.goal:,}",
            "yes" if met else "**no**",
            link_share(lines, target.row, target.test),
            rounds(lines, target.row, target.test),
        ])
    header = ["test", "figure", "framegate", "peer", "ratio", "target", "met", "link", "rounds"]
    return table(header, rows)


def by_peer(lines):
    """The medians of all who were measured, in the plain mode."""
    columns = [
        ("up1 Gb/s", "stream", "up1", "gbps"), ("s/GB", "stream", "up1", "cost"),
        ("down1 Gb/s", "stream", "down1", "gbps"), ("s/GB", "stream", "down1", "cost"),
        ("up8 Gb/s", "stream", "up8", "gbps"), ("s/GB", "stream", "up8", "cost"),
        ("down8 Gb/s", "stream", "down8", "gbps"), ("s/GB", "stream", "down8", "cost"),
        ("rr µs", "latency", "rr", "p50"), ("udprr µs", "latency", "udprr", "p50"),
        ("crr /s", "latency", "crr", "rate"), ("idle MB", "idle", "idle", "rss"),
    ]
    rows = []
    for peer, name in PEERS.items():
        cells = []
        for _, row, test, figure in columns:
            values = by_round(lines, row, test, peer, figure).values()
            cells.append(FIGURES[figure].form.format(median(values)) if values else "")
        if any(cells):
            rows.append([name, *cells])
    return table(["", *(column[0] for column in columns)], rows)


def machine(headers):
    """What was measured, where; each thing once."""
    names = {
        "date": "date", "cpu": "CPU", "cores": "cores", "memory": "memory", "kernel": "kernel",
        "commit": "framegate, commit", "passt": "passt", "slirp4netns": "slirp4netns",
        "smolvm": "smolvm-network", "wrk": "wrk",
    }
    rows = [
        [name, ", ".join(dict.fromkeys(header[key] for header in headers if key in header))]
        for key, name in names.items()
    ]
    return table(["", ""], rows)


def plot(lines):
    """Two panels of bars: throughput, and CPU for each GB."""
    bar, gap, height, top, margin = 24, 22, 220, 84, 30
    group = bar * len(COLOURS) + gap
    panel = group * len(PLOTTED) + margin
    width, base = 2 * panel + margin, top + height
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{base + 46}" '
        f'viewBox="0 0 {width} {base + 46}" font-family="sans-serif" font-size="12" fill="#222">',
        "<title>Throughput and CPU seconds for each GB, by gateway</title>",
        f'<rect width="{width}" height="{base + 46}" rx="8" fill="#fff"/>',
    ]
    x = margin
    for peer, colour in COLOURS.items():
        out.append(f'<rect x="{x}" y="14" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{x + 17}" y="24">{PEERS[peer]}</text>')
        x += 34 + 8 * len(PEERS[peer])
    panels = [
        ("gbps", "Throughput, Gb/s (more is better)"),
        ("cost", "CPU seconds of the gateway for each GB (less is better)"),
    ]
    for index, (figure, title) in enumerate(panels):
        left = margin + index * panel
        values = {
            (test, peer): by_round(lines, "stream", test, peer, figure).values()
            for test in PLOTTED
            for peer in COLOURS
        }
        medians = {key: median(found) for key, found in values.items() if found}
        most = max(medians.values(), default=1)
        out.append(f'<text x="{left}" y="56" font-weight="bold">{title}</text>')
        for (test, peer), value in medians.items():
            x = left + PLOTTED.index(test) * group + list(COLOURS).index(peer) * bar
            tall = max(1, height * value / most)
            out.append(
                f'<rect x="{x}" y="{base - tall:.1f}" width="{bar - 3}" height="{tall:.1f}" '
                f'fill="{COLOURS[peer]}"/>'
            )
            out.append(
                f'<text x="{x + (bar - 3) / 2}" y="{base - tall - 4:.1f}" font-size="9" '
                f'text-anchor="middle">{value:.{1 if value >= 1 else 2}f}</text>'
            )
        for place, test in enumerate(PLOTTED):
            x = left + place * group + (group - gap) / 2
            out.append(f'<text x="{x}" y="{base + 18}" text-anchor="middle">{test}</text>')
        right = left + panel - margin - gap
        out.append(f'<path d="M{left - 4} {base}H{right + 4}" stroke="#222"/>')
    out.append(f'<text x="{margin}" y="{base + 38}" font-size="10">MTU 1500, medians</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw")
    parser.add_argument("--page")
    parser.add_argument("--plot")
    options = parser.parse_args()
    headers, lines = read(options.raw)
    parts = {"machine": machine(headers), "comparison": comparison(lines), "medians": by_peer(lines)}
    if options.page:
        with open(options.page, encoding="utf-8") as page:
            text = replaced(page.read(), {name: "\n".join(rows) for name, rows in parts.items()})
        with open(options.page, "w", encoding="utf-8") as page:
            page.write(text)
    if options.plot:
        with open(options.plot, "w", encoding="utf-8") as picture:
            picture.write(plot(lines))
    if not options.page and not options.plot:
        for rows in parts.values():
            print("\n".join(rows), end="\n\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What the models and their mutants were last found to be, and the tables of it in SPECIFICATION.md.

    table.py compare RECORD NEW   fails if NEW found other models, claims, bounds or executions than RECORD
    table.py page                 writes the tables anew, from the records
    table.py page --check         fails if the page has others

The records are in loom-tests/records: quick.tsv and full.tsv from the models' runner, mutants.tsv from that of
the mutants. Times are another thing on every machine, and are not compared.
"""

import csv
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.append(str(HERE.parent / "docs"))
from marked import replaced

RECORDS = HERE / "records"
PAGE = HERE.parent / "SPECIFICATION.md"
COMPARED = ["model", "set", "bound", "executions", "shows", "claim", "not covered"]


def read(file):
    with open(file, newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def compare(record, new):
    def found(file):
        lines = read(file)
        for line in lines:
            if line["result"] != "ok":
                sys.exit(f"{file}: {line['model']} has failed")
        return {line["model"]: [line[column] for column in COMPARED] for line in lines}

    before, now = found(record), found(new)
    for model in sorted(before.keys() | now.keys()):
        if before.get(model) != now.get(model):
            print(f"{model}\n  {record}: {before.get(model)}\n  {new}: {now.get(model)}")
    if before != now:
        sys.exit("look at the difference, then: ./ci.sh records")


def kinds(line):
    """The models that killed this mutant: in them a claim failed, or they did not end, or missed a case."""
    return [model for kind in "KBC" for model in line[kind].split()]


def row(cells):
    return "| " + " | ".join(cells) + " |"


def models():
    full = {line["model"]: line for line in read(RECORDS / "full.tsv")}
    killed = {}
    for line in read(RECORDS / "mutants.tsv"):
        by = kinds(line)
        for model in by:
            killed.setdefault(model, []).append((line["mutant"], len(by) == 1))
    rows = [row(["", "model", "claim", "bound", "executions", "s", "kills", "not covered"])]
    rows.append("|---|---|---|--:|--:|--:|---|---|")
    for line in read(RECORDS / "quick.tsv"):
        model = line["model"]
        far = full.get(model) or sys.exit(f"{RECORDS}/full.tsv has no {model}")
        kills = killed.get(model, [])
        alone = [f"`{mutant}`" for mutant, is_alone in kills if is_alone]
        rows.append(row([
            line["shows"],
            model,
            line["claim"],
            *(f"{line[it]}, {far[it]}" for it in ["bound", "executions", "seconds"]),
            f"{len(kills)}" + (f", alone {' '.join(alone)}" if alone else ""),
            line["not covered"],
        ]))
    return "\n".join(rows)


def mutants():
    lines = read(RECORDS / "mutants.tsv")
    alive = [line for line in lines if line["result"] != "killed"]
    by_kind = {}
    for line in alive:
        by_kind.setdefault(line["result"], []).append(f"`{line['mutant']}`")
    text = f"{len(lines)} mutants, {len(lines) - len(alive)} killed."
    for kind, names in sorted(by_kind.items()):
        text += f" {len(names)} {kind}: {', '.join(names)}."
    return text


def page(check):
    before = PAGE.read_text(encoding="utf-8")
    after = replaced(before, {"models": models(), "mutants": mutants()})
    if not check:
        PAGE.write_text(after, encoding="utf-8")
    elif before != after:
        sys.exit(f"{PAGE} is not what the records say: loom-tests/table.py page")


def main():
    match sys.argv[1:]:
        case ["compare", record, new]:
            compare(record, new)
        case ["page"]:
            page(check=False)
        case ["page", "--check"]:
            page(check=True)
        case _:
            sys.exit(__doc__)


main()

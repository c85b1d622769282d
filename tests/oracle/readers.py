"""Other people's histories, generated, spoilt, and read twice: by the readers in Python and by those of the core.

::

    python -m oracle.readers --cases 1000000 --seed 1          (from the directory `tests`)

====================  =============================================================================================================
of every input        the reader in Python gives a history or EvidenceError, and nothing else
                      what the core takes, the reader in Python takes, and it is the same history
of what is not spoilt both take it, and it is the history that was written
====================  =============================================================================================================

Robustness reports are spoilt and read in the same way, as directories.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from pekan.errors import EvidenceError
from pekan.history import FAILED, INDEFINITE, OK, Call, History, Keyword, Map, Mark, Operation
from pekan.history.foreign import READERS
from pekan.history.foreign import edn as edn_format
from pekan.history.foreign import jsonl as jsonl_format
from pekan.history.foreign.held import read_held
from pekan.native import core
from simulator.cluster import Config, simulate
from simulator.robustness import MIX, write_report

FORMATS = ("edn", "jepsen-json", "jsonl", "porcupine-jepsen", "porcupine-kv")
TOKENS = (
    *"()[]{}#\"\\;:,_^'@-+.0123456789eNM/ntfr \n\t\r",
    "nil", "true", "false", ":invoke", ":ok", ":fail", ":info", ":process", ":type", ":f", ":value", ":time", ":key", "#_", "#{", "##NaN",
    "#jepsen.history.Op", "\\newline", "\\u0041", '"a"', "1.5", "1e3", "1e999", "9223372036854775807", "9223372036854775808", "1/2", "017",
    "0x1f", "null", '"process"', '"type"', '"invoke"', '"ok"', '"call"', '"return"', "-1", "1.0", '"\\ud800"', '"\\ud83d\\ude00"', "é",
    "\u2028", "\x0b", "INFO  jepsen.util - 0\t:invoke\t:read\tnil\n", ":nemesis", ":cas", ":txn", "[1 2]", "{}", '{"pekan": 1}',
    '{"mark": "x", "time": 1}',
)  # fmt: skip
"""What is put into a text to spoil it."""


@dataclass(frozen=True)
class Disagreement:
    """An input that readers do not agree on, or that makes one fail."""

    what: str
    form: str
    seed: int
    text: str

    def __str__(self) -> str:
        return f"{self.what} ({self.form}, seed {self.seed}):\n{self.text[:2000]}"


# ---- making histories ----


def random_value(rng: Random, depth: int = 2) -> Any:
    """A value as histories have it."""
    pick = rng.random()
    if pick < 0.5 or depth == 0:
        return rng.randint(-3, 9)
    if pick < 0.9:
        return rng.choice((None, 1.5, "a", 'b\n"\\', "é", 123456789012, "x 1 0 y"))
    if pick < 0.96:
        return tuple(random_value(rng, depth - 1) for _ in range(rng.choice((0, 1, 3))))  # two might be a key and a value
    return Map({rng.choice("abc"): random_value(rng, depth - 1) for _ in range(rng.randint(0, 2))})


def random_history(rng: Random, keyed: bool = False) -> History:
    """A few processes that call and return, fail, or hang."""
    operations: list[Operation] = []
    fresh = 0
    time = 0
    free = [rng.choice((0, 0, 70_000)) + number for number in range(rng.randint(1, 4))]
    fresh = max(free) + 1
    busy: dict[int, int] = {}
    for _ in range(rng.randint(0, 12)):
        time += rng.randint(1, 3)
        if free and (not busy or rng.random() < 0.5):
            process = free.pop(rng.randrange(len(free)))
            f = rng.choice(("read", "write", "cas"))
            value = None if f == "read" else (rng.randint(0, 4), rng.randint(0, 4)) if f == "cas" else random_value(rng)
            busy[process] = len(operations)
            operations.append(
                Operation(len(operations), process, time, None, INDEFINITE, Call(f, value, rng.choice("xy") if keyed else None), None)
            )
            continue
        process = rng.choice(list(busy))
        at = busy.pop(process)
        operation = operations[at]
        pick = rng.random()
        if pick < 0.7:
            output = random_value(rng) if operation.input.f == "read" else operation.input.value
            operations[at] = operation._replace(ret=time, outcome=OK, output=output)
            free.append(process)
        elif pick < 0.85:
            operations[at] = operation._replace(ret=time, outcome=FAILED)
            free.append(process)
        else:
            operations[at] = operation._replace(gave_up=time)
            free.append(fresh)
            fresh += 1
    marks = tuple(
        Mark(rng.randint(0, time + 1), rng.choice(("kill", "heal")), "", {"process": "nemesis", "type": "info", "value": ["n1"]})
        for _ in range(rng.choice((0, 0, 1)))
    )
    return History(tuple(operations), marks=marks)


def entries_of(history: History) -> Iterator[dict[str, Any]]:
    """Jepsen's entries of a history, as its EDN tells them."""
    for line in edn_format.lines(history):
        ((_, fields),) = edn_format.forms(line)
        yield fields


def random_text(form: str, rng: Random) -> tuple[str, History | None]:
    """A text in `form`, and the history that it tells where that is known."""
    history = random_history(rng, keyed=form == "porcupine-kv")
    if form == "edn":
        text = "".join(edn_format.lines(history))
        if rng.random() < 0.3:
            text = f"[{text}]"
        if rng.random() < 0.3:
            text = text.replace("{:process", "#jepsen.history.Op{:index 1, :error [:a {:b 2}], :process")
        if rng.random() < 0.2:
            text = text.replace(":value", ":value #_7")
        return text, replace(history, format="edn")
    if form == "jsonl":
        history = replace(history, model=rng.choice((None, "register")), initial=rng.choice((None, 0, (1, "a"))), format="jsonl")
        text = "".join(jsonl_format.lines(history))
        return text, history
    if form == "jepsen-json":
        values = [json.dumps(jsonl_format.plain(Map(fields))) for fields in entries_of(history)]
        text = "[" + ",\n".join(values) + "]" if rng.random() < 0.5 else "\n".join(values)
        return text, replace(history, format="jepsen-json")
    if form == "porcupine-kv":
        lines = []
        for fields in entries_of(history):
            value = fields["value"]
            key, value = value if isinstance(value, tuple) and len(value) == 2 else ("x", value)
            told = {**fields, Keyword("key"): key, Keyword("value"): value}
            del told["time"]
            lines.append(edn_format.edn(Map(told)))
        return "\n".join(lines), None
    lines = [
        f"INFO  jepsen.util - {edn_format.edn(fields['process'])}\t:{fields['type']}\t:{fields['f']}\t{edn_format.edn(fields['value'])}"
        for fields in entries_of(history)
    ]
    lines.insert(rng.randint(0, len(lines)), "INFO  jepsen.core - something else")
    return "\n".join(lines), None


def spoil(data: bytes, rng: Random) -> bytes:
    """`data` with something wrong in it, mostly."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, to = sorted((rng.randint(0, len(data)), min(len(data), rng.randint(0, len(data)))))
        pick = rng.random()
        if pick < 0.35:
            data = data[:at] + rng.choice(TOKENS).encode() + data[at:]
        elif pick < 0.5:
            data = data[:at] + rng.choice(TOKENS).encode() + data[at + 1 :]
        elif pick < 0.6:
            data = data[:at] + data[at + rng.randint(1, 3) :]
        elif pick < 0.7:
            data = data[:at] + bytes((rng.randrange(256),)) + data[at + 1 :]
        elif pick < 0.8:
            data = data[:at] + data[at : at + 40] + data[at:]
        elif pick < 0.9:
            lines = data.split(b"\n")
            rng.shuffle(lines)
            data = b"\n".join(lines)
        elif pick < 0.95:
            data = data[:at] + data[to:]
        else:
            data = data[:to]
    return data


# ---- reading twice ----


def taken(read: Callable[[Path], History], path: Path) -> History | None:
    """The history, None where it was refused as unreadable."""
    try:
        return read(path)
    except EvidenceError:
        return None


def compare(form: str, path: Path, seed: int, told: History | None, counts: Counter[str], spoilt: bool) -> Disagreement | None:
    """Reads `path` with both readers. `told` is what was written, where that is known."""

    def disagree(what: str) -> Disagreement:
        text = path.read_bytes().decode(errors="backslashreplace") if path.is_file() else str(path)
        return Disagreement(what, form, seed, text)

    try:
        reference = taken(READERS[form], path)
    except Exception as error:  # any other exception is what is looked for
        return disagree(f"the reader in Python fails with {error!r}")
    counts["taken" if reference is not None else "refused"] += 1
    if not spoilt and (reference is None or (told is not None and reference.operations != told.operations)):
        return disagree("what was written does not read back")
    if core is None:
        return None
    held = read_held(path, form)
    if held is None:
        counts["declined"] += reference is not None
        return None if spoilt or reference is None else disagree("the core declines what is right")
    if reference is None:
        return disagree("the core takes what the reader in Python refuses")
    if replace(held, operations=tuple(held.operations)) != reference:
        return disagree("the core reads another history")
    return None


def fuzz(cases: int, seed: int, directory: Path, deadline: float | None = None) -> tuple[Counter[str], list[Disagreement]]:
    """Reads `cases` inputs, of which nine in ten are spoilt."""
    counts: Counter[str] = Counter()
    found: list[Disagreement] = []
    path = directory / "history"
    for number in range(seed * 10_000_000, seed * 10_000_000 + cases):
        if deadline is not None and time.monotonic() > deadline:
            break
        rng = Random(number)
        form = rng.choice(FORMATS)
        text, told = random_text(form, rng)
        spoilt = rng.random() < 0.9
        data = text.encode()
        path.write_bytes(spoil(data, rng) if spoilt else data)
        disagreement = compare(form, path, number, told, counts, spoilt)
        if disagreement is not None:
            found.append(disagreement)
            if len(found) >= 10:
                break
    return counts, found


def fuzz_reports(cases: int, seed: int, directory: Path) -> tuple[Counter[str], list[Disagreement]]:
    """The same over robustness reports: one simulated report, spoilt in one of its files again and again."""
    counts: Counter[str] = Counter()
    found: list[Disagreement] = []
    rng = Random(seed)
    report = directory / "report"
    while not report.exists():
        write_report(
            simulate(Config(seed=rng.getrandbits(30), operations=20, watch=1, mix=MIX)).history, report, rng.choice(("main", "3.6"))
        )
    files = sorted(report.glob("client-*/*.json"))
    whole = {file: file.read_bytes() for file in files}
    for _ in range(cases):
        file = rng.choice(files)
        file.write_bytes(spoil(whole[file], rng))
        disagreement = compare("robustness", report, seed, None, counts, spoilt=True)
        if disagreement is not None:
            found.append(replace(disagreement, text=f"{file.name}:\n{file.read_bytes().decode(errors='backslashreplace')}"))
        file.write_bytes(whole[file])
    shutil.rmtree(report)
    return counts, found


def main() -> int:
    """The command line: see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reports", type=int, default=None, help="Spoilt robustness reports; a hundredth of the cases unless said.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        counts, found = fuzz(asked.cases, asked.seed, Path(directory))
        reports = asked.cases // 100 if asked.reports is None else asked.reports
        more, others = fuzz_reports(reports, asked.seed, Path(directory))
    for disagreement in (*found, *others):
        print(disagreement)
    print(f"{asked.cases} texts: {dict(counts)}; {reports} reports: {dict(more)}; {len(found) + len(others)} disagreements")
    return 1 if found or others else 0


if __name__ == "__main__":
    sys.exit(main())

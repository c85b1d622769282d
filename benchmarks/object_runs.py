"""Makes histories of objects, of any length, as Jepsen's EDN.

::

    python benchmarks/object_runs.py FILE --model stack --operations 1000000 --clients 64      about 10 us an operation

Clients call one object on a virtual clock: a call takes effect at one instant between its invocation and its answer, both drawn evenly from
a millisecond. What stays unanswered (`:info`) took effect half of the time, and ends its process. The register, the queue and the stack
write no value twice; the compare-and-set register draws from five values; texts are appended to ten independent keys. Histories are right
unless some answers are asked to be wrong.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEAN_NS = 500_000
"""Of the time to the instant of effect, and from there to the answer."""
VALUES = 5
"""Of the compare-and-set register: few, so that reads say little about which write they saw."""
KEYS = 10

Did = tuple[str, str, str] | None
"""What came of a call: (type, value as EDN, further fields); None where it must wait."""


class Register:
    """Reads and writes, half each; no value is written twice."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.value, self.next = rng, "nil", 0

    def ask(self) -> tuple[str, str, str]:
        """(f, value, further fields of the entry)"""
        if self.rng.random() < 0.5:
            return "read", "nil", ""
        self.next += 1
        return "write", str(self.next), ""

    def do(self, f: str, value: str, more: str) -> tuple[str, str]:
        """(type, value) of the answer."""
        if f == "write":
            self.value = value
        return "ok", self.value


class CasRegister(Register):
    """A third each of reads, writes and compare-and-sets over five values."""

    def ask(self) -> tuple[str, str, str]:
        draw = self.rng.randrange(3)
        if draw == 0:
            return "read", "nil", ""
        if draw == 1:
            return "write", str(self.rng.randrange(VALUES)), ""
        return "cas", f"[{self.rng.randrange(VALUES)} {self.rng.randrange(VALUES)}]", ""

    def do(self, f: str, value: str, more: str) -> tuple[str, str]:
        if f != "cas":
            return super().do(f, value, more)
        old, new = value[1:-1].split(" ")
        if self.value != old:
            return "fail", value
        self.value = new
        return "ok", value


class Line:
    """A queue or a stack, as many in as out."""

    def __init__(self, rng: random.Random, put: str, take: str, end: Callable[[deque[str]], str]) -> None:
        self.rng, self.put, self.take, self.end = rng, put, take, end
        self.inside: deque[str] = deque()
        self.next = 0

    def ask(self) -> tuple[str, str, str]:
        if self.rng.random() < 0.5:
            return self.take, "nil", ""
        self.next += 1
        return self.put, str(self.next), ""

    def do(self, f: str, value: str, more: str) -> tuple[str, str]:
        if f == self.put:
            self.inside.append(value)
            return "ok", value
        return "ok", self.end(self.inside) if self.inside else "nil"


class Texts:
    """Texts by key: half reads, 45 % appends of a token of its own, the rest replaces."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.texts, self.next = rng, [""] * KEYS, 0

    def ask(self) -> tuple[str, str, str]:
        key = f', :key "{self.rng.randrange(KEYS)}"'
        draw = self.rng.random()
        if draw < 0.5:
            return "get", "nil", key
        self.next += 1
        return ("append" if draw < 0.95 else "put"), f'"x {self.next} y"', key

    def do(self, f: str, value: str, more: str) -> tuple[str, str]:
        key = int(more.rsplit('"', 2)[1])
        if f == "get":
            return "ok", f'"{self.texts[key]}"'
        self.texts[key] = (self.texts[key] if f == "append" else "") + value[1:-1]
        return "ok", value


MODELS: dict[str, Callable[[random.Random], Any]] = {
    "register": Register,
    "cas-register": CasRegister,
    "fifo-queue": lambda rng: Line(rng, "enqueue", "dequeue", deque.popleft),
    "stack": lambda rng: Line(rng, "push", "pop", deque.pop),
    "kv-append": Texts,
}


def make(path: Path, model: str, operations: int, *, clients: int, info: float = 0.0, wrong: float = 0.0, seed: int = 1) -> None:
    """Writes a history to `path`: entries in order of time, one a line.

    `info` of the calls are not answered; `wrong` of the register's reads answer any of its values.
    """
    rng = random.Random(seed)
    thing = MODELS[model](rng)
    processes = clients
    left = operations
    # (time, order, what happens, process, f, value, further fields, whether it is answered)
    heap: list[tuple[int, int, str, int, str, str, str, bool]] = [(n, n, "call", n, "", "", "", True) for n in range(clients)]
    made = clients

    def later(now: int, *what: Any) -> None:
        nonlocal made
        made += 1
        heapq.heappush(heap, (now + 1 + int(rng.random() * 2 * MEAN_NS), made, *what))

    with path.open("w") as file:
        while heap:
            now, _, what, process, f, value, more, answered = heapq.heappop(heap)
            if what == "call":
                if left == 0:
                    continue
                left -= 1
                f, value, more = thing.ask()
                later(now, "effect", process, f, value, more, rng.random() >= info)
                file.write(f"{{:process {process}, :type :invoke, :f :{f}, :value {value}{more}, :time {now}}}\n")
            elif what == "effect":
                if answered or rng.random() < 0.5:
                    kind, value = thing.do(f, value, more)
                    if f == "read" and rng.random() < wrong:
                        value = str(rng.randrange(VALUES))
                    what = kind if answered else "info"
                else:
                    what = "info"
                later(now, what, process, f, value, more, answered)
            else:
                if what == "info":
                    value = "nil" if f in ("read", "get", "dequeue", "pop") else value
                file.write(f"{{:process {process}, :type :{what}, :f :{f}, :value {value}{more}, :time {now}}}\n")
                if what == "info":
                    process = processes
                    processes += 1
                heapq.heappush(heap, (now + 1, -made, "call", process, "", "", "", True))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a history of an object.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", choices=sorted(MODELS), default="register")
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--info", type=float, default=0.0)
    parser.add_argument("--wrong", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    make(
        options.file, options.model, options.operations, clients=options.clients, info=options.info, wrong=options.wrong, seed=options.seed
    )
    print(f"{options.file}: {options.file.stat().st_size / 1e6:.1f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()

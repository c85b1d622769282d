"""JSON, log lines, JSON Lines, and telling the formats apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from pekan.errors import EvidenceError, UsageError
from pekan.history import FAILED, INDEFINITE, OK, Call, History, Map
from pekan.history.foreign import READERS, guess, load_any

LOG = """INFO  jepsen.core - Everyone's ready to begin!
INFO  jepsen.util - 0\t:invoke\t:read\tnil
INFO  jepsen.util - 1\t:invoke\t:write\t4
INFO  jepsen.util - 0\t:ok\t:read\tnil
INFO  jepsen.util - :nemesis\t:info\t:start\tnil
INFO  jepsen.util - 1\t:info\t:write\t:timed-out
INFO  jepsen.util - 0   :invoke :cas    [1 4]
INFO  jepsen.util - 0   :fail   :cas    [1 4]
2021-01-01 00:00:00 INFO  [worker 2] jepsen.util - 2 :invoke :read nil
INFO  jepsen.util - 2   :fail   :read   :timed-out
"""
KV = """{:process 0, :type :invoke, :f :append, :key "0", :value "x 0 0 y"}
{:process 1, :type :invoke, :f :get, :key "1", :value nil}
{:process 0, :type :ok, :f :append, :key "0", :value "x 0 0 y"}
{:process 1, :type :ok, :f :get, :key "1", :value ""}
"""
JEPSEN_JSON = """{"process": 0, "type": "invoke", "f": "write", "value": 3, "time": 10}
{"process": "nemesis", "type": "info", "f": "kill", "value": ["n1"], "time": 11}
{"process": 0, "type": "ok", "f": "write", "value": 3, "time": 12}
"""
JSONL = """{"pekan": 1, "model": "register", "initial": [0]}
{"process": 1, "f": "read", "call": 12, "return": 30, "output": 3}
{"process": 0, "f": "write", "value": 3, "call": 10, "return": 25}
{"mark": "kill n1", "time": 18, "detail": {"signal": 9}}
{"process": 2, "f": "write", "value": {"a": 1.0}, "call": 14}
{"process": 3, "f": "write", "value": 5, "call": 15, "return": 20, "outcome": "failed"}
{"process": 2, "f": "cas", "value": [1, 2], "key": "x", "call": 31, "return": 40, "outcome": "indefinite"}
"""
EDN = "{:process 0, :type :invoke, :f :read, :value nil, :time 1}\n"


def read(tmp_path: Path, text: str, form: str | None = None) -> History:
    """The history that `text` tells."""
    path = tmp_path / "a-history"
    path.write_text(text)
    return load_any(path, form)


def test_log_lines(tmp_path: Path) -> None:
    """A log of Jepsen's: other lines do not count, a compare-and-set that failed was answered, a read without answer failed."""
    history = read(tmp_path, LOG)
    assert (history.format, history.model) == ("porcupine-jepsen", "cas-register")
    assert [(o.process, o.call, o.ret, o.outcome, o.input, o.output) for o in history.operations] == [
        (0, 0, 2, OK, Call("read"), None),
        (1, 1, None, INDEFINITE, Call("write", 4), None),
        (0, 5, 6, OK, Call("cas", (1, 4)), False),
        (2, 7, 8, FAILED, Call("read"), None),
    ]
    assert [(mark.kind, mark.time) for mark in history.marks] == [("start", 3)]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("INFO jepsen.util - 0 :invoke :read", "expected a value after :read; found none"),
        ("INFO jepsen.util - 0 :invoke :cas [1", "never closed"),
        ("INFO jepsen.util - 0 :ok :read 1", "without having invoked"),
        ("INFO jepsen.util - 99999999999999999999 :invoke :read nil", "expected a number"),
    ],
)
def test_a_broken_log_line_is_named(line: str, what: str, tmp_path: Path) -> None:
    """A line that cannot be is refused with its number."""
    with pytest.raises(EvidenceError, match=f"line 3: .*{what}"):
        read(tmp_path, f"\nINFO nothing\n{line}\n", "porcupine-jepsen")


def test_key_value_maps(tmp_path: Path) -> None:
    """Maps with a :key name the object; nobody tells times, so the lines do."""
    history = read(tmp_path, KV)
    assert (history.format, history.model) == ("porcupine-kv", "kv-append")
    assert [(o.call, o.ret, o.input, o.output) for o in history.operations] == [
        (0, 2, Call("append", "x 0 0 y", "0"), "x 0 0 y"),
        (1, 3, Call("get", None, "1"), ""),
    ]


def test_jepsen_in_json(tmp_path: Path) -> None:
    """The same entries in JSON, on lines and in one array, are the same history."""
    on_lines = read(tmp_path, JEPSEN_JSON)
    in_array = read(tmp_path, "[" + ",".join(JEPSEN_JSON.strip().split("\n")) + "]")
    assert on_lines == in_array
    assert on_lines.format == "jepsen-json"
    assert [(o.call, o.ret, o.input, o.output) for o in on_lines.operations] == [(10, 12, Call("write", 3), 3)]
    assert [mark.kind for mark in on_lines.marks] == ["kill"]


def test_json_lines(tmp_path: Path) -> None:
    """Every field of our own format is read, and lines may come in any order."""
    history = read(tmp_path, JSONL)
    assert (history.format, history.model, history.initial, history.order) == ("jsonl", "register", (0,), "real-time")
    assert [(o.id, o.process, o.call, o.ret, o.outcome, o.input, o.output, o.gave_up) for o in history.operations] == [
        (0, 0, 10, 25, OK, Call("write", 3), None, None),
        (1, 1, 12, 30, OK, Call("read"), 3, None),
        (2, 2, 14, None, INDEFINITE, Call("write", Map({"a": 1})), None, None),
        (3, 3, 15, 20, FAILED, Call("write", 5), None, None),
        (4, 2, 31, None, INDEFINITE, Call("cas", (1, 2), "x"), None, 40),
    ]
    assert [(mark.kind, mark.time, mark.detail) for mark in history.marks] == [("kill n1", 18, {"signal": 9})]


def test_json_lines_with_a_clock_a_process(tmp_path: Path) -> None:
    """A file that says so has one clock for each process, and its order is that of the processes."""
    assert read(tmp_path, '{"pekan": 1, "clock": "per-process"}\n').order == "per-process"


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ('{"process": 0, "f": "read", "call": 1, "retrun": 2}', 1, "'retrun' is no field"),
        ('\n{"f": "read", "call": 1}', 2, "as process; found none"),
        ('{"process": 0, "f": "read", "call": 1.5}', 1, "as call; found 1.5"),
        ('{"process": true, "f": "read", "call": 1}', 1, "as process; found True"),
        ('{"process": 0, "f": 7, "call": 1}', 1, "a name as f"),
        ('{"process": 0, "f": "r", "call": 5, "return": 4}', 1, "runs backwards"),
        ('{"process": 0, "f": "r", "call": 5, "outcome": "ok"}', 1, "has a return"),
        ('{"process": 0, "f": "r", "call": 5, "return": 6, "outcome": "fine"}', 1, "an outcome of"),
        ('{"process": 0, "f": "r", "call": 5, "output": 6}', 1, "only an operation that is ok"),
        ('{"process": 0, "f": "r", "call": 5, "return": 9}\n{"process": 0, "f": "r", "call": 8, "return": 9}', 2, "its last returns at 9"),
        ('{"process": 0, "f": "r", "call": 5}\n{"pekan": 1}', 2, "only be the first"),
        ('{"pekan": 2}', 1, "version 2"),
        ('{"pekan": 1, "clock": "sundial"}', 1, "sundial"),
        ('{"mark": 1, "time": 2}', 1, "expected a mark"),
        ("17", 1, "expected an object"),
        ('{"a": 1, "a": 2}', 1, "a name twice"),
        ('{"process": 0, "f": "r", "call": 5, "value": NaN}', 1, "NaN"),
        ('{"process": 0, "f": "r", "call": 5, "value": 1e999}', 1, "too large"),
        ('{"process": 0, "f": "r", "call": 5, "value": "\\ud800"}', 1, "surrogate"),
        ('{"process": 0, "f": "r", "call": 5, "value": ' + "1" * 5000 + "}", 1, "."),
        ('{"process": 0, "f": "r", "call": 5, "value": ' + "[" * 100_000 + "}", 1, "."),
        ('{"process": 0, "f": "r", "call": 5, "value": ' + "[" * 150 + "]" * 150 + "}", 1, "nested deeper"),
        ("[1, 2", 1, "."),
        ("[{}] 3", 1, "."),
        ("{", 1, "expected JSON"),
    ],
)
def test_broken_json_lines_are_named(text: str, line: int, what: str, tmp_path: Path) -> None:
    """What cannot be is refused with file, line and what was expected."""
    with pytest.raises(EvidenceError, match=f"a-history: line {line}: .*{what}"):
        read(tmp_path, text, "jsonl")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (LOG, "porcupine-jepsen"),
        (KV, "porcupine-kv"),
        (JEPSEN_JSON, "jepsen-json"),
        (f"[{JEPSEN_JSON.splitlines()[0]}]", "jepsen-json"),
        (JSONL, "jsonl"),
        (JSONL.split("\n", 1)[1], "jsonl"),
        (EDN, "edn"),
        (f"[{EDN}]", "edn"),
        (f"; from a test\n{EDN}", "edn"),
        ("#jepsen.history.Op" + EDN, "edn"),
    ],
)
def test_a_format_is_told_by_content(text: str, form: str, tmp_path: Path) -> None:
    """Each format is recognised, whatever the name of the file."""
    (tmp_path / "file").write_text(text)
    assert guess(tmp_path / "file") == form


def test_formats_are_told_by_name(tmp_path: Path) -> None:
    """A run is told by its history.pb, a robustness report by its clients, and both as directories."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "history.pb").write_bytes(b"")
    (tmp_path / "report" / "client-1").mkdir(parents=True)
    assert guess(tmp_path / "run") == guess(tmp_path / "run" / "history.pb") == "pekan"
    assert guess(tmp_path / "report") == "robustness"


def test_what_is_no_history_is_listed(tmp_path: Path) -> None:
    """Where neither name nor content tells, the message lists what was seen and the formats; a Jepsen directory is pointed into."""
    (tmp_path / "file").write_text("To be, or not to be\n")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "history.edn").write_text(EDN)
    with pytest.raises(UsageError, match=r"it begins with 'To be, or not to be'.*--format pekan\|edn"):
        guess(tmp_path / "file")
    with pytest.raises(UsageError, match=r"name the history in it: .*history\.edn"):
        guess(tmp_path / "store")
    with pytest.raises(UsageError, match="it holds file, store"):
        guess(tmp_path)
    with pytest.raises(UsageError, match="--format xml: not known; choose from pekan"):
        load_any(tmp_path / "file", "xml")
    with pytest.raises(EvidenceError, match="none: does not exist"):
        guess(tmp_path / "none")


@pytest.mark.parametrize("form", [form for form in READERS if form != "pekan"])
def test_a_file_that_is_not_there_is_named(form: str, tmp_path: Path) -> None:
    """Every reader names a path that it cannot read."""
    with pytest.raises(EvidenceError, match="none: "):
        load_any(tmp_path / "none", form)


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_a_history_beyond_the_memory_is_not_read(engine: str, tmp_path: Path) -> None:
    """A file that would take more than the memory that is there is left alone, and what it would take is said."""
    path = tmp_path / "history.edn"
    with path.open("wb") as file:
        file.truncate(1 << 42)  # No byte of it is on the disk.
    history = load_any(path, "edn", engine=engine)
    assert "of memory, more than half of" in history.too_large
    assert history.operations == ()

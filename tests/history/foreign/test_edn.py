"""Jepsen's EDN: what the notation means, what the entries mean, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pekan.errors import EvidenceError
from pekan.history import FAILED, INDEFINITE, OK, Call, History, Keyword, Map
from pekan.history.foreign import load_any
from pekan.history.foreign.edn import edn, forms
from pekan.history.foreign.pairing import Malformed
from pekan.history.values import MAX_DEPTH


def value_of(text: str) -> Any:
    """The one value of `text`."""
    ((_, value),) = forms(text, entries=False)
    return value


def read(tmp_path: Path, text: str) -> History:
    """The history that `text` tells as EDN."""
    path = tmp_path / "history.edn"
    path.write_text(text)
    return load_any(path, "edn")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("nil", None),
        ("true", True),
        ("false", False),
        ("17", 17),
        ("-3", -3),
        ("+3", 3),
        ("123456789012345678901N", 123456789012345678901),
        ("0x1F", 31),
        ("017", 15),
        ("2r101", 5),
        ("1.5", 1.5),
        ("1e3", 1000),
        ("1.0M", 1),
        ("6/4", Fraction(3, 2)),
        ("4/2", 2),
        ("##Inf", float("inf")),
        (":read", "read"),
        (":jepsen/op", "jepsen/op"),
        ("symbol", "symbol"),
        ("-", "-"),
        ('"a\\"b\\n\\u0041\\101"', 'a"b\nAA'),
        ("\\a", "a"),
        ("\\newline", "\n"),
        ("\\u0041", "A"),
        ("\\(", "("),
        ("[1 (2 3) nil]", (1, (2, 3), None)),
        ("#{1 2 2.0}", frozenset({1, 2})),
        ("{:a 1, :b [2]}", {"a": 1, "b": (2,)}),
        ("[{:a 1}]", (Map({"a": 1}),)),
        ('#inst "2020-01-01"', "2020-01-01"),
        ("#jepsen.history.Op{:index 1}", {"index": 1}),
        ("[1 #_2 #_ #_ 3 4 5]", (1, 5)),
        ("[1 ; two\n 3]", (1, 3)),
        ("^{:line 3} [1]", (1,)),
        ("[]", ()),
    ],
)
def test_notation(text: str, value: Any) -> None:
    """Every notation of EDN gives the value that Clojure's reader gives it, told in Python."""
    found = value_of(text)
    assert found == value
    assert type(found) is type(value) or (isinstance(value, str) and isinstance(found, str))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{:a}", "a key that has no value"),
        ("{:a 1 :a 2}", "a key twice"),
        ("[1 2", "never closed"),
        ("]", "closes nothing"),
        ("[1)", r"expected '\]'"),
        ('"abc', "never ends"),
        ('"\\q"', "escape"),
        ("08", "not a number"),
        ("1/0", "not a number"),
        ("40r1", "not a number"),
        ("1" * 5000, "too long"),
        ("1e999", "too large"),
        ("##NaN", "NaN"),
        ("#_", "nothing follows"),
        ("[#_]", "nothing follows"),
        ("#tag", "nothing follows"),
        ("\\uD800", "surrogate"),
        ('"\\uD800"', "surrogate"),
        ("\\nonsense", "not a character"),
        (":", "names nothing"),
        ('#"a"', "regular expression"),
        ("#:a{:b 1}", "expected EDN"),
        ("@x", "expected EDN"),
        ("[" * 5000, f"deeper than {MAX_DEPTH}"),
        ("#a " * 5000, f"deeper than {MAX_DEPTH}"),
        ("^" * 5000, f"deeper than {MAX_DEPTH}"),
    ],
)
def test_what_is_no_edn_is_refused(text: str, what: str) -> None:
    """What EDN forbids, and what no value of a history can be, is refused with the reason."""
    with pytest.raises(Malformed, match=what):
        value_of(text)


def test_entries_are_paired(tmp_path: Path) -> None:
    """ok, fail, info and nothing at all give the four outcomes, with times, answers and the client's giving up."""
    history = read(
        tmp_path,
        """{:process 0, :type :invoke, :f :write, :value 3, :time 10, :index 0}
           {:process 1, :type :invoke, :f :read, :value nil, :time 11}
           {:process :nemesis, :type :info, :f :kill, :value ["n1"], :time 12}
           #jepsen.history.Op{:process 0, :type :ok, :f :write, :value 3, :time 13}
           {:process 1, :type :ok, :f :read, :value 3, :time 14}
           {:process 0, :type :invoke, :f :cas, :value [3 4], :time 15}
           {:process 1, :type :invoke, :f :write, :value 5, :time 16}
           {:process 0, :type :fail, :f :cas, :value [3 4], :time 17}
           {:process 1, :type :info, :f :write, :value 5, :time 18, :error :timeout}
           {:process 2, :type :invoke, :f :read, :value nil, :time 19}""",
    )
    assert [(o.process, o.call, o.ret, o.outcome, o.input, o.output, o.gave_up) for o in history.operations] == [
        (0, 10, 13, OK, Call("write", 3), 3, None),
        (1, 11, 14, OK, Call("read"), 3, None),
        (0, 15, 17, FAILED, Call("cas", (3, 4)), None, None),
        (1, 16, None, INDEFINITE, Call("write", 5), None, 18),
        (2, 19, None, INDEFINITE, Call("read"), None, None),
    ]
    assert [(mark.kind, mark.time, mark.detail["value"]) for mark in history.marks] == [("kill", 12, ["n1"])]
    assert history.order == "real-time"


def test_one_vector_of_entries_reads_the_same(tmp_path: Path) -> None:
    """Entries on lines, in a vector and in a list are the same history; without times the order of the entries is the time."""
    entries = "{:process 0 :type :invoke :f :read :value nil} {:process 0 :type :ok :f :read :value 1}"
    told = [read(tmp_path, text).operations for text in (entries, f"[{entries}]", f"({entries})\n", f"; a comment\n[{entries}]")]
    assert told[0] == told[1] == told[2] == told[3]
    assert (told[0][0].call, told[0][0].ret) == (0, 1)


def test_a_process_may_go_on_after_an_indefinite_operation(tmp_path: Path) -> None:
    """Readers take a history whose client keeps its number after :info."""
    history = read(
        tmp_path,
        """{:process 0 :type :invoke :f :write :value 1} {:process 0 :type :info :f :write :value 1}
           {:process 0 :type :invoke :f :write :value 2} {:process 0 :type :ok :f :write :value 2}""",
    )
    assert [o.outcome for o in history.operations] == [INDEFINITE, OK]


@pytest.mark.parametrize(
    ("entries", "keys"),
    [
        ("{:process 0 :type :invoke :f :read :value [7 nil]} {:process 0 :type :ok :f :read :value [7 3]}", [7]),
        ("{:process 0 :type :invoke :f :cas :value [7 [1 2]]} {:process 0 :type :fail :f :cas :value [7 [1 2]]}", [7]),
        ("{:process 0 :type :invoke :f :cas :value [1 2]} {:process 0 :type :ok :f :cas :value [1 2]}", [None]),
        ("{:process 0 :type :invoke :f :txn :value [[:r 1 nil] [:append 1 2]]}", [None]),
        ("{:process 0 :type :invoke :f :write :value [7 1]} {:process 1 :type :invoke :f :read :value nil}", [None, None]),
        ("{:process 0 :type :invoke :f :read :value [7 nil]} {:process 0 :type :ok :f :read :value [8 3]}", [None]),
        ("{:process 0 :type :invoke :f :get :key :x :value nil}", ["x"]),
    ],
)
def test_independent_keys(entries: str, keys: list[Any], tmp_path: Path) -> None:
    """Pairs in every value are keys and values of independent objects; anything that could be something else is left as it is."""
    assert [o.input.key for o in read(tmp_path, entries).operations] == keys


def test_an_independent_key_is_taken_off_the_values(tmp_path: Path) -> None:
    """With keys, arguments and answers are those of the one object."""
    history = read(tmp_path, "{:process 0 :type :invoke :f :read :value [7 nil]} {:process 0 :type :ok :f :read :value [7 3]}")
    assert (history.operations[0].input, history.operations[0].output) == (Call("read", None, 7), 3)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("\n{:process 0 :type :ok :f :read :value 1}", 2, "without having invoked"),
        ("{:process 0 :type :invoke :f :read}\n{:process 0 :type :invoke :f :write}", 2, "while its read is open"),
        ("{:process 0 :type :invoke :f :read :time 5}\n\n{:process 0 :type :ok :f :read :time 4}", 3, "runs backwards: 4 after 5"),
        ("{:process 0 :type :invoke :f :read :time 5}\n{:process 0 :type :ok :f :read}", 2, "has no :time"),
        ("{:process 0 :type :invoke :f :read}\n{:process 0 :type :ok :f :read :time 5}", 2, "those before it have none"),
        ("{:process 0 :type :invoke :f :read :time :now}", 1, "nanoseconds"),
        ("{:process 0 :type :invoke :f :read :time 9223372036854775807}", 1, "nanoseconds"),
        ("{:process 0 :type :invoke :f :read}\n{:process 0 :type :ok :f :write}", 2, "expected read"),
        ("{:process 0 :type :done :f :read}", 1, "expected a :type of invoke, ok, fail, info; found 'done'"),
        ("{:process 0 :f :read}", 1, "found none"),
        ("{:type :invoke :f :read}", 1, "expected a :process"),
        ("{:process nil :type :invoke :f :read}", 1, "expected a number or a name"),
        ("{:process 0 :type :invoke :f 3}", 1, "expected a name as :f"),
        ("{:process 0 :type :invoke :f :read}\n17", 2, "expected a map"),
        ("[{:process 0 :type :invoke :f :read}]\n17", 2, "something follows"),
        ("[{:process 0 :type :invoke :f :read}", 1, "never closed"),
    ],
)
def test_impossible_histories_are_refused(text: str, line: int, what: str, tmp_path: Path) -> None:
    """What no history can be is refused with file, line and what was expected."""
    with pytest.raises(EvidenceError, match=rf"history\.edn: line {line}: .*{what}"):
        read(tmp_path, text)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    """A file that is not UTF-8 is refused with the byte."""
    path = tmp_path / "history.edn"
    path.write_bytes(b"{:process 0 \xff}")
    with pytest.raises(EvidenceError, match="byte 12: expected UTF-8"):
        load_any(path, "edn")


atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.builds(Keyword, st.from_regex("[a-z]+", fullmatch=True))
)
written = st.recursive(
    atoms.map(lambda v: int(v) if isinstance(v, float) and v.is_integer() else v),
    lambda parts: (
        st.lists(parts, max_size=4).map(tuple) | st.frozensets(parts, max_size=4) | st.dictionaries(parts, parts, max_size=4).map(Map)
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(written)
def test_what_is_written_reads_back(value: Any) -> None:
    """Any value written as EDN reads back equal."""
    found = value_of(edn(value))
    assert (Map(found) if isinstance(found, dict) else found) == value


@settings(max_examples=500)
@given(st.text(alphabet='(){}[]#"\\;:_^ \n,0123456789abcrNM/.-+e?$é\u2028'))
def test_no_text_crashes_the_parser(text: str) -> None:
    """Any text at all is read or refused."""
    refused = None
    try:
        list(forms(text))
    except Malformed as error:
        refused = error
    assert refused is None or 0 <= refused.offset <= len(text)

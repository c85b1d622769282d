"""Histories of objects, judged by the one entry: verdicts, findings with their cores, choice of the model."""

from __future__ import annotations

from typing import Any

import pytest

import pekan
from checkers.judging import Clock, header
from checkers.objects.building import history
from pekan.checkers.case import Case, Options
from pekan.checkers.objects.check import check_objects
from pekan.checkers.objects.orders import orders
from pekan.errors import UsageError
from pekan.history.types import History
from pekan.models.object import ILLEGAL, Called, Model
from pekan.models.ready import READY
from pekan.wire.messages import PutRequest, PutResponse

STALE = """
    0  write 1      0..10
    1  write 2      20..30
    2  read -> 1    40..50
"""

SAMPLES: dict[str, tuple[str, str]] = {
    "register": ("0 write 1  0..9\n 1 read -> 1  5..20\n 1 read -> None  0..4", STALE),
    "cas-register": ("0 cas (None, 1)  0..9\n 1 cas (2, 3) -> False  0..9", "0 write 1  0..9\n 1 cas (2, 3)  10..19"),
    "versioned-register": (
        "0 write (None, 1) -> (1, 1)  0..9\n 1 read -> (0, None)  0..9",
        "0 write (None, 1) -> (1, 1)  0..9\n 1 write (None, 2) -> (1, 2)  0..9",
    ),
    "multi-register": (
        "0 txn (('w', 'x', 1), ('w', 'y', 1))  0..9\n 1 txn (('r', 'x', None), ('r', 'y', None)) -> (('r', 'x', 1), ('r', 'y', 1))  5..9",
        "0 txn (('w', 'x', 1), ('w', 'y', 1))  0..9\n1 txn (('r', 'x', None), ('r', 'y', None)) -> (('r', 'x', 1), ('r', 'y', None))  5..9",
    ),
    "kv-append": (
        "0 append 'a'  0..9\n 1 append 'b'  0..9\n 2 get -> 'ba'  10..19",
        "0 append 'a'  0..9\n 1 append 'b'  10..19\n 2 get -> 'ba'  20..29",
    ),
    "counter": ("0 add 2  0..9\n 1 read -> 2  5..19\n 2 read -> 0  0..6", "0 add 2  0..9\n 1 add 1  0..9\n 2 read -> 1  10..19"),
    "set": (
        "0 add 1  0..9\n 1 contains 1 -> True  5..9\n 1 contains 1 -> False  0..5",
        "0 add 1  0..9\n 1 add 2  10..19\n 2 read -> (2,)  20..29",
    ),
    "fifo-queue": (
        "0 enqueue 1  0..9\n 1 enqueue 2  0..9\n 2 dequeue -> 2  10..19",
        "0 enqueue 1  0..9\n 1 enqueue 2  10..19\n 2 dequeue -> 2  20..29",
    ),
    "stack": ("0 push 1  0..9\n 1 push 2  0..9\n 2 pop -> 1  10..19", "0 push 1  0..9\n 1 push 2  10..19\n 2 pop -> 1  20..29"),
    "mutex": ("0 acquire  0..9\n 0 release  10..19\n 1 acquire  10..19", "0 acquire  0..9\n 1 acquire  10..19"),
    "fenced-lock": (
        "0 acquire -> 4  0..9\n 0 release 4  10..19\n 1 acquire -> 5  0..19",
        "0 acquire -> 4  0..9\n 0 release 4  10..19\n 1 acquire -> 3  20..29",
    ),
    "list-append": (
        "0 txn (('append', 'x', 1),)  0..9\n 1 txn (('r', 'x', None),) -> (('r', 'x', (1,)),)  0..9",
        "0 txn (('append', 'x', 1),)  0..9\n 1 txn (('r', 'x', None),) -> (('r', 'x', None),)  10..19",
    ),
}
"""A legal and an illegal history of every ready model."""


@pytest.mark.parametrize("model", READY)
def test_every_ready_model_judges(model: str) -> None:
    """Each model, named or guessed, lets the legal history hold and finds exactly NOT-LINEARIZABLE in the illegal one."""
    legal, illegal = (history(text) for text in SAMPLES[model])
    for engine in ("reference", "generic"):
        assert pekan.check(legal, model=model, engine=engine).verdict == "holds"
        assert pekan.check(illegal, model=model, engine=engine).codes == ("NOT-LINEARIZABLE",)
    assert pekan.check(legal, model=model).verdict == "holds"
    verdict = pekan.check(illegal, model=model)
    assert verdict.codes == ("NOT-LINEARIZABLE",)
    assert pekan.check(illegal).findings == verdict.findings or model in ("register", "mutex", "fenced-lock")


def test_a_core_is_small_and_says_why() -> None:
    """Of a long history with one stale read the finding shows three operations, and how every order of them ends."""
    before = "\n".join(f"0 write {10 + i}  {i * 10}..{i * 10 + 5}\n 1 read -> {10 + i}  {i * 10 + 6}..{i * 10 + 9}" for i in range(30))
    after = "0 write 1  1000..1010\n 1 write 2  1020..1030\n 2 read -> 1  1040..1050\n 0 write 3  1060..1070"
    text = f"{before}\n{after}"
    (finding,) = pekan.check(history(text), engine="generic").findings
    assert finding.code == "NOT-LINEARIZABLE"
    assert finding.subject.pop("prefix")[-3:] == [59, 60, 61]
    assert finding.subject == {"model": "register", "operations": [60, 61, 62], "last": 62, "explained": 62}
    assert [exhibit.operation for exhibit in finding.certificate] == [60, 61, 62]
    assert "Operation 62 was called after operation 61 had returned." in finding.explanation
    assert "Of these alone, after operations 60, 61 the object is 2: operation 62 (read -> 1) cannot come next." in finding.explanation
    assert finding.shape == ("register", "write", "write", "read")
    (monitored,) = pekan.check(history(text)).findings
    assert (monitored.code, monitored.subject["operations"]) == ("NOT-LINEARIZABLE", [60, 61, 62])
    assert "Each value was written once, so none of them can come back after the other." in monitored.explanation


def test_what_was_refused_is_no_explanation() -> None:
    """A value that only a failed write asked for is a finding when it is read; what was never answered explains it."""
    for engine in ("auto", "generic"):
        (finding,) = pekan.check(history("0 write 1  0..9 failed\n 1 read -> 1  10..19"), engine=engine).findings
        assert finding.code == "NOT-LINEARIZABLE"
        assert "was refused: it must not have had an effect" in finding.explanation
        assert any(exhibit.what == "operation 0, process 0, 0..9: write 1 -> refused" for exhibit in finding.certificate)
    assert pekan.check(history("0 write 1  0..?\n 1 read -> 1  10..19")).verdict == "holds"
    assert pekan.check(history("0 write 1  5..?\n 1 read -> 1  0..4")).codes == ("NOT-LINEARIZABLE",)


def test_times_that_touch_are_concurrent() -> None:
    """Intervals are closed: what ends when another begins may stand behind it."""
    assert pekan.check(history("0 write 1  0..10\n 1 read -> None  10..20")).verdict == "holds"
    assert pekan.check(history("0 write 1  0..9\n 1 read -> None  10..20")).verdict == "broken"


def test_independent_keys_are_judged_alone() -> None:
    """Each key is an object of its own; the finding names the one that is broken."""
    verdict = pekan.check(history("0 write@a 1  0..9\n 1 write@b 2  0..9\n 2 read@a -> 1  10..19\n 2 read@b -> 1  20..29"))
    assert [finding.subject["key"] for finding in verdict.findings] == ["b"]
    assert verdict.checkers[0].judged == {"objects": 2, "parts": 2, "operations": 4}


def test_parts_that_share_nothing_are_judged_alone() -> None:
    """Transactions fall apart into those that are connected by keys, over however many steps."""
    text = """
        0 txn (('w', 'a', 1), ('w', 'b', 1))   0..9
        0 txn (('w', 'b', 2), ('w', 'c', 1))   10..19
        1 txn (('w', 'd', 1),)                 0..9
        1 txn (('r', 'd', None),) -> (('r', 'd', 1),)   10..19
        1 txn ()   20..29
    """
    assert pekan.check(history(text)).checkers[0].judged == {"objects": 1, "parts": 3, "operations": 5}


def test_initial_value() -> None:
    """An object begins unset unless the history declares what it holds."""
    text = "0 read -> 7  0..9\n 0 write 1  10..19"
    assert pekan.check(history(text)).verdict == "broken"
    assert pekan.check(history(text, initial=7)).verdict == "holds"
    with pytest.raises(UsageError, match="declares the initial value 7"):
        pekan.check(history("0 acquire  0..9", initial=7))


def test_the_file_names_the_model() -> None:
    """What the history says about itself goes before what its calls look like, and the option before both."""
    text = "0 add 1  0..9\n 0 read -> (1,)  10..19"
    assert pekan.check(history(text)).verdict == "holds"
    with pytest.raises(UsageError, match="read answers a number"):
        pekan.check(history(text, model="counter"))
    assert pekan.check(history(text, model="counter"), model="set").verdict == "holds"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("0 open  0..9", {}, "say --model, one of register"),
        ("0 write 1  0..9", {"model": "set"}, "operation 0 is 'write'; a set knows add, remove, contains, read"),
        ("0 write 1  0..9", {"model": "etcd"}, "--model etcd: this is no history of that"),
        ("0 cas 3  0..9", {"model": "cas-register"}, r"operation 0, cas 3 -> 3, is none of a cas-register: cas takes \[expected new\]"),
        ("0 write 1  0..9", {"model": "regster"}, "--model regster: not known; choose from register"),
    ],
)
def test_usage(text: str, options: dict[str, Any], message: str) -> None:
    """A history that no model fits is a usage error that says what fits."""
    with pytest.raises(UsageError, match=message):
        pekan.check(history(text), **options)


class Door(Model):
    """A model as a user writes one."""

    name = "door"

    def init(self) -> str:
        return "shut"

    def step(self, state: str, call: Called, output: Any) -> Any:
        wanted = "open" if call.f == "open" else "shut"
        return wanted if state != wanted else ILLEGAL


def test_a_model_of_ones_own() -> None:
    """Any `Model` judges, without hints."""
    assert pekan.check(history("0 open  0..9\n 1 shut  5..14\n 0 open  10..19"), model=Door()).verdict == "holds"
    verdict = pekan.check(history("0 open  0..9\n 1 open  10..19"), model=Door())
    assert verdict.codes == ("NOT-LINEARIZABLE",)
    assert verdict.findings[0].subject["model"] == "door"


class Broken(Door):
    def step(self, state: str, call: Called, output: Any) -> Any:
        raise RuntimeError("no such hinge")


def test_a_model_that_fails_says_where() -> None:
    """What a user's model raises comes through, with the call that it was asked about."""
    with pytest.raises(RuntimeError, match="no such hinge") as caught:
        pekan.check(history("0 open  0..9"), model=Broken())
    assert "step('shut', Call(f='open'" in caught.value.__notes__[0]


class Careless(Door):
    """Hints that are not true."""

    def readonly(self, call: Called, output: Any) -> bool:
        return True


class Listed(Model):
    """States without a hash."""

    def init(self) -> list[Any]:
        return []

    def step(self, state: list[Any], call: Called, output: Any) -> Any:
        return [*state, call.f]


class Keyed(Listed):
    def key(self, state: list[Any]) -> tuple[Any, ...]:
        return tuple(state)


def test_models_that_cannot_be() -> None:
    """A wrong hint and a state without a hash are told to whoever wrote the model."""
    with pytest.raises(UsageError, match="door says readonly of a call that changes a state: open None -> None"):
        pekan.check(history("0 open  0..9"), model=Careless())
    with pytest.raises(UsageError, match=r"a state of the model Listed has no hash .*: give the model a key"):
        pekan.check(history("0 open  0..9"), model=Listed())
    assert pekan.check(history("0 open  0..9"), model=Keyed()).verdict == "holds"


def test_undecided_names_its_bound() -> None:
    """A search without time to search says so, and what would help."""
    verdict = pekan.check(history("0 acquire  0..9\n 1 release  0..9", model="mutex"), budget=0.0)
    assert verdict.verdict in ("holds", "undecided")
    crowd = "\n".join(f"{i} write {i}  0..99\n {i} read -> {i}  100..199" for i in range(14))
    # Asked of the checker itself: a judge that comes to it late does not ask it any more, and says that instead.
    (undecided,) = check_objects(Case(history(crowd), Options(budget_s=0.05, model=CountedWrites()))).undecided
    assert "within 0.05 s" in undecided.reason


class CountedWrites(Model):
    """A register that never comes back to a state: nothing can be pruned."""

    def init(self) -> tuple[Any, ...]:
        return ()

    def step(self, state: tuple[Any, ...], call: Called, output: Any) -> Any:
        if call.f == "write":
            return (*state, call.value)
        return state if state and state[-1] == output else ILLEGAL


PER_PROCESS = """
    0  write 1      0..10
    1  write 2      20..30
    2  read -> 2    40..50
    2  read -> 1    60..70
"""


def test_processes_without_a_common_clock() -> None:
    """Where clocks are not shared only each process's own order counts: a history that real time forbids is sequential."""
    assert pekan.check(history(PER_PROCESS)).verdict == "broken"
    verdict = pekan.check(history(PER_PROCESS, order="per-process"))
    assert (verdict.verdict, verdict.order, verdict.engine) == ("holds", "per-process", "sequential (reference)")
    assert pekan.check(history(PER_PROCESS, order="per-process"), clock_skew="1ms").verdict == "holds"
    milliseconds = PER_PROCESS.replace("0 ", "0000000 ").replace("0..", "0000000..").replace("0\n", "0000000\n")
    assert pekan.check(history(milliseconds, order="per-process"), clock_skew="1ms").codes == ("NOT-SEQUENTIAL",)


def test_not_sequential() -> None:
    """Two processes that see two writes in different orders cannot be put in one, whatever the clocks say."""
    text = """
        0  write 1      0..9
        1  write 2      0..9
        2  read -> 1    10..19
        2  read -> 2    20..29
        3  read -> 2    10..19
        3  read -> 1    20..29
    """
    verdict = pekan.check(history(text, order="per-process"))
    assert verdict.codes == ("NOT-SEQUENTIAL",)
    (finding,) = verdict.findings
    assert finding.subject["operations"] == [2, 3, 4, 5]
    assert "Process 3 called operation 5 after operation 3." in finding.explanation
    assert "2 other operations may take effect at any time" in finding.explanation
    assert pekan.check(history(text.replace("3  read -> 1 ", "3  read -> 2 "), order="per-process")).verdict == "holds"


def test_orders_for_a_viewer() -> None:
    """Each object comes with a legal order of its operations, or the one that gets furthest, and what it is after each."""
    (legal,) = orders(history("0 write 1  0..9\n 1 read -> 1  5..19\n 1 read -> None  0..4")) or ()
    assert legal.orders == [[(1, "nil"), (0, "1"), (2, "1")]]
    (illegal,) = orders(history(STALE)) or ()
    assert illegal.orders == [[(0, "1"), (1, "2")]]
    assert orders(history("0 open  0..9")) is None


def test_what_the_reader_noted_is_told() -> None:
    """What a reader kept and did not use is among the verdict's notes."""
    assert pekan.check(history(STALE, notes=("3 lines were skipped",))).notes == ("3 lines were skipped",)


def test_an_empty_history_holds() -> None:
    """Nothing was asked, so nothing is broken."""
    assert pekan.check(history("", model="register")).verdict == "holds"
    assert pekan.check(history(""), model="register").checkers[0].judged == {"objects": 0, "parts": 0, "operations": 0}


def test_a_model_of_objects_judges_no_etcd() -> None:
    """Asking for a model of objects over a history of etcd's requests is a usage error, not a verdict by another judge."""
    clock = Clock()
    clock.op("m1", PutRequest(b"k", b"1"), PutResponse(header(2), None))
    with pytest.raises(UsageError, match="--model register: this is a history of etcd's requests"):
        pekan.check(History(tuple(clock.operations), start="empty"), model="register")
    with pytest.raises(UsageError, match="--model door"):
        pekan.check(History(tuple(clock.operations), start="empty"), model=Door())

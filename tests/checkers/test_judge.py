"""All checkers over one history: one verdict, what is allowed is a note, and nothing is judged that is not there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pekan
from pekan import native
from pekan.checkers.case import Options
from pekan.checkers.judge import CHECKERS, judge
from pekan.errors import UsageError
from pekan.history.types import History
from pekan.wire.messages import DeleteRangeRequest, PutRequest

from .building import Story, get


def broken() -> History:
    """A read that shows a value nobody wrote."""
    story = Story()
    story.put(b"a", b"1")
    story.get(b"a")
    read = story.operations[-1]
    (kv,) = read.output.kvs
    story.change(read, output=read.output._replace(kvs=(kv._replace(value=b"2"),)))
    return story.history()


def test_an_allowed_code_is_a_note() -> None:
    """--allow turns a finding into a note: it is still told, names the option, and no longer breaks."""
    strict = judge(broken(), Options())
    assert strict.verdict == "broken"
    code = strict.codes[0]
    lenient = judge(broken(), Options(allow=(code,)))
    assert lenient.verdict != "broken"
    assert [(f.code, f.status, f.because) for f in lenient.findings] == [(code, "allowed", f"--allow {code}")]


def test_an_unknown_code_cannot_be_allowed() -> None:
    """A misspelt code would silently allow nothing: it is refused."""
    with pytest.raises(UsageError, match="KV-CONTENTS"):
        judge(broken(), Options(allow=("KV-CONTENTS",)))


def test_every_checker_reports() -> None:
    """Each checker looks at every history and says whether there was something to judge."""
    story = Story(watched=True)
    story.put(b"a", b"1")
    story.do(PutRequest(b"b", b"2"))
    story.do(DeleteRangeRequest(b"a"))
    story.do(get(b"b"))
    verdict = pekan.check(story.history())
    named = ["kv", "members", "watch", "leases", "locks", "auth", "images", "snapshots", "run"]
    assert [report.name for report in verdict.checkers] == named
    assert len(verdict.checkers) == len(CHECKERS)
    assert not [f for f in verdict.findings if f.status == "counts"]
    assert {report.name for report in verdict.checkers if report.applicable} >= {"kv", "watch"}


@pytest.mark.parametrize("option", [{"model": "bank"}, {"format": "csv"}, {"engine": "warp"}, {"writers": "many"}, {"budget": "soon"}])
def test_an_option_that_makes_no_sense_is_named(option: dict[str, str]) -> None:
    """pekan.check refuses what it does not know, by the name of the option."""
    with pytest.raises(UsageError, match=next(iter(option))):
        pekan.check(broken(), **option)  # type: ignore[arg-type]


def test_a_history_in_memory_is_the_references() -> None:
    """The native engine holds record files; asked to judge anything else, the verdict says that the reference did, and why."""
    if native.core is None:
        pytest.skip(f"the native core is not there: {native.reason}")
    verdict = pekan.check(broken(), engine="native")
    assert verdict.engine == "reference"
    assert any("not in a record file" in note for note in verdict.notes)
    assert not pekan.check(broken()).notes


def test_without_the_core_the_native_engine_is_refused() -> None:
    """`engine="native"` where the core is not there is a matter of the machine; the message says what would make it possible."""
    script = (
        "import sys; sys.modules['pekan._native'] = None\n"
        "import pekan; from pekan.history import History\n"
        "try:\n    pekan.check(History(()), engine='native')\n"
        "except pekan.EnvironmentFailure as error:\n    print(error.exit_code, error)\n"
        "print(pekan.check(History(())).engine)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    refused, engine = done.stdout.splitlines()
    assert refused.startswith("4 --engine native: ")
    assert "install" in refused
    assert engine == "reference"


def test_a_budget_that_is_used_up_leaves_undecided() -> None:
    """What the time did not suffice for is not judged, and the verdict says so instead of holding."""
    story = Story()
    story.put(b"a", b"1")
    verdict = pekan.check(story.history(), budget=1e-9)
    assert verdict.verdict == "undecided"
    assert any("--budget" in reason.would_decide for reason in verdict.undecided)

"""#20221, the first half: progress is announced to a watch that has not begun.

::

    store            4                                              watch from 1004 of a client that was at 1003 elsewhere
    notification     "progress 4"  ──> client: I have everything up to 4
    disconnected                   ──> resumes from 5                 and is given 5 to 1003 once more
"""

from __future__ import annotations

from pekan.errors import UsageError
from pekan.issues.issue import Boundary, Issue, Recipe, numbered
from pekan.plan import Lane, Plan, Step
from pekan.verdict import Finding

AHEAD = 1_000
INTERVAL_MS = 100
"""The shortest interval of notifications that etcd takes; it is ten minutes by default."""


def _recipe(version: str) -> Recipe:
    if numbered(version) < (3, 4, 11):
        raise UsageError(f"#20221 on etcd {version}: before 3.4.11 the interval of notifications is ten minutes and cannot be set")
    future = {"key": "k", "start_revision": {"reply": "written.header.revision", "plus": AHEAD}, "progress_notify": True}
    steps = (
        Step("Put", {"key": "k", "value": "{n}"}, name="written", times=3, answer="ok"),
        Step("watch", future, name="watch", answer="ok"),
        # Ten intervals, for a machine that has other things to do.
        Step("nothing", times=2, every_ms=10 * INTERVAL_MS),
        Step("Put", {"key": "k", "value": "last"}, answer="ok"),
    )
    flags = (("watch-progress-notify-interval", f"{INTERVAL_MS}ms"),)
    lane = Lane("client", "m1", steps)
    return Recipe(Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=10_000, flags=flags, script=(lane,)))


def _about(finding: Finding) -> bool:
    return finding.shape[:1] == ("progress",)


ISSUE = Issue(
    name="20221",
    title="progress below its start is announced to a watch from a future revision",
    guarantee="a watch says nothing of what lies before its start",
    shows_as="progress notifications at revisions before the one that the watch was asked to begin with",
    story="""\
A watch may begin at a revision that the member does not have yet. That is no oddity: a client that was connected to one member and is
now connected to another that lags asks for "what comes after 1003" of a store that stands at 4. The watch has to wait, and to say nothing
until the store has come so far.

Members keep such a watch among those that are up to date, for there is nothing to catch up with, and whoever is up to date is sent progress
notifications with the store's revision: "you have everything up to 4". What the client knew better, it has now been told otherwise. Client
libraries write the announced revision down as the place to resume from. When the connection breaks the watch resumes from 5, and events
that the client has had from the other member, or never asked for, come a second time. A cache goes back in time, as in #15271.

The fix keeps the revision asked for with each watch, and sends no notification below it. This is one half of the issue; #20221-snapshot
is the other one.

Here a watch asks for a revision that is far ahead, with notifications every 100 ms.
""",
    introduced="",
    boundaries=(Boundary("3.4.37", "3.4.38"), Boundary("3.5.21", "3.5.22"), Boundary("3.6.1", "3.6.2")),
    codes=("WATCH-START",),
    run=_recipe,
    about=_about,
    links=("https://github.com/etcd-io/etcd/issues/20221", "https://github.com/etcd-io/etcd/pull/20229"),
)

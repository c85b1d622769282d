"""#15271: a watch at a follower that receives a snapshot goes back in time, and tells everything since its start again.

::

    watch from 7      7 8 9                    ── the member receives a snapshot ──          7 8 9 10 11 12
                      synced: new events are                                    every watch is unsynced again, and what it
                      handed to it as they come                                 has been told is not written down anywhere
"""

from __future__ import annotations

from pekan.issues import behind
from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.plan import Lane, Plan, Step, Trigger
from pekan.verdict import Finding

FOLLOWER = "m2"


def _recipe(version: str) -> Recipe:
    put = {"key": "watched", "value": "{n}"}
    client = Lane(
        "client",
        "m1",
        (
            Step("lead", answer="ok"),
            Step("Put", put, name="written", times=5, answer="ok"),
            Step("Put", put, name="watched", times=3, answer="ok", wait=Trigger(step="watching")),
            behind.leave_behind(version, "behind", wait=Trigger(after="isolate")),
            Step("Put", put, times=3, answer="ok", wait=Trigger(step="restored")),
        ),
    )
    watcher = Lane(
        "watcher",
        FOLLOWER,
        (
            Step("watch", {"key": "watched"}, name="watching", answer="ok", wait=Trigger(step="written")),
            # Its answer shows that the follower has applied the three writes, and so has handed them to the watch.
            Step("Range", {"key": "watched"}, name="seen", answer="ok", wait=Trigger(step="watched")),
            Step("nothing", name="restored", wait=Trigger(log="applied snapshot")),
        ),
    )
    plan = Plan(etcd="", seed=0, members=3, workloads=("script",), time_ms=60_000, flags=behind.flags(version), script=(client, watcher))
    return Recipe(plan, (f"isolate {FOLLOWER} on step seen until step behind",))


def _about(finding: Finding) -> bool:
    return finding.subject.get("member") == FOLLOWER


ISSUE = Issue(
    name="15271",
    title="a watch at a member that receives a snapshot delivers its events a second time",
    guarantee="the events of a watch come in the order of their revisions, and each comes once",
    shows_as="a watch goes back in time: events that it has delivered long ago come again, after newer ones",
    story="""\
A member keeps its watches in two groups. *Synced* ones have seen everything there is: a new event is handed to them as it is written.
*Unsynced* ones have to catch up: the member reads the store's history from the watch's next revision on, delivers it and moves the watch to
the other group. That next revision is a field of the watch, and only catching up used it. While a watch was synced nobody touched it, so it
still named the revision at which the watch had been opened, or had last caught up.

A follower that has been away for too long is not sent the log it has missed but a snapshot, a copy of the leader's whole database. It
replaces its store by that, and all of its watches become unsynced, because the copy is newer than what they have seen. Now the old field is
believed: a watch that was opened a week ago is told the whole week again, up to a thousand revisions at a time.

A client that keeps a cache by a watch, as every Kubernetes controller does, puts old values over new ones, brings deleted keys back to life
and deletes them again: for a while it acts on a past that is over. The fix writes the revision down whenever an event is handed over.

Here a watch is opened on one follower of three and sees three writes. The follower is then cut off from the others until the leader has no
log for it any more. The link is mended, the snapshot comes, and three further writes let the watch speak.
""",
    introduced="",
    boundaries=(Boundary("3.4.24", "3.4.25"), Boundary("3.5.7", "3.5.8")),
    codes=("WATCH-ORDERED", "WATCH-UNIQUE"),
    run=_recipe,
    about=_about,
    links=("https://github.com/etcd-io/etcd/issues/15271", "https://github.com/etcd-io/etcd/pull/15492"),
)

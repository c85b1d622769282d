"""#20221, the second half: a watch from a future revision delivers older events once its member has received a snapshot.

::

    follower     4  ── the watch from 1,000,000 waits ──  receives a snapshot at 5300      5301 5302 5303
    the watch    begins at 1,000,000                      begins at 5301                   delivered, all three
"""

from __future__ import annotations

from pekan.issues import behind
from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.plan import Lane, Plan, Step, Trigger
from pekan.verdict import Finding

FOLLOWER = "m2"
FAR = 1_000_000


def _recipe(version: str) -> Recipe:
    put = {"key": "watched", "value": "{n}"}
    client = Lane(
        "client",
        "m1",
        (
            Step("lead", answer="ok"),
            Step("Put", put, name="written", times=3, answer="ok"),
            behind.leave_behind(version, "behind", wait=Trigger(after="isolate")),
            # A watch is moved by a round that runs every 100 ms, and shows it only with what is written afterwards.
            Step("Put", put, times=5, every_ms=100, answer="ok", wait=Trigger(step="restored")),
        ),
    )
    watcher = Lane(
        "watcher",
        FOLLOWER,
        (
            Step("watch", {"key": "watched", "start_revision": FAR}, name="waiting", answer="ok", wait=Trigger(step="written")),
            Step("nothing", name="restored", wait=Trigger(log="applied snapshot")),
        ),
    )
    plan = Plan(etcd="", seed=0, members=3, workloads=("script",), time_ms=60_000, flags=behind.flags(version), script=(client, watcher))
    return Recipe(plan, (f"isolate {FOLLOWER} on step waiting until step behind",))


def _about(finding: Finding) -> bool:
    return finding.shape[:1] == ("event",) and finding.subject.get("member") == FOLLOWER


ISSUE = Issue(
    name="20221-snapshot",
    title="a watch from a future revision delivers earlier events after its member has received a snapshot",
    guarantee="a watch delivers nothing below the revision at which it was asked to begin",
    shows_as="events of revisions long before the start of the watch",
    story="""\
A watch may begin at a revision that its member does not have yet; #20221 tells who asks for that. The member notes the next revision that
the watch is to be given, and hands it events from there on.

A follower that has been away for too long receives a snapshot: a copy of the leader's database in place of its own. All watches are then
looked through by the round that catches watches up, because what they have seen may be older than the copy. For each it finds out what is
missing, and notes "from now on: what comes after the store's revision". For a watch that waits for the future nothing is missing, and
the same note is made: its own, far higher next revision is overwritten by one that lies before it. From then on it delivers everything.

To the client these are events that it has had before, from the member to which it was connected then. It applies them to a cache that is
ahead of them. The fix never lowers a watch's next revision.

Here a follower of three is cut off while a watch from revision 1,000,000 waits on it, until only a snapshot helps; then the link is mended
and five writes let the watch speak.
""",
    introduced="",
    boundaries=(Boundary("3.4.37", "3.4.38"), Boundary("3.5.21", "3.5.22"), Boundary("3.6.1", "3.6.2")),
    codes=("WATCH-START",),
    run=_recipe,
    about=_about,
    links=("https://github.com/etcd-io/etcd/issues/20221", "https://github.com/etcd-io/etcd/pull/20281"),
)

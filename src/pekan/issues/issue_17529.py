"""#17529: a watch whose cancellation finds no room in a full queue goes on instead, without the events that it should have ended for.

::

    compaction at 21                              500 watches from 2: all of them have to be cancelled, "compacted at 21"

    round of catching up, 500 watches             the stream's queue, room for 128
      watch 1 .. 128    cancelled ──────────────> ████████████████
      watch 129 .. 500  no room: "next time"      full
                        and, all the same, marked as up to date: next revision 22

    put at 22: watches 129 .. 500 deliver it, and have silently lost 2 to 21
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.plan import Lane, Plan, Step

WATCHES = 500
"""Fewer than a round takes, and several times what the queue has room for. A member creates some hundred between two rounds."""
ROUNDS_MS = 500


def _recipe(version: str) -> Recipe:
    steps = (
        Step("Put", {"key": "k", "value": "{n}"}, name="written", times=20, answer="ok"),
        Step("Compact", {"revision": {"reply": "written.header.revision"}, "physical": True}, answer="ok"),
        Step("watch", {"key": "k", "start_revision": 2, "watches": WATCHES}, name="watches", timeout_ms=10_000, answer="ok"),
        Step("nothing", times=2, every_ms=ROUNDS_MS),
        Step("Put", {"key": "k", "value": "after {n}"}, times=3, answer="ok"),
    )
    return Recipe(Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=30_000, script=(Lane("client", "m1", steps),)))


ISSUE = Issue(
    name="17529",
    title="watches on a busy stream lose events across a compaction, and are not told",
    guarantee="a watch never drops an event: where it cannot deliver one that is compacted away, it is cancelled",
    shows_as="gaps in what a watch delivers, without a cancellation",
    story="""\
What a watch has not been given when its history is compacted away can never be given to it. The promise is that such a watch is cancelled
with a message that says so, upon which its client reads everything anew.

All watches of one stream share a queue of messages with room for 128. While the network or the client is slower than the events, the queue
is full, and watches fall behind: they are *unsynced*, and a round that runs every 100 ms takes up to 512 of them, reads the history and
tries again. Of a watch that has fallen behind a compaction that round puts the cancellation into the queue. If there was no room it left
the watch alone, for the next round to try again. But at its end the same round sets the next revision of every watch it had looked
at to the one after the newest, and marks those for which it had read no events as synced; that watch among them. There was
no next try. It then delivers what is written from now on, and neither its client nor anybody else learns of what lies in between.

It takes many watches on one connection that is slow, and compactions: a large Kubernetes cluster during an outage, which is where
it was found, with controllers that had missed deletions of pods. The fix skips a watch that could not be told until it can.

Here no slow client is needed. Five hundred watches on one stream begin at a revision that is compacted away, so that each has to be
cancelled, and a round comes by more of them than the queue has room for. Three writes afterwards show which ones live on.
""",
    introduced="",
    boundaries=(Boundary("3.4.30", "3.4.31"), Boundary("3.5.12", "3.5.13")),
    codes=("WATCH-RESUMABLE", "WATCH-RELIABLE"),
    run=_recipe,
    links=("https://github.com/etcd-io/etcd/issues/17529", "https://github.com/etcd-io/etcd/pull/17612"),
)

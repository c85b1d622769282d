"""#15220: the answer to a request for progress overtakes the events that it claims to have delivered.

::

    client                      member                              the stream's two ways out
    watch from 2  ────────────> 20 events to catch up with ───────> events, when the next round comes (100 ms)
    progress?     ────────────> the store is at revision 21 ──────> replies to requests, at once

    received: "progress 21", then the events of revisions 2 to 21
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.plan import Lane, Plan, Step


def _recipe(version: str) -> Recipe:
    steps = (
        Step("Put", {"key": "k", "value": "{n}"}, times=20, answer="ok"),
        # Three streams: one round of catching up may fall between the two requests of one of them.
        Step("watch", {"key": "k", "start_revision": 2, "progress": 1}, name="watch", times=3, answer="ok"),
    )
    return Recipe(Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=10_000, script=(Lane("client", "m1", steps),)))


ISSUE = Issue(
    name="15220",
    title="a requested progress notification comes before events that it says have been delivered",
    guarantee="a progress notification at a revision promises that every event up to it has been delivered",
    shows_as="events at or below a revision that had been announced as complete",
    story="""\
A watch that has nothing to deliver says nothing, so its client cannot tell "nothing happened" from "I am behind". A *progress notification*
tells: everything up to revision R has been delivered. Members send them every ten minutes, and at once when a client asks.

What a member sends on a watch's stream comes from two queues. Events are in one, together with periodic notifications, so that those keep
their order. Replies to requests (watch created, watch cancelled) are in the other one, and so was the answer to a request for progress: it
named the store's revision of that moment without looking at what the watches of the stream had still to be given. A watch that begins in
the past is caught up by a round that runs every 100 ms. Asked for progress before that, the member announced the newest revision to a watch
that had received nothing at all.

A client that believes it has lost all of those events: if its connection breaks now, it resumes behind them. Kubernetes' apiserver uses
just this request to answer consistent reads from its cache; with this bug it would answer from a cache that has not caught up.
The fix sends the answer by way of the events, and only where all watches of the stream are up to date.

Here twenty versions of a key are written, and a watch from the first of them is followed by a request for progress on the same stream.
""",
    introduced="",
    boundaries=(Boundary("3.4.24", "3.4.25"), Boundary("3.5.7", "3.5.8")),
    codes=("WATCH-BOOKMARKABLE",),
    run=_recipe,
    links=("https://github.com/etcd-io/etcd/issues/15220", "https://github.com/etcd-io/etcd/pull/15237"),
)

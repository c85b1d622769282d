"""#20418 once more, by faults that know nothing of raft: three directed links that are slow, late, cut and held.

::

    m3 ──▏──▏──▏──▏──> m1     four messages a second of ten that are sent: answers age, and none is missing
    m2 ─── ─── ─── ──> m1     0.2 s late
         asked  +0.2 it arrives, its heartbeats leave   +0.3 all that m1 says is lost   +0.4 m2's answer: A is confirmed, nobody hears it
                +0.5 m2 asks again                      +0.6 m2's link is held          ... and let go, a message a second, after the read
"""

from __future__ import annotations

from pekan.issues import issue_20418
from pekan.issues.issue import Issue, Recipe
from pekan.issues.issue_20418 import ASKER, OLD_LEADER, THIRD
from pekan.plan import Lane, Plan, Step, Trigger

AGEING_MS = 3_000
"""After so long the third member's answers are two seconds old, and go on ageing: the one that matters is five seconds on its way, which an
election (1 to 2 s), a write, a read and two messages of the asker's slow link come before."""
LATE_MS = 200
STEP_MS = 300
"""From the question to the cut, and from the cut to the hold. The cut has to come between one and two ways of the asker's link after the
question, the hold after the last answer has arrived and before the second question does (500 ms and one way): 100 ms of room each."""


def _recipe(version: str) -> Recipe:
    client = Lane(
        "client",
        OLD_LEADER,
        (
            Step("lead", answer="ok"),
            Step("Put", {"key": "k", "value": "old"}, name="old", answer="ok"),
            Step("Put", {"key": "k", "value": "new"}, name="new", member=THIRD, answer="ok", wait=Trigger(log="elected leader")),
            Step("Range", {"key": "k"}, timeout_ms=8_000),
            Step("nothing", name="end"),
        ),
    )
    asker = Lane(
        "asker",
        ASKER,
        (
            Step("nothing", name="aged", times=2, every_ms=AGEING_MS, wait=Trigger(after="rate")),
            Step("Range", {"key": "k"}, timeout_ms=3_000),
        ),
    )
    clock = Lane(
        "clock",
        ASKER,
        (
            Step("nothing", name="asked", times=2, every_ms=STEP_MS, wait=Trigger(step="aged")),
            Step("nothing", name="asked-again", times=2, every_ms=STEP_MS),
            Step("nothing", name="queued", times=2, every_ms=STEP_MS, wait=Trigger(step="new")),
        ),
    )
    plan = Plan(etcd="", seed=0, members=3, workloads=("script",), time_ms=60_000, script=(client, asker, clock))
    return Recipe(
        plan,
        (
            f"rate {OLD_LEADER} direction=in peer={THIRD} messages=4 on step old until step end",
            f"delay {OLD_LEADER} direction=in peer={ASKER} delay_ms={LATE_MS} on step old until step end",
            f"isolate {OLD_LEADER} direction=out on step asked until step end",
            f"hold {OLD_LEADER} direction=in peer={ASKER} on step asked-again until step queued",
            f"rate {OLD_LEADER} direction=in peer={ASKER} messages=1 on step asked-again until step end",
        ),
    )


ISSUE = Issue(
    name="20418-links",
    title="a leader that has been deposed and does not know it answers a read, by slow links alone",
    guarantee=issue_20418.ISSUE.guarantee,
    shows_as=issue_20418.ISSUE.shows_as,
    story="""\
What happens inside is told in #20418: a follower's second request under the first one's name, and a late answer to the first, confirm a
read that a client has sent to a deposed leader. There single messages are held back by their kind. Networks do not know kinds. What they do
is to be slow in one direction and to lose the other, and that is enough.

The third member's link to the leader takes four messages a second of the ten that are sent. Nothing is lost and nothing is silent, but what
arrives becomes older and older; it keeps the leader in office for five seconds after it has been cut off, and the answer that matters is
among it. The asker's link is 0.2 s late, which leaves the time to cut the leader's own links between its heartbeat and its answer. After
that the asker's link is held, with its second request on it, and let go slowly when a new leader has acknowledged a write and a client has
asked the old one.

SIGSTOP and cuts in both directions did not meet this in fifty attempts: a link that is silent deposes the leader.
""",
    introduced=issue_20418.ISSUE.introduced,
    boundaries=issue_20418.ISSUE.boundaries,
    codes=issue_20418.ISSUE.codes,
    run=_recipe,
    about=issue_20418.ISSUE.about,
    links=issue_20418.ISSUE.links,
)

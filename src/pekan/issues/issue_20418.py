"""#20418: a follower's read request that is sent again can confirm somebody else's read, at a leader that has been deposed.

::

    follower        leader                      a third member
    ────────        ──────                      ──────────────
    index? (A) ───> heartbeat (A) ────────────> answer (A) ──────────────┐ late
          x──────── A is confirmed                                       │
    index? (A) ──┐  ═══════ cut off ═══════     elected, writes "new"    │       the write is acknowledged
                 │  read B: heartbeat (B)                                │       a client asks the old leader
                 └> heartbeat (A)               queue: B, A              │
                    A is confirmed, and with it all before it: B <───────┘       B is answered "old"
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.plan import Lane, Plan, Step, Trigger
from pekan.verdict import Finding

OLD_LEADER, ASKER, THIRD = "m1", "m2", "m3"
LATE = "4s"
"""By how much the third member's answers are late. They keep the old leader in office for so long after it has been cut off: longer than an
election (1 to 2 s), a write and a read take."""
LATE_MS = 4_000
ELECTED = Trigger(log="elected leader")


def _recipe(version: str) -> Recipe:
    client = Lane(
        "client",
        OLD_LEADER,
        (
            Step("lead", answer="ok"),
            Step("Put", {"key": "k", "value": "old"}, name="old", answer="ok"),
            # Until the first of the late answers comes: from then on there are always some on their way.
            Step("nothing", name="answers-are-late", times=2, every_ms=LATE_MS + 200, wait=Trigger(after="messages")),
            # The put goes to the new leader, whoever of the two that is.
            Step("Put", {"key": "k", "value": "new"}, name="new", member=THIRD, timeout_ms=2_000, answer="ok", wait=ELECTED),
            Step("Range", {"key": "k"}, timeout_ms=6_000),
            Step("nothing", name="end"),
        ),
    )
    asker = Lane("asker", ASKER, (Step("Range", {"key": "k"}, timeout_ms=3_000, wait=Trigger(step="answers-are-late")),))
    # A while after the client has sent its read to the old leader, which takes a millisecond to get into its queue.
    queue = Lane("queue", OLD_LEADER, (Step("nothing", name="queued", times=2, every_ms=300, wait=Trigger(step="new")),))
    plan = Plan(etcd="", seed=0, members=3, workloads=("script",), time_ms=60_000, script=(client, asker, queue))
    late = f"peer={THIRD} kind=MsgHeartbeatResp action=delay delay_ms={LATE}"
    return Recipe(
        plan,
        (
            f"messages {OLD_LEADER} direction=in {late} on step old until step end",
            f"messages {OLD_LEADER} direction=out peer={ASKER} kind=MsgReadIndexResp action=drop on step answers-are-late until step end",
            f"messages {OLD_LEADER} direction=in peer={ASKER} kind=MsgReadIndex action=hold after messages#2 until step queued",
            f"messages {OLD_LEADER} kind=any action=drop after messages#3 until step end",
        ),
    )


def _about(finding: Finding) -> bool:
    return finding.subject.get("member") == OLD_LEADER


ISSUE = Issue(
    name="20418",
    title="a leader that has been deposed and does not know it answers a read",
    guarantee="a read returns what had been acknowledged when it began",
    shows_as="a linearizable read returns an old value, after a newer one has been acknowledged",
    story="""\
Before a member answers a linearizable read it has to learn how far the log had been committed when the read began, the *read index*. A
leader knows the number, but not whether it still leads: it sends a heartbeat that carries the request's name, and when a majority has
answered with that name, it led at that time. A follower asks its leader, which does the same on its behalf. Requests wait in a queue in
order of arrival, and when one is confirmed, all before it are: whoever led when a later request came did so when the earlier ones came.

A follower that hears nothing asks again after half a second. From 3.4.20 and 3.5.0 on it asked under the same name. Then the name stands
for two requests, and an answer to the first one's heartbeat confirms the second one, which nobody had asked for yet when that answer was
given. The second one itself is harmless; what waits in the queue before it is not. The leader has been cut off and another one has been
elected, which acknowledged a write; a client that cannot know of it asks the old one, and its read takes its place in the queue. Now the
follower's second request arrives, late, and then an answer of its first heartbeat, later still. The old leader believes that it leads, and
answers the client with what was true before the write.

Networks that hold messages back and processes that are paused do this; it was found by tests that pause them at random. Since 3.4.42,
3.5.28 and 3.6.9 each attempt has a name of its own.

Here answers of the third member are four seconds late, which keeps the old leader in office for so long. The follower's first request is
confirmed, the answer to it is lost, and its second one is held. Then nothing reaches the old leader or leaves it but what is on its way.
The others elect a leader and acknowledge a write, the old one is asked for the key, and the second request is let go. The late answer
follows by itself.
""",
    introduced="3.4.20",
    boundaries=(Boundary("3.4.41", "3.4.42"), Boundary("3.5.27", "3.5.28"), Boundary("3.6.8", "3.6.9")),
    codes=("KV-REAL-TIME",),
    run=_recipe,
    about=_about,
    links=("https://github.com/etcd-io/etcd/issues/20418", "https://github.com/etcd-io/etcd/pull/21399"),
)

"""#17247: a watch of old revisions gets an event twice, from a write buffer that was not as empty as it looked."""

from __future__ import annotations

from pekan.issues.issue import Issue, Recipe
from pekan.plan import Lane, Plan, Step

KEY = "k"
COMMIT_EVERY_MS = 1_000
"""The batch interval: nothing but what the script asks for may commit between the puts and the watch. At etcd's default of 100 ms the timer
gets in between in one run of three."""
PUTS = 4
"""All in one batch: the second one's slot of the buffer is the one that comes back, and which of them it is does not matter."""
OLD_REVISION = 2


def run(version: str) -> Recipe:
    """The same for every build."""
    steps = (
        # Not waited for: what it commits comes long before the batch that matters.
        Step("Put", {"key": KEY, "value": "first"}, answer="ok"),
        Step("nothing", times=2, every_ms=COMMIT_EVERY_MS * 13 // 10),
        Step("Put", {"key": KEY, "value": "{n}"}, times=PUTS, answer="ok"),
        # Each forces a commit. The first hands the batch over; the second, with nothing written between, brings the stale slot back.
        Step("Hash", times=2, answer="ok"),
        # A write outside the bucket of keys.
        Step("LeaseGrant", {"TTL": 60}, answer="ok"),
        Step("watch", {"key": KEY, "start_revision": OLD_REVISION}, name="old", answer="ok"),
    )
    plan = Plan(
        etcd="",
        seed=0,
        members=1,
        workloads=("script",),
        time_ms=30_000,
        flags=(("backend-batch-interval", f"{COMMIT_EVERY_MS}ms"),),
        script=(Lane("a", "m1", steps),),
    )
    return Recipe(plan)


ISSUE = Issue(
    name="17247",
    title="a watch of old revisions gets one event twice",
    guarantee="unique: a watch never delivers the same event twice",
    shows_as="an event with a revision that the same watch has delivered before",
    story="""\
etcd collects writes in a write buffer and commits them to its database in batches. What is committed moves to a read buffer, so that reads
need not wait for the database; a read looks at the database and at the buffer, and neither may hold what the other holds.

A change of January 2024 (#17228) made the move cheaper: an empty write buffer was to be skipped instead of copied. It gave an empty buffer
the length 1, and the one slot in it was what the batch before had left there. So after a commit with nothing to commit, a pair of the batch
before came back into the read buffer, though it was in the database long since. Whoever reads a range of revisions from there finds that
pair twice. A watch of old revisions does, and delivers its event twice.

The run makes that moment: several puts in one batch, two commits with no write between (Hash forces one each), a write outside the bucket
of keys, and a watch of old revisions before the next commit.

The change was on the main branch from 12 to 19 January 2024, when it was reverted (#17285). No release has it: the run needs a binary built
from that week, for example from commit e3c70c8a9.""",
    introduced="",
    boundaries=(),
    codes=("WATCH-UNIQUE",),
    run=run,
    links=(
        "https://github.com/etcd-io/etcd/issues/17247",
        "https://github.com/etcd-io/etcd/pull/17228",
        "https://github.com/etcd-io/etcd/pull/17285",
    ),
    not_released="it was on the main branch for a week of January 2024 and reverted before any release: give a binary built from commit "
    "e3c70c8a9 (--etcd PATH)",
)

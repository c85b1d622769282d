"""#14685: a defragmentation commits data without the index that belongs to it, and after a crash entries are applied a second time.

::

    applied          1 2 3 4 5 6 7 8 9          in the database's batch, with the index 9 to be committed beside them
    Defragment       commit ────────── copy into a new file ── rename
                     │ the data of 9     └─ x  a crash here leaves the old file: data of 9 entries, index of the batch before
                     └ no hook: the index on disk stays 3
    the next start   applies 4 5 6 7 8 9 again
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.plan import Lane, Plan, Step, Trigger

FLAGS = (("backend-batch-interval", "1m0s"),)
"""Nothing but the defragmentation commits. By default a batch lasts 100 ms, and what was written in it is what comes twice."""
WRITES = 20


def _recipe(version: str) -> Recipe:
    client = Lane(
        "client",
        "m1",
        (
            Step("Put", {"key": "k{n}", "value": "{n}"}, name="written", times=WRITES, answer="ok"),
            Step("Defragment", every_ms=100, until=Trigger(after="failpoint")),
            Step("ready", wait=Trigger(healed="failpoint"), answer="ok"),
            Step("Range", {"key": "k", "range_end": "l"}, answer="ok"),
        ),
    )
    plan = Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=20_000, flags=FLAGS, script=(client,))
    return Recipe(plan, ("failpoint m1 point=defragBeforeCopy action=kill down_ms=100ms on step written",))


ISSUE = Issue(
    name="14685",
    title="entries of the log are applied twice after a crash during a defragmentation",
    guarantee="a request takes effect at most once",
    shows_as="revisions and versions of keys run ahead of what was written; with other members, members that differ",
    story="""\
A member keeps its store in a database file that it commits every 100 ms, and with the data the *consistent index*: the last entry of the
log that the data contains. After a crash it applies the entries beyond that index. Since 3.5.0 the index is written by a hook that runs
before each commit.

Defragment copies the file into a new one and then renames that over the old. First it has to commit what is pending, and up to 3.5.5 it
called an inner function for that, one below the hook. So for the time that the copy takes, which is a second for each gigabyte, the old
file holds the newest data under an old index. If the process dies meanwhile, the next start finds that file, trusts the index and applies
all entries of the last batch to data that has them already. Each put gets a second revision and a higher version, counters count twice, and
a transaction that compared may go the other way. In a larger cluster only the member that crashed does so: from there on its revisions are
ahead of the others.

Here a cluster of one writes some keys, is asked to defragment, and is killed at the begin of the copy. Whoever reads afterwards finds keys
at version 2 that were written once. Since 3.5.6 that commit runs the hook as well. 3.4 writes the index with each entry and never had this.
""",
    introduced="3.5.0",
    boundaries=(Boundary("3.5.5", "3.5.6"),),
    codes=("KV-APPLIED-TWICE", "KV-CONTENT", "KV-UNEXPLAINED"),
    run=_recipe,
    links=(
        "https://github.com/etcd-io/etcd/issues/14685",
        "https://github.com/etcd-io/etcd/pull/14733",
    ),
)

"""#18089: the deletion at the very revision of a compaction is never delivered to a watch that begins there.

::

    revision      2    3    4    5         6
    key k        put  put  put  delete    put
                 compaction at 5: what is older than 5 goes, 5 and later stay readable
    watch from 5                delete    put      what was promised
                                  -       put      what came
"""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.plan import Lane, Plan, Step

DELETED = {"reply": "deleted.header.revision"}


def _recipe(version: str) -> Recipe:
    steps = (
        Step("Put", {"key": "k", "value": "{n}"}, times=3, answer="ok"),
        Step("DeleteRange", {"key": "k"}, name="deleted", answer="ok"),
        Step("Put", {"key": "k", "value": "again"}, answer="ok"),
        # Physical: answered when the database has been gone through, and not as soon as the compaction is agreed on.
        Step("Compact", {"revision": DELETED, "physical": True}, answer="ok"),
        Step("watch", {"key": "k", "start_revision": DELETED}, name="watch", answer="ok"),
    )
    return Recipe(Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=10_000, script=(Lane("client", "m1", steps),)))


ISSUE = Issue(
    name="18089",
    title="a watch from the revision of a compaction misses the deletion that was made at that revision",
    guarantee="a watch from a revision that is not compacted away delivers everything from there on",
    shows_as="a deletion is never delivered: whoever keeps a cache by a watch keeps the key for good",
    story="""\
etcd keeps the history of its keys, so that a watch can begin in the past. Compaction at revision R takes away what is older than R and
promises that R itself and all that is newer stay. Of each key it therefore keeps the newest version at or below R, because that is what the
key looks like at R. Unless that version is a deletion: what is deleted looks like nothing, so the record of a deletion, a *tombstone*, was
dropped along with the versions before it.

That is right for reads and wrong for watches. Where the deletion happened at R itself, it is an event inside the promised window: a watch
from R has to deliver it. Etcd accepts such a watch, delivers what came after R, and says nothing of the deletion. There is no error, and a
client has no means to notice.

A client that has seen everything up to R - 1 and was disconnected resumes just there, and with a compaction every five minutes, as
Kubernetes' apiserver does it, deletions at the compaction's revision are a matter of time: a controller then works for ever with
an object that has gone. The fix keeps a tombstone whose revision is that of the compaction.

Here three versions of a key are written, the key is deleted and written again, the store is compacted at the deletion, and a watch begins
there. No fault and no timing is involved.
""",
    introduced="",
    boundaries=(Boundary("3.4.33", "3.4.34"), Boundary("3.5.15", "3.5.16")),
    codes=("WATCH-RESUMABLE", "WATCH-RELIABLE"),
    run=_recipe,
    links=("https://github.com/etcd-io/etcd/issues/18089", "https://github.com/etcd-io/etcd/pull/18274"),
)

"""#11456: a lock granted to somebody whose lease, and with it the lock's key, was gone."""

from __future__ import annotations

from pekan.issues.issue import Boundary, Issue, Recipe
from pekan.plan import Lane, Plan, Step, Trigger

LOCK = "lock"
EVERYTHING = {"key": "\0", "range_end": "\0", "start_revision": 1}
HOLDERS_TTL_S, WAITERS_TTL_S = 60, 2
"""The holder's lease outlives the run. The waiter's is the shortest that a member grants at its default election timeout of 1 s
(server/lease/lessor.go, minTTL), so that the run is over in a few seconds."""
PUT_REVISIONS = 2
"""The holder's key is put at revision 2 and the waiter's at 3, so the deletion of the waiter's key is revision 4."""
WAITED_MS = 20_000
"""How long the waiter waits: his lease is over after 2 s and a moment."""


def run(version: str) -> Recipe:
    """Needs neither a fault nor luck, and is the same for every release."""
    holder = Lane(
        "holder",
        "m1",
        (
            Step("watch", EVERYTHING, name="all", answer="ok"),
            Step("LeaseGrant", {"TTL": HOLDERS_TTL_S}, name="long", answer="ok"),
            Step("Lock", {"name": LOCK, "lease": {"reply": "long.id"}}, name="held", answer="ok"),
            # The waiter's lease runs out: its key is deleted while it waits.
            Step(
                "Unlock",
                {"key": {"reply": "held.key"}},
                name="released",
                wait=Trigger(revision=1 + PUT_REVISIONS + 1),
                answer="ok",
            ),
        ),
    )
    waiter = Lane(
        "waiter",
        "m1",
        (
            Step("LeaseGrant", {"TTL": WAITERS_TTL_S}, name="short", wait=Trigger(step="held"), answer="ok"),
            Step("Lock", {"name": LOCK, "lease": {"reply": "short.id"}}, name="waited", timeout_ms=WAITED_MS),
            Step("LeaseTimeToLive", {"ID": {"reply": "short.id"}}),
        ),
    )
    third = Lane(
        "third",
        "m1",
        (
            # Somebody else gets the lock at once, while the waiter believes that it is his.
            Step("LeaseGrant", {"TTL": HOLDERS_TTL_S}, name="other", wait=Trigger(step="waited"), answer="ok"),
            Step("Lock", {"name": LOCK, "lease": {"reply": "other.id"}}, answer="ok"),
        ),
    )
    return Recipe(Plan(etcd="", seed=0, members=1, workloads=("script",), time_ms=30_000, script=(holder, waiter, third)))


ISSUE = Issue(
    name="11456",
    title="a lock is granted to a client whose lease ran out while it waited for the lock",
    guarantee="mutual exclusion: whoever is told that he holds the lock has a key that is there as long as he does",
    shows_as="two clients are told that they hold the same lock",
    story="""\
etcd's lock service keeps a queue in the store. Lock(name, lease) puts the key name/LEASE, attached to the lease, and whoever's key is the
oldest under name/ holds the lock. All others wait for the deletion of every key older than their own. When a client dies its lease runs
out, its key goes, and the next in the queue is served.

The member carries that out on the client's behalf: it puts the key, waits until no older key is left, and answers that the lock is granted.
Before 3.5 it does not look at its own key again. The lease of a client that waits can run out too, for instance because nobody keeps it
alive, and then its key goes as any other does. The member goes on waiting all the same. When the holder lets go there is no older key any
more, nor is there a key of the client's own, and the member answers: granted. The answer is worth nothing. No key is there, so the next who
asks gets the lock at once, and two clients work on what the lock was to keep apart.

Jepsen found it in 3.4.3 (January 2020), with leases of 1 to 3 s, which made it common. In this run A holds the lock, B waits for it with a
lease of 2 s, and A lets go as soon as B's key is gone. No fault and no timing is needed. From 3.5.0 on the member reads the key once more
after waiting and refuses with "session is expired". That was never brought to 3.4.

A lock whose lease can end is no fence in any release: between the grant and its use the lease may run out. What the lock guards has to be
written by transactions that compare the create revision of the lock's key.""",
    introduced="",
    boundaries=(Boundary("3.4.23", "3.5.0"),),
    codes=("LOCK-WITHOUT-KEY",),
    run=run,
    # Not an election: those are won in that way in every release.
    about=lambda finding: finding.shape[:1] == ("lock",),
    links=(
        "https://github.com/etcd-io/etcd/issues/11456",
        "https://jepsen.io/analyses/etcd-3.4.3",
    ),
)

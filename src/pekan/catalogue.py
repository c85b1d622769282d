"""The finding codes: which guarantee, where it is promised, what a finding means, what to do next.

A code is stable: scripts and recipes name it. A test fails when a code has no section in docs/findings.md or no planted failing sample.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pekan.errors import UsageError

API_GUARANTEES = "https://etcd.io/docs/latest/learning/api_guarantees/"
API_REFERENCE = "https://etcd.io/docs/latest/learning/api/"
HERLIHY_WING = "https://doi.org/10.1145/78969.78972"
LAMPORT = "https://doi.org/10.1109/TC.1979.1675439"
CONCURRENCY = "https://etcd.io/docs/latest/dev-guide/api_concurrency_reference_v3/"
AUTH_DESIGN = "https://etcd.io/docs/latest/learning/design-auth-v3/"


class Entry(NamedTuple):
    """One code. `guarantee` is the promise in a sentence, `source` where etcd makes it, `next_step` what a person should look at."""

    guarantee: str
    source: str
    means: str
    next_step: str


CODES: dict[str, Entry] = {
    # ---- key-value operations ----
    "KV-REAL-TIME": Entry(
        "Strict serializability: an operation that began after another one was answered takes effect after it.",
        API_GUARANTEES,
        "Two answers put operations in an order of revisions that contradicts the clock: a stale linearizable read, or writes reordered.",
        "Look at the member that gave the older answer around that time: leader changes, pauses, lost quorum.",
    ),
    "KV-REVISION-REUSED": Entry(
        "Every modifying operation owns its revision.",
        API_GUARANTEES,
        "Two acknowledged writes carry the same revision: one of them was lost, or the members' histories forked.",
        "Compare the members' data at that revision (HashKV) and the restarts before it.",
    ),
    "KV-CONTENT": Entry(
        "An answer shows exactly the state of its revision.",
        API_GUARANTEES,
        "A reply's content (values, versions, counts, branch taken) differs from what the writes before its revision leave.",
        "Read the key's history between the two records; compare members.",
    ),
    "KV-LOST-WRITE": Entry(
        "Durability: a completed operation survives.",
        API_GUARANTEES,
        "A write was acknowledged at a revision at which the cluster's history holds something else or nothing.",
        "Look for a crash or restart between acknowledgement and the contradicting record.",
    ),
    "KV-UNEXPLAINED": Entry(
        "Nothing changes that nobody asked for.",
        API_GUARANTEES,
        "A revision holds a change that no recorded request, expiring lease or indefinite request can have made.",
        "Are there other writers? Say `--writers shared`. If not: an entry was applied twice or invented.",
    ),
    "KV-APPLIED-TWICE": Entry(
        "A request takes effect at most once.",
        API_GUARANTEES,
        "The effect of one request shows at more than one revision.",
        "Look for a restart between the two revisions (entries replayed), or a retrying proxy.",
    ),
    "KV-COMPACTED": Entry(
        "Revisions at or above the compaction are readable, those below are refused, and only compaction takes them away.",
        API_GUARANTEES,
        "A read or compaction was answered as if the compaction stood elsewhere than the recorded compactions put it.",
        "List the compactions invoked before that time.",
    ),
    "KV-FUTURE-REVISION": Entry(
        "A linearizable request knows every acknowledged revision.",
        API_GUARANTEES,
        "A linearizable request was told that a revision is in the future after that revision had been acknowledged.",
        "Look at the member that answered: it was behind without knowing.",
    ),
    "KV-WRONG-REFUSAL": Entry(
        "A refusal states a fact about the state.",
        API_REFERENCE,
        "A request was refused (lease not found, key not found, lease exists) though the state of that time says otherwise.",
        "Read the lease's or the key's history around that time.",
    ),
    "REFUSED-BUT-APPLIED": Entry(
        "A definite error means that nothing happened.",
        API_REFERENCE,
        "A request was refused with a definite error, and its effect shows all the same. Known: a transaction with a range at a compacted "
        "or future revision is refused by the receiving member and applied by the others (#18667, mended in 3.7.0).",
        "Compare the members' revisions: they have diverged. Upgrade to 3.7 or keep ranged revisions out of writing transactions.",
    ),
    "COMPARES-ONLY-STALE": Entry(
        "Linearizable by default: an answer without the serializable option is not older than what was acknowledged before.",
        API_GUARANTEES,
        "A transaction with no operation in either branch was answered from a member's own, older state. Known of every release to 3.7.3: "
        "such a transaction counts as serializable in the server though nobody asked for it.",
        "Put a linearizable Range in either branch of such transactions.",
    ),
    "LOCAL-CONTENT": Entry(
        "A serializable answer may be old, but it is the state of its revision.",
        API_GUARANTEES,
        "A serializable reply shows a state that the history never had at its revision, or a revision that did not exist yet.",
        "Compare that member's data at that revision with the others'.",
    ),
    # ---- leases ----
    "LEASE-EARLY": Entry(
        "A lease lives at least as long as the TTL of the last reply that granted or renewed it.",
        API_REFERENCE,
        "A key or lease was gone before its time, and nobody revoked or deleted it.",
        "Look at leader changes and clock jumps; the TTL is kept by the leader.",
    ),
    # ---- locks and elections ----
    "LOCK-WITHOUT-KEY": Entry(
        "Whoever is answered that he holds a lock, or leads, holds a key that is there as long as he does.",
        CONCURRENCY,
        "A Lock or Campaign was answered ok, and at no moment of the call was its key there and the lock free. As a rule its lease ended "
        "while it waited. Somebody else may hold the lock.",
        "Releases 3.4 do not look at the key again after waiting (#11456), and no release does so for elections. What a lock guards should "
        "be written by transactions that compare the create revision of the lock's key.",
    ),
    "LOCK-TWO-HOLDERS": Entry(
        "A lock has one holder at a time, and an election one leader.",
        CONCURRENCY,
        "A Lock or Campaign was answered ok while somebody else held the same and had neither let go nor lost his lease.",
        "Look at what both members had applied then, at restarts, and whether anything wrote to the keys of the lock.",
    ),
    # ---- watch ----
    "WATCH-FILTER": Entry(
        "A watch delivers only what it asked for.",
        API_GUARANTEES,
        "An event for a key outside the range, or of a filtered type.",
        "Read the create request of that watch.",
    ),
    "WATCH-ORDERED": Entry(
        "Events are ordered by revision.",
        API_GUARANTEES,
        "An event came after one of a higher revision on the same watch: it went back in time (as in #15271).",
        "Did the member receive a snapshot between the two messages?",
    ),
    "WATCH-UNIQUE": Entry(
        "An event never comes twice on a watch.",
        API_GUARANTEES,
        "The same key at the same revision was delivered twice.",
        "Did the member receive a snapshot or restart between the two messages?",
    ),
    "WATCH-ATOMIC": Entry(
        "All events of one revision come in one message (in fragments only where asked for).",
        API_GUARANTEES,
        "One revision's events were split over messages.",
        "Read the two messages.",
    ),
    "WATCH-RELIABLE": Entry(
        "A watch never drops an event between the first and the last that it covers.",
        API_GUARANTEES,
        "An event of the history is missing from a watch that delivered later ones or reported progress past it "
        "(as in #17529, #18089, #19179).",
        "Was there a compaction at or near the missing revision? Was the stream read slowly?",
    ),
    "WATCH-RESUMABLE": Entry(
        "A watch from a revision inside the window starts with the first event at or after it.",
        API_GUARANTEES,
        "The first event after a start or resume is not the first one due (as in #18089, #19179).",
        "Compare the start revision with the compactions before it.",
    ),
    "WATCH-BOOKMARKABLE": Entry(
        "A progress notification at a revision promises that every event up to it was delivered.",
        API_GUARANTEES,
        "An event at or below an earlier progress revision came after it (as in #15220, #17507, #20221).",
        "Who relies on bookmarks (the apiserver's consistent reads from cache) has lost events here. See the fix versions of #15220.",
    ),
    "WATCH-START": Entry(
        "A watch delivers nothing below the revision at which it was asked to start.",
        API_GUARANTEES,
        "Events from before the requested start were delivered, or progress was announced for a watch that had not begun (#20221).",
        "Did the member receive a snapshot while the watch waited?",
    ),
    "WATCH-PREV-KV": Entry(
        "Where asked for, an event carries the key-value it replaced, unless compaction took it.",
        API_REFERENCE,
        "A prev_kv is wrong, or missing though no compaction can have removed it.",
        "Read the key's history below the event's revision.",
    ),
    "WATCH-PREV-KV-FIRST": Entry(
        "Where asked for, an event carries the key-value it replaced, unless compaction took it.",
        API_REFERENCE,
        "Nothing in the first message of a watch from a past revision has the prev_kv that was asked for. A known race of every release to "
        "3.7.3: the server registers a watch before it notes its options, and collects the first message in between.",
        "A client that needs previous values (the apiserver ends such a watch) has to begin it again.",
    ),
    "WATCH-CONTENT": Entry(
        "An event says what happened at its revision.",
        API_GUARANTEES,
        "An event's type, value, version, create revision or lease differs from the history, or the history has no such event.",
        "Compare with another member's stream at the same revision.",
    ),
    "WATCH-PROGRESS": Entry(
        "Progress speaks of revisions that exist.",
        API_GUARANTEES,
        "A watch message's header names a revision that no write had reached by then, or progress went back on one stream.",
        "Look at the member's restarts before the message.",
    ),
    "WATCH-CANCEL": Entry(
        "A watch is cancelled only when asked, refused, or overtaken by a compaction above what is still due to it.",
        API_GUARANTEES,
        "A watch was cancelled for a compaction that nobody had invoked, or that did not reach it.",
        "List the compactions invoked before that message.",
    ),
    "WATCH-FRAGMENT": Entry(
        "Fragments of a message reassemble to it, all but the last marked.",
        API_REFERENCE,
        "Fragments came without being asked for, out of order, or were never completed.",
        "Read the messages in order.",
    ),
    # ---- members ----
    "MEMBER-DIVERGED": Entry(
        "Every member applies the same history.",
        API_GUARANTEES,
        "Two members' streams tell different stories of the same revision.",
        "Stop trusting the cluster: compare data directories before the next compaction.",
    ),
    "MEMBER-REVISION": Entry(
        "Members that have applied the same raft entries stand at the same revision.",
        API_GUARANTEES,
        "Two members at the same applied index report different revisions.",
        "As for MEMBER-DIVERGED; the first revision that differs is where to look.",
    ),
    "MEMBER-HASH": Entry(
        "Members hold the same data at the same revision.",
        API_GUARANTEES,
        "HashKV at one revision, with the same compact revision, differs between members.",
        "Compare the two members' data key by key.",
    ),
    "MEMBER-AUTH-REVISION": Entry(
        "Members that have applied the same raft entries hold the same auth store.",
        AUTH_DESIGN,
        "Two members at the same applied index report different auth revisions.",
        "Compare users and roles member by member; see #11651 and #14571.",
    ),
    "MEMBER-EXIT": Entry(
        "A member runs until it is asked to stop.",
        API_REFERENCE,
        "A member ended by itself.",
        "Its wait status and last log lines are in the certificate.",
    ),
    "REMOVED-MEMBER-CRASH": Entry(
        "A removed member ends in good order.",
        API_REFERENCE,
        "A member crashed between its removal and its end, as it was still asked something.",
        "Nothing is lost by it: see the panic in its log; #21966 and #17223 are two known ones. --allow it to look past it.",
    ),
    "MEMBER-CORRUPT-ALARM": Entry(
        "Data stays consistent over members.",
        API_REFERENCE,
        "etcd itself raised a CORRUPT alarm.",
        "The log of the member that raised it names the revisions compared.",
    ),
    # ---- crash images ----
    "IMAGE-LOST-WRITE": Entry(
        "Durability: what a member has told survives a crash of all members.",
        API_GUARANTEES,
        "A revision had been told to a client before the members' files were copied, and members that start on the copies have not come so "
        "far (as in #14370, #17780).",
        "The image's data is in images/N/data of the run: compare its write-ahead logs and databases. Which thread was held just then?",
    ),
    "IMAGE-CONTENT": Entry(
        "Every member applies the same history, also after a crash.",
        API_GUARANTEES,
        "A member that was started on a crash image holds another state of a revision than the run had there (as in #13766).",
        "The image's data is in images/N/data of the run: compare that member's database with its write-ahead log, and with the others'.",
    ),
    "IMAGE-APPLIED-TWICE": Entry(
        "A request takes effect at most once, also where members crash.",
        API_GUARANTEES,
        "After a start on a crash image the effect of an answered request shows a second time (as in #14685).",
        "The image's database is ahead of its consistent index: images/N/data of the run. Was a defragmentation under way?",
    ),
    "IMAGE-WATCH": Entry(
        "A watch never drops, repeats or invents an event inside its window, also after a crash.",
        API_GUARANTEES,
        "A watch at a member that was started on a crash image left out, repeated or invented a revision (as in #18089, #19179).",
        "Was a compaction under way when the image was taken? Watch from the compact revision on a copy of images/N/data.",
    ),
    "IMAGE-START": Entry(
        "A member starts again after a crash.",
        API_GUARANTEES,
        "A member that was started on a crash image panicked or gave up, three times in the same way.",
        "Its log is in images/N/A/NAME.log of the run, the data in images/N/data.",
    ),
    "SNAPSHOT-DIGEST": Entry(
        "A snapshot that was streamed to its end is whole, and says so with its SHA-256.",
        API_REFERENCE,
        "The digest at the end of a snapshot is not that of what came before it: a backup that looks complete and is not.",
        "Compare the pieces in the record with the member's database; such a backup is refused by `etcdutl snapshot restore`.",
    ),
    # ---- auth ----
    "AUTH-ALLOWED": Entry(
        "What a user has no permission for is refused.",
        AUTH_DESIGN,
        "A request was answered though no auth state of its time permits it, or a part of it (as in CVE-2026-33343).",
        "Is it like a vulnerability that affects this release? Else compare auth revisions of the members.",
    ),
    "AUTH-DENIED": Entry(
        "What a user has permission for is served.",
        AUTH_DESIGN,
        "A request was denied though every auth state of its time permits it (as in #14571).",
        "Compare auth revisions of the members; did the member restore a snapshot?",
    ),
    # ---- objects of anybody ----
    "NOT-LINEARIZABLE": Entry(
        "Linearizability: every operation takes effect at one moment between its call and its return.",
        HERLIHY_WING,
        "No order of the operations explains what they were answered: a lost or stale value, one that nobody wrote, an effect twice.",
        "The operations shown cannot be ordered whatever the others do: follow the explanation, and look at who answered the last.",
    ),
    "NOT-SEQUENTIAL": Entry(
        "Sequential consistency: the operations take effect in one order that keeps the order of every process.",
        LAMPORT,
        "No order of the operations that keeps the order of each process explains what they were answered, whatever the clocks say.",
        "The operations shown cannot be ordered whatever the others do: follow the explanation.",
    ),
}

KNOWN_DEVIATIONS = ("REFUSED-BUT-APPLIED", "COMPARES-ONLY-STALE", "WATCH-PREV-KV-FIRST", "REMOVED-MEMBER-CRASH", "LOCK-WITHOUT-KEY")
"""What releases that are out there get wrong, of which docs/known-deviations.md tells: `--allow known`."""


def allowed(names: Iterable[str]) -> tuple[str, ...]:
    """The codes that `names` stand for: codes, and `known` for those of `KNOWN_DEVIATIONS`; each once. Raises UsageError for any other."""
    codes = dict.fromkeys(code for name in names for code in (KNOWN_DEVIATIONS if name == "known" else (name,)))
    for code in codes:
        if code not in CODES:
            raise UsageError(f"--allow {code}: no such finding code; there are known (= {','.join(KNOWN_DEVIATIONS)}), {', '.join(CODES)}")
    return tuple(codes)

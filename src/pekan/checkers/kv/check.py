"""The key-value checker: collect, time, replay, and what follows from them, in one place.

See the package's docstring for the picture. This module decides what is judged: from which state on, up to which revision, and which of
the findings is the root that explains the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pekan.checkers.case import SUSPECTED_FORK, Case, Fork, Order
from pekan.checkers.evidence import Watched, watched
from pekan.checkers.kv import forks, problems
from pekan.checkers.kv.collect import JUDGED, Buckets, collect
from pekan.checkers.kv.compaction import judge_compactions
from pekan.checkers.kv.compares import judge_compares
from pekan.checkers.kv.leases import judge_leases
from pekan.checkers.kv.pool import Pool
from pekan.checkers.kv.problems import Problem
from pekan.checkers.kv.proofs import known_before
from pekan.checkers.kv.refusals import Refusals
from pekan.checkers.kv.replay import Replay, Result
from pekan.checkers.kv.search import Search
from pekan.checkers.kv.timing import Timing, time_of
from pekan.checkers.refused import explains, may_explain
from pekan.history.types import INDEFINITE, OK, History, Operation
from pekan.models.etcd import State, replace_key
from pekan.verdict import CheckerReport, Finding, Undecided, group
from pekan.wire.messages import RangeRequest

NAME = "kv"
REVISIONS_MAX = 20_000_000
"""Revisions that one history may span: two lists of that many numbers are 320 MB. A real run makes a thousand a second."""
PROOFS_MAX = 100
"""Findings of time for which the proof is looked up: each look is a walk over the history, and one of a kind is shown."""
NOTHING_WRITTEN = "revision 1 before any write"
"""What an empty store holds at the revisions below the first write's."""
ROOTS = ("REFUSED-BUT-APPLIED", "KV-REVISION-REUSED", "KV-LOST-WRITE", "MEMBER-DIVERGED")
"""Findings that prove that members' histories part, or that one was taken back: what is found from their revision on follows."""


def check_kv(case: Case) -> CheckerReport:
    """Judge every key-value operation of `case`; fills `case.order`, and `case.fork` where members' histories part."""
    history = case.history
    evidence = watched(case)
    operations, undecided = _first_epoch(history)
    if not any(type(op.input) in JUDGED for op in operations):
        return CheckerReport(NAME, applicable=False)
    b = collect(operations)
    limit = min([r for r, _, _ in b.clashes] + ([evidence.difference.revision] if evidence.difference is not None else []), default=None)
    whole = b
    if limit is not None:
        b = collect(operations, limit)
    exclusive = case.options.writers == "exclusive"
    known_from_start = exclusive and history.start == "empty"
    if limit is not None:
        b.grants = whole.grants
    state = _start(history, b, known_from_start)
    if state is None:
        return _without_start(case, b, undecided)
    last = _last(b, evidence, limit)
    if last - state.revision > REVISIONS_MAX:
        undecided.append(too_far(last - state.revision))
        return CheckerReport(NAME, True, dict(b.counts), (), tuple(undecided))
    timing = time_of(b, evidence.seen, state.revision + 1, last, history.order == "real-time")
    suspects = Pool(b.refused, {}, timing.real_time)
    refused = forks.refused_values(whole.refused) if known_from_start else {}
    shown = forks.shown_refusals(operations, evidence, refused) if forks.delivers(evidence, refused) else []
    result = _replay(case, b, state, timing, evidence, suspects, [found.op for found in shown])
    if refused and not shown and not (result.clean and limit is None and _all_replayed(b, timing)):
        # Where every answer was replayed and is right, each value shown is of a recorded writer that was not refused. Not so here.
        shown = forks.shown_refusals(operations, evidence, refused)
        again = _start(history, b, known_from_start)
        if shown and again is not None:
            result = _replay(case, b, again, timing, evidence, suspects, [found.op for found in shown])
    found = [forks.refused_and_shown(s.op, s.kv.key, s.kv.value, s.kv.mod_revision, s.where) for s in shown]
    found += _below_start(b, history)
    found += [problems.future_from_the_start(op, q, timing.first - 1) for q, op in b.future if known_from_start and q < timing.first]
    found += result.problems
    found += _times(b, timing, evidence)
    found += judge_compactions(b, timing, known_from_start and not compacts_itself(history))
    if known_from_start:
        found += judge_leases(b)
    if limit is not None:
        found.append(_limit_problem(limit, evidence, whole, suspects, result))
    undecided += result.undecided
    difference = evidence.difference
    sides = None if difference is None else (difference.revision, difference.groups)
    findings, parted = settle(case, found, judge_compares(b, timing, evidence), limit, sides)
    case.order = result.order
    if parted is not None:
        _cut(result.order, parted)
    counts = {**b.counts, **result.counts, "after the fork": b.beyond}
    return CheckerReport(NAME, True, counts, group(findings), tuple(undecided))


# ---- what is judged ----


def epoch_end(history: History) -> int | None:
    """When the second epoch began (ns); None where there is but one."""
    return min((mark.time for mark in history.marks if mark.kind == "epoch"), default=None)


def within_epoch(op: Operation, ends: int) -> Operation:
    """`op`, unanswered if it was still open when its epoch ended at `ends` (ns)."""
    over = op.ret is not None and op.ret >= ends
    return op._replace(outcome=INDEFINITE, ret=None, output=None) if over and op.outcome == OK else op


def _first_epoch(history: History) -> tuple[Sequence[Operation], list[Undecided]]:
    """The operations of the first epoch; those that were still open when the second began count as unanswered."""
    ends = epoch_end(history)
    if ends is None:
        return history.operations, []
    return tuple(within_epoch(op, ends) for op in history.operations if op.call < ends), [restored()]


def _start(history: History, b: Buckets, known_from_start: bool) -> State | None:
    """The store before the first revision that is judged; None where nothing shows it whole."""
    state = _first_state(history, b)
    if state is not None and known_from_start and not history.cut:
        # A lease that nobody asked for is not there; when the others are, `Buckets.lives_after` says.
        state.leases = b.leases_after(state.revision - 1)
    return state


def _first_state(history: History, b: Buckets) -> State | None:
    past: dict[bytes, list[object]] | None = {} if b.reads_the_past else None
    if history.start == "empty":
        return State(leases=None, past={} if past is not None else None)
    best: tuple[int, Operation] | None = None
    for buckets in (b.readers, b.local):
        for header, answered in buckets.items():
            for op in answered:
                r = op.input
                if type(r) is not RangeRequest or r.key != b"\0" or r.range_end != b"\0" or r.limit or any(r[7:]):
                    continue
                at = r.revision if 0 < r.revision < op.output.header.revision else header
                if (best is None or at < best[0]) and op.output.count == len(op.output.kvs):
                    best = (at, op)
        if best is not None:
            break
    if best is None:
        return None
    state = State(revision=best[0], leases=None, past=None)
    for kv in best[1].output.kvs:
        replace_key(state, kv.key, None, kv)
    if past is not None:
        state.past = {kv.key: [kv] for kv in best[1].output.kvs}
    return state


def _without_start(case: Case, b: Buckets, undecided: list[Undecided]) -> CheckerReport:
    """What can be judged of a store that began with unknown content and was never read whole: the times."""
    revisions = [*b.writes, *b.readers, *b.revokes]
    first = min(revisions, default=1)
    found: list[Problem] = []
    if b.highest - first <= REVISIONS_MAX:
        timing = time_of(b, {}, first, b.highest, case.history.order == "real-time")
        found = _times(b, timing, watched(case))
    undecided.append(no_start())
    return CheckerReport(NAME, True, dict(b.counts), group(p.finding for p in found), tuple(undecided))


def _all_replayed(b: Buckets, timing: Timing) -> bool:
    """Whether no answer is of a revision before those that are replayed (an answer with header revision 0, say)."""
    seen = all(min(bucket, default=timing.first) >= timing.first - 1 for bucket in (b.readers, b.old, b.local))
    return seen and min(b.writes, default=timing.first) >= timing.first


def _last(b: Buckets, evidence: Watched, limit: int | None) -> int:
    """The highest revision that anything shows, below `limit`."""
    highest = max(b.highest, max(evidence.events, default=0))
    return highest if limit is None else min(highest, limit - 1)


def restored() -> Undecided:
    """The store was restored, and what came then is another epoch."""
    return Undecided("operations after the store was restored are not judged", "a checker that judges every epoch", NAME)


def no_start() -> Undecided:
    """Nothing shows the store whole."""
    return Undecided(
        reason="the store began with unknown content, and no answer shows all of it: contents were not judged, only the order in time",
        would_decide="one Range over all keys near the beginning",
        checker=NAME,
    )


def too_far(revisions: int) -> Undecided:
    """More revisions than are judged."""
    return Undecided(
        reason=f"the answers span {revisions} revisions, more than the {REVISIONS_MAX} that are judged",
        would_decide="a shorter record",
        checker=NAME,
    )


def compacts_itself(history: History) -> bool:
    """Whether etcd was told to compact without being asked."""
    return history.plan is not None and any("auto-compaction" in name for name, _ in history.plan.flags)


# ---- the parts ----


def _replay(
    case: Case, b: Buckets, state: State, timing: Timing, evidence: Watched, suspects: Pool, applied: Iterable[Operation]
) -> Result:
    # A refused request whose effect shows is a finding already; the replay takes it for a writer, so as not to find the same thing again.
    shared = case.options.writers == "shared"
    complete = not shared and case.history.start == "empty" and not case.history.cut
    pool = Pool([*b.pending, *applied], b.grants, timing.real_time, b.there_until() if complete else None)
    search = Search(b, pool, timing, evidence, case.options.budget_s, evidence_complete=not case.history.cut)
    refusals = Refusals(b, timing, complete, any(fault.promise == "lease-time" for fault in case.history.faults))
    return Replay(b, state, timing, evidence, pool, suspects, search, refusals, shared).run()


def _below_start(b: Buckets, history: History) -> list[Problem]:
    """Writes acknowledged at a revision that an empty store has before any write."""
    if history.start != "empty":
        return []
    return [problems.wrong_answer("KV-CONTENT", op, r, NOTHING_WRITTEN, None) for r, op in b.writes.items() if r < 2]


def _times(b: Buckets, timing: Timing, evidence: Watched) -> list[Problem]:
    futures = frozenset(op.id for _, op in b.future)
    found = [problems.out_of_time(clash, futures, timing.real_time) for clash in timing.clashes]
    for number, (op, revision, above) in enumerate(timing.outrun):
        proof = known_before(b, evidence, above - 1, op.call) if number < PROOFS_MAX else None
        found.append(problems.outrun(op, revision, above, op.id in futures, proof))
    if timing.real_time:
        for revision, op in b.existed:
            if op.ret is not None and timing.earliest_of(revision) > op.ret:
                found.append(problems.before_its_time(op, revision, timing.earliest_of(revision)))
    return found


def _limit_problem(limit: int, evidence: Watched, whole: Buckets, suspects: Pool, result: Result) -> Problem:
    """The finding that ends the common order at `limit`."""
    state = result.state if result.stopped is None and result.state.revision == limit - 1 else None
    if evidence.difference is not None and evidence.difference.revision == limit:
        return forks.root_of_difference(evidence.difference, state, suspects, whole)
    return problems.reused(*next(clash for clash in whole.clashes if clash[0] == limit))


def settle(
    case: Case, found: list[Problem], compares: Iterable[Problem], limit: int | None, sides: tuple[int, tuple[tuple[str, ...], ...]] | None
) -> tuple[list[Finding], int | None]:
    """Find the root, let what it explains follow, and set the fork; also the revision at which the common order ends, None for nowhere.

    `sides`: the first revision that two watches tell differently, and the members on each side.
    """
    found = [_of_refused(case, problem) for problem in found]
    roots = sorted((p for p in found if p.finding.code in ROOTS), key=lambda p: (p.revision, ROOTS.index(p.finding.code)))
    root = roots[0] if roots else None
    findings = []
    consequences = limit is not None
    seen: set[tuple[str, tuple[tuple[str, object], ...]]] = set()
    for problem in sorted([*found, *compares], key=lambda p: (p is not root, p.revision)):
        finding = problem.finding
        about = (finding.code, tuple((k, str(v)) for k, v in finding.subject.items()))
        if about in seen:
            continue
        seen.add(about)
        if root is not None and problem is not root and problem.revision >= root.revision:
            consequences = consequences or finding.code not in ("COMPARES-ONLY-STALE", "REFUSED-BUT-APPLIED")
            if finding.code not in ("REFUSED-BUT-APPLIED",):
                finding = replace(finding, status="follows", because=root.finding.code)
        findings.append(finding)
    if root is None:
        return findings, None
    groups = sides[1] if sides is not None and sides[0] == root.revision else ()
    times = [e.start for e in root.finding.certificate if e.start is not None]
    fork = Fork(root.revision, root.finding.code, root.finding.summary, root.finding.certificate, groups, min(times, default=None))
    if not consequences and root.finding.code == "REFUSED-BUT-APPLIED":
        # Nothing here shows that members parted; where a later checker sees them differ, this is why.
        case.shared[SUSPECTED_FORK] = fork
        return findings, None
    case.fork = fork
    return findings, root.revision


def _of_refused(case: Case, problem: Problem) -> Problem:
    """`problem`, or its root: members that acknowledged two writes at one revision after one had refused what others applied."""
    finding = problem.finding
    if finding.code != "KV-REVISION-REUSED":
        return problem
    behind = {exhibit.member for exhibit in finding.certificate}
    answered = max(exhibit.end or 0 for exhibit in finding.certificate)
    suspects = may_explain(case.history, behind, answered, problem.revision) if len(behind) > 1 else []
    if not suspects:
        return problem
    seen = f"two members acknowledged two writes at revision {problem.revision}, as if others had applied them"
    return problem._replace(finding=explains(suspects, finding, seen))


def _cut(order: Order, revision: int) -> None:
    """Let the common order end below `revision`."""
    if order.last >= revision:
        for r in range(revision, order.last + 1):
            order.events.pop(r, None)
            order.written_by.pop(r, None)
            order.unknown.discard(r)
        order.last = revision - 1

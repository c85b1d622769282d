"""What members have that were started on a crash image. (IMAGE-LOST-WRITE, IMAGE-CONTENT, IMAGE-APPLIED-TWICE, IMAGE-WATCH, IMAGE-START)

::

    run      ── told T ──┤ all members stand still: image ├── goes on ──>       revisions: ... T   T+1 ...   as they became
                          \\
    epoch                  start on a copy of all members' files ──> answers    revisions: ... T   t+1 ...   may become others

An image holds the files of *all* members as a SIGKILL of all of them at that moment would have left them. What any member had told before
(T is such a revision) was committed, and etcd promises that it survives: the members that start on it, read linearizably, stand at T or
above, and at every revision up to T they hold what the run's order says. What had not been told at that moment may become anything, in the
run and in the epoch: nothing is concluded about revisions above T, but for one thing. A request that was answered at or below T has had its
effect, once: the same value again above T, which no other request can have written, is that effect a second time.

=====================  =====================================================================================
IMAGE-LOST-WRITE       a member answers that T is a future revision
IMAGE-CONTENT          everything at T, as one member tells it, is not what the run's order leaves at T
IMAGE-APPLIED-TWICE    above T a key gets the value that it has at T, and nobody asked for it again
IMAGE-WATCH            a watch from the past leaves out, invents or repeats a revision up to T, or is cancelled for no compaction
IMAGE-START            members do not start: the same panic or fatal error, on three fresh copies
=====================  =====================================================================================

A snapshot that a member streamed is judged in the same way: it holds everything up to T, a revision that this member had told before. It is
restored as a cluster of one.

Not judged: from the revision of a proven or suspected divergence on; images taken after a request was refused that other members may have
applied (#18667, before 3.7.0), since members' revisions may differ from there on; revisions that nothing proves; and where others write
too (`--writers shared`), second effects and cancellations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pekan.checkers import telling
from pekan.checkers.case import SUSPECTED_FORK, Case, Fork
from pekan.checkers.evidence import Watch, by_revision, compactions, same_change, split
from pekan.checkers.kv.check import compacts_itself
from pekan.checkers.native.evidence import event, proven
from pekan.checkers.refused import first_refusal
from pekan.history.types import FAILED, OK, Epoch, Mark, Operation
from pekan.verdict import CheckerReport, Exhibit, Finding, Undecided
from pekan.wire import messages as wire
from pekan.wire.errors import FUTURE_REVISION
from pekan.wire.messages import DELETE, PUT, DeleteRangeRequest, Event, KeyValue, PutRequest, RangeRequest, TxnRequest

NAME = "images"
ATTEMPTS = 3
"""So often members have to end in the same way before that is a finding."""
_ENVIRONMENT = re.compile(
    "address already in use|no space left|too many open files|cannot allocate memory|permission denied|temporarily unavailable"
)
"""What a member says that cannot start here, whatever its files hold."""


class _Image(NamedTuple):
    """An image, and the answer that told `revision` before any member was stopped."""

    number: int
    before: int
    done: int
    revision: int
    told: Operation
    epochs: tuple[Epoch, ...]
    snapshot: str
    """The member that streamed the snapshot that it was made from; empty for a crash image."""

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{'snapshot' if self.snapshot else 'crash image'} {self.number}"

    @property
    def before_it(self) -> str:
        """What revision T came before."""
        return f"{self.snapshot} streamed its snapshot" if self.snapshot else "any member was stopped"

    @property
    def start(self) -> str:
        """When its members answered."""
        return "After a start on that snapshot" if self.snapshot else "After a start on the files that all members had then"


def check_images(case: Case) -> CheckerReport:
    """Compare what members told that were started on crash images with the history of the run."""
    history = case.history
    marks = [mark for mark in history.marks if mark.kind == "image"]
    if not marks:
        return CheckerReport(NAME, applicable=False)
    images = [image for mark in marks if (image := _image(case, mark)) is not None]
    judged = {
        "kept": len(marks),
        "started": sum(1 for image in images if image.epochs),
        "parted": 0,
        "judged": 0,
        "answers": 0,
        "watches": 0,
        "events": 0,
    }
    findings: list[Finding] = []
    judge = _Judge(case, judged)
    for image in sorted(images, key=lambda each: each.revision):
        findings += judge.image(image)
    return CheckerReport(NAME, True, judged, tuple(findings), tuple(_undecided(case, images)))


def _image(case: Case, mark: Mark) -> _Image | None:
    """The image of `mark`, where its record proves what was told before it."""
    detail = mark.detail
    number, told, before, done = (detail.get(name) for name in ("number", "told", "before_ns", "done_ns"))
    if not (isinstance(number, int) and isinstance(told, dict) and isinstance(before, int) and isinstance(done, int)):
        return None
    op = _operation(case, told.get("operation"))
    if op is None or op.outcome != OK or op.ret is None or op.ret >= before or op.output.header.revision != told.get("revision"):
        return None
    epochs = tuple(epoch for epoch in case.history.epochs if epoch.image == number)
    return _Image(number, before, done, op.output.header.revision, op, epochs, str(detail.get("snapshot") or ""))


def _operation(case: Case, number: Any) -> Operation | None:
    """The operation of that number: numbers are given in order of call, from 1 on."""
    operations = case.history.operations
    if not isinstance(number, int):
        return None
    if 0 < number <= len(operations) and (op := operations[number - 1]).id == number:
        return op
    return next((op for op in case.history.of(RangeRequest) if op.id == number), None)


def _undecided(case: Case, images: Sequence[_Image]) -> Iterator[Undecided]:
    tried = [image for image in images if image.epochs]
    if tried and not any(_answers(epoch) for image in tried for epoch in image.epochs):
        outside = [
            f"{fault.kind} on {fault.target}" for fault in case.history.faults if fault.promise == "outside" and fault.fired is not None
        ]
        why = f" (after {', '.join(outside)}, for which etcd promises nothing)" if outside else ""
        yield Undecided(f"members came up on none of {len(tried)} crash images{why}", "the logs in images/*/*/", NAME)


# ---- the run's order ----


class _Truth:
    """What the run's order says: events of a revision, and everything at a revision (asked for in ascending order)."""

    def __init__(self, case: Case) -> None:
        self._of: Callable[[int], tuple[Event, ...] | None] = lambda _: None
        self.last = 0
        first = 0
        order = proven(case)
        if order is not None:
            first, self.last = order.bounds()
            self._of = lambda revision: None if (rows := order.events(revision)) is None else tuple(map(event, rows))
        elif case.order is not None:
            first, self.last = case.order.first, case.order.last
            self._of = case.order.events.get
        self._known: dict[int, tuple[Event, ...] | None] = {}
        self._whole = first == 2 and case.history.start == "empty"
        self._state: dict[bytes, KeyValue] = {}
        self._at = 1

    def events(self, revision: int) -> tuple[Event, ...] | None:
        """The events of `revision` in key order, None where they are not proven."""
        if revision > self.last:
            return None
        if revision not in self._known:  # every watch of every image asks for the same ones
            self._known[revision] = self._of(revision)
        return self._known[revision]

    def everything(self, revision: int) -> dict[bytes, KeyValue] | None:
        """Every key at `revision`, None where it is not proven. Never asked for a lower one afterwards."""
        assert revision >= self._at, "states are gone through once"
        while self._whole and self._at < revision:
            changes = self.events(self._at + 1)
            if not changes:
                self._whole = False
                break
            self._at += 1
            for change in changes:
                if change.type == DELETE:
                    self._state.pop(change.kv.key, None)
                else:
                    self._state[change.kv.key] = change.kv
        return self._state if self._whole else None


# ---- judging ----


class _Judge:
    def __init__(self, case: Case, judged: dict[str, int]) -> None:
        self.case = case
        self.judged = judged
        self.truth = _Truth(case)
        suspected = case.shared.get(SUSPECTED_FORK)
        forks = [fork.revision for fork in (case.fork, suspected) if isinstance(fork, Fork)]
        self.limit = min(forks, default=None)
        self.parted = first_refusal(case.history)
        self.exclusive = case.options.writers == "exclusive"
        self.compacted = compactions(case) if self.exclusive and not compacts_itself(case.history) else None

    def image(self, image: _Image) -> Iterator[Finding]:
        yield from self._start(image)
        if self.parted is not None and self.parted <= image.done:
            self.judged["parted"] += 1
            return
        for epoch in image.epochs:
            answers = _answers(epoch)
            if answers:
                self.judged["judged"] += 1
                for answer in answers.values():
                    yield from self._answer(image, answer)
                yield from self._watches(image, epoch)

    def _start(self, image: _Image) -> Iterator[Finding]:
        ends = [_crash(epoch) for epoch in image.epochs]
        if len(ends) < ATTEMPTS or None in ends or any(_answers(epoch) for epoch in image.epochs):
            return
        members, texts = {end[0].member for end in ends if end}, {end[1] for end in ends if end}
        if len(texts) != 1 or _ENVIRONMENT.search(text := texts.pop()):
            return
        mark = next(end[0] for end in ends if end)
        yield Finding(
            code="IMAGE-START",
            summary=f"members do not start from {image.name}: {text}",
            explanation=(
                f"{_holds(image)} {len(ends)} times members were started on a fresh copy, and each time {', '.join(sorted(members))} "
                "ended in the same way."
            ),
            certificate=(
                _taken(image),
                Exhibit(f"{mark.member} ended by itself: {text}", member=mark.member, start=mark.time, end=mark.time),
            ),
            subject={"image": image.number, "member": mark.member},
            shape=("start", _words(text)),
        )

    def _judgeable(self, image: _Image) -> bool:
        return self.limit is None or image.revision < self.limit

    def _answer(self, image: _Image, answer: Operation) -> Iterator[Finding]:
        if not self._judgeable(image):
            return
        self.judged["answers"] += 1
        subject = {"image": image.number, "member": answer.member, "revision": image.revision}
        if answer.outcome == FAILED:
            yield Finding(
                code="IMAGE-LOST-WRITE",
                summary=f"revision {image.revision} had been told, and is in the future for {answer.member} on {image.name}",
                explanation=(
                    f"Revision {image.revision} was told before {image.before_it}, so it had been committed. {image.start}, "
                    f"{answer.member} was read linearizably and has not come so far."
                ),
                certificate=(telling.exhibit(image.told), _taken(image), _said(image, answer)),
                subject=subject,
                shape=("told", "image", "range"),
            )
            return
        expected = self.truth.everything(image.revision)
        if expected is None:
            return
        found = {kv.key: kv for kv in answer.output.kvs}
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        if wrong:
            key = wrong[0]
            was, has = (_shown(side.get(key)) for side in (expected, found))
            yield Finding(
                code="IMAGE-CONTENT",
                summary=f"on {image.name}, {answer.member} holds another state of revision {image.revision} than the run had",
                explanation=(
                    f"Revision {image.revision} was told before {image.before_it}. {image.start}, {answer.member} was asked for "
                    f"everything at that revision: {len(wrong)} of {len(expected)} keys differ. "
                    f"{telling.text(key)} is {has}, and what was written up to that revision leaves {was}."
                ),
                certificate=(telling.exhibit(image.told), _taken(image), _said(image, answer, f"{telling.text(key)}: {has}")),
                subject={**subject, "key": telling.text(key)},
                shape=("told", "image", "range", "missing" if key not in found else "invented" if key not in expected else "other"),
            )

    def _watches(self, image: _Image, epoch: Epoch) -> Iterator[Finding]:
        twice = False
        for stream in epoch.history.streams:
            for watch in split(stream) if stream.method == wire.WATCH else ():
                if watch.created is None:
                    continue
                self.judged["watches"] += 1
                wrong = self._wrong(image, watch)
                if wrong is not None:
                    how, what = wrong
                    yield self._of_watch(image, watch, how, what)
                elif not twice and (again := self._again(image, watch)) is not None:
                    twice = True
                    yield again

    def _wrong(self, image: _Image, watch: Watch) -> tuple[str, str] | None:
        """(kind, what is wrong) of a watch, None where nothing is."""
        start = watch.request.start_revision
        if watch.canceled is not None and watch.canceled.message.compact_revision and self.compacted is not None:
            highest = max((each.revision for each in self.compacted if each.call < image.done), default=0)
            if start >= highest:
                return "cancelled", f"was cancelled for a compaction, and none above {start} had been asked for"
        told: list[tuple[int, tuple[Event, ...]]] = []
        for item in watch.messages:
            if item.message.events:
                told += by_revision(item.message.events)
        self.judged["events"] += sum(len(events) for _, events in told)
        last = start - 1
        for revision, _ in told:
            if revision <= last:
                return "order", f"delivered revision {revision} after {last}"
            last = revision
        # Of the last revision delivered another message might have followed; above T nothing is promised.
        end = min(image.revision, last - 1, (self.limit or last) - 1)
        delivered = dict(told)
        for revision in range(start, end + 1):
            expected = self.truth.events(revision)
            if expected is not None and not same_change(expected, delivered.get(revision, ())):
                said = telling.events(delivered[revision]) if revision in delivered else "nothing"
                kind = "content" if revision in delivered else "missing"
                return kind, f"delivered {said} of revision {revision}, which wrote {telling.events(expected)}"
        return None

    def _of_watch(self, image: _Image, watch: Watch, how: str, what: str) -> Finding:
        where = f"watch of everything from {watch.request.start_revision} at {watch.member}"
        time = watch.messages[-1].time if watch.messages else watch.asked
        return Finding(
            code="IMAGE-WATCH",
            summary=f"on {image.name} a {where} {what}",
            explanation=(
                f"Revision {image.revision} was told before {image.before_it}, so every event up to there had been made. {image.start}, "
                f"the {where} {what}."
            ),
            certificate=(
                telling.exhibit(image.told),
                _taken(image),
                Exhibit(f"{where} {what}", member=watch.member, start=watch.asked, end=time),
            ),
            subject={"image": image.number, "member": watch.member, "revision": watch.request.start_revision},
            shape=("told", "image", "watch", how),
        )

    def _again(self, image: _Image, watch: Watch) -> Finding | None:
        """The first event above T that repeats what a request answered at or below T has done."""
        if not self.exclusive or not self._judgeable(image):
            return None
        state = self.truth.everything(image.revision)
        if state is None:
            return None
        for item in watch.messages:
            for change in item.message.events:
                kv = change.kv
                before = state.get(kv.key)
                if kv.mod_revision > image.revision and change.type == PUT and before is not None and kv.value == before.value:
                    if self._may_write(image, kv):
                        continue
                    what = f"a watch delivered revision {kv.mod_revision}: {telling.event(change)}"
                    return Finding(
                        code="IMAGE-APPLIED-TWICE",
                        summary=f"{image.name}: revision {before.mod_revision} shows again at {kv.mod_revision}",
                        explanation=(
                            f"{telling.text(kv.key)} got its value at revision {before.mod_revision}, before {image.before_it}. "
                            f"{image.start}, it gets the same value once more at revision "
                            f"{kv.mod_revision}, and no request that was under way can have written it: it was applied a second time."
                        ),
                        certificate=(
                            telling.exhibit(image.told),
                            _taken(image),
                            Exhibit(what, member=watch.member, start=item.time, end=item.time),
                        ),
                        subject={"image": image.number, "member": watch.member, "key": telling.text(kv.key), "revision": kv.mod_revision},
                        shape=("told", "image", "watch", "again"),
                    )
        return None

    def _may_write(self, image: _Image, kv: KeyValue) -> bool:
        """Whether a request may give `kv` its value above T: one sent before the members stood still that had not had its effect by T."""
        for op in self.case.history.of(PutRequest, TxnRequest):
            if op.call >= image.done:
                continue
            if op.outcome == OK and op.ret is not None and op.ret < image.before and op.output.header.revision <= image.revision:
                continue
            if any(put.key == kv.key and (put.value == kv.value or put.ignore_value) for put in _puts(op.input)):
                return True
        return False


def _puts(request: Any) -> Iterator[PutRequest]:
    """Every put that `request` may do."""
    if isinstance(request, PutRequest):
        yield request
    elif isinstance(request, TxnRequest):
        for inner in (*request.success, *request.failure):
            if not isinstance(inner, RangeRequest | DeleteRangeRequest):
                yield from _puts(inner)


# ---- parts ----


def _answers(epoch: Epoch) -> dict[str, Operation]:
    """Member -> its last answer to the question for everything at T: what it has, or that T is in the future."""
    found = {}
    for op in epoch.history.of(RangeRequest):
        future = op.outcome == FAILED and op.output.message == FUTURE_REVISION
        if op.input.range_end and op.input.revision and not op.input.serializable and (op.outcome == OK or future):
            found[op.member] = op
    return found


def _crash(epoch: Epoch) -> tuple[Mark, str] | None:
    """The first end of a member that nobody asked for, with what it gave up with; None where there is none that says so."""
    for mark in epoch.history.marks:
        if mark.kind == "member" and mark.detail.get("state") == "exited" and not mark.detail.get("asked", True):
            crash = mark.detail.get("crash")
            return (mark, crash) if isinstance(crash, str) and crash else None
    return None


def _taken(image: _Image) -> Exhibit:
    what = f"{image.snapshot} streamed a snapshot" if image.snapshot else "all members stood still, and their files were copied"
    return Exhibit(f"{image.name}: {what}", start=image.before, end=image.done)


def _holds(image: _Image) -> str:
    if image.snapshot:
        return f"What the snapshot of {image.snapshot} held was put into a data directory of its own, its digest being right."
    return "The image holds the files of all members as a SIGKILL of all of them would have left them."


def _said(image: _Image, answer: Operation, said: str = "") -> Exhibit:
    told = said or (answer.output.message if answer.outcome == FAILED else "")
    what = f"{answer.member}, started on image {image.number}, was asked for everything at revision {image.revision}: {told}"
    return Exhibit(what, member=answer.member, start=answer.call, end=answer.ret)


def _shown(kv: KeyValue | None) -> str:
    return "not there" if kv is None else telling.key_value(kv)


def _words(text: str) -> str:
    """A crash without its numbers: what two ends of one cause have in common."""
    return re.sub(r"[0-9a-f]{4,}|\d+", "N", text)

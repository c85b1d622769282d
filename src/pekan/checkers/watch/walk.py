"""One watch from its create request to its end, message by message, against the rules of the package.

::

    start ── due[0] ── due[1] ── ... ──>  what the watch has to see (Truth.due), a pointer moves over it
      message: events of revisions         at the pointer: compare; beyond it: the ones between are missing; below `last`: back in time
      message: progress                    `promised`; nothing may come at or below it any more
      message: canceled                    judged, and the end

The loop keeps a few integers and touches each event once; everything that costs (certificates, wording) happens where a rule breaks, and
each rule is reported once a watch with the number of times it broke.

Nearly all messages break no rule, and passing over those is what judging costs. That part is exchanged: a `Skip` moves a walk over
messages that certainly break none. `passing(truth)` is the one in Python; the core has another. What it does not pass over is judged here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeAlias

from pekan.checkers import telling
from pekan.checkers.evidence import ALL_WATCHES, Watch, bounds, by_revision, is_whole
from pekan.checkers.watch.truth import Facts, Truth
from pekan.history.types import StreamMessage
from pekan.verdict import Exhibit, Finding
from pekan.wire import messages as wire
from pekan.wire.messages import Event, WatchCreateRequest, WatchResponse

_NO_EVENTS: tuple[Event, ...] = ()
_NOTHING_TOLD: dict[int, tuple[Event, ...]] = {}
NO_CHANGES: frozenset[tuple[bytes, int]] = frozenset()


@dataclass(slots=True)
class Broken:
    """One rule broken by one watch: the first time in full, the other times counted."""

    finding: Finding
    times: int = 1


@dataclass(slots=True)
class Seen:
    """What a walk looked at, for the report."""

    events: int = 0
    progress: int = 0
    broken: list[Finding] = field(default_factory=list)


Skip: TypeAlias = "Callable[[Walk, int], int]"
"""`skip(walk, begin)` moves `walk` over messages from `begin` on that break no rule, and says which is the first that may."""


def passing(truth: Truth) -> Skip:
    """The skip of the reference: over the messages of a watch of everything that carry exactly the one event that is due next.

    Nearly all messages of such a watch are of that kind, so this loop is what judging costs: every rule of `_message` that one of its
    conditions answers is left out (`due` lies above `last` and at or above the start, ascending, once `at` is set).
    """

    def skip(walk: Walk, begin: int) -> int:
        if walk.narrow or not truth.ordered or walk.at < 0:
            return begin
        due, proven, promised, wants_prev = walk.due, truth.proven, walk.promised, walk.request.prev_kv
        invoked_by, newest, timed = truth.invoked_by, len(truth.invoked_by) - 1, truth.timed
        messages, at, end = walk.watch.messages, walk.at, len(due)
        # Where every revision is due, the next is one more than the last: adding is cheaper than asking a range.
        shift = due.start if type(due) is range else None
        stop = begin
        for stop in range(begin, len(messages)):
            time, _, (header, _, _, _, _, _, _, events) = messages[stop]
            if len(events) != 1 or at >= end:
                break
            event = events[0]
            revision = event[1][2]
            if (
                (due[at] if shift is None else at + shift) != revision
                or revision <= promised
                or (timed and (header[2] > newest or invoked_by[header[2]] > time))
            ):
                break
            known = proven.get(revision)
            if known is None or len(known) != 1:
                break
            made = known[0]
            if made is not event and (
                event[1] != made[1] or event[0] != made[0] or (event[2] != made[2] and (wants_prev or event[2] is not None))
            ):
                break
            at += 1
        else:
            stop = len(messages)
        if stop > begin:
            walk.at, walk.last_index, walk.last_changes = at, stop - 1, NO_CHANGES
            walk.last_group = messages[stop - 1].message.events
            walk.last = walk.last_group[0].kv.mod_revision
            walk.first = walk.first or messages[begin].message.events[0].kv.mod_revision
            walk.seen.events += stop - begin
        return stop

    return skip


def walk(watch: Watch, truth: Facts, skip: Skip) -> Seen:
    """Judge `watch`. The findings come in the order in which the rules first broke."""
    if watch.created is None or watch.refused:
        return Seen()
    judge = Walk(watch, truth, skip)
    judge.run()
    return judge.seen


class Walk:
    """A walk over one watch. A `Skip` may change what is marked with a star, and nothing else.

    at *            place in `due`, -1 before that is known
    last *          highest revision delivered, in message `last_index` *; its events are `last_group` *
    first *         first revision delivered
    last_changes *  changes of `last` delivered so far; filled only where the revision comes again
    promised *      highest progress revision, announced by message `promise_index` *
    gaps            [from, to) of `due` that were passed over, and by which message
    returned        revisions delivered after higher ones
    short           revisions delivered in part: what was lacking, and in which message
    """

    def __init__(self, watch: Watch, truth: Facts, skip: Skip) -> None:
        self.watch = watch
        self.truth = truth
        self.skip = skip
        self.seen = Seen()
        self.broken: dict[tuple[str, str], Broken] = {}
        self.request: WatchCreateRequest = watch.request
        self.start = self.request.start_revision
        self.low_key, self.high_key = bounds(self.request)
        self.narrow = not is_whole(self.request)
        self.floor = self.start if self.start > 0 else watch.floor  # Nothing below it may come.
        # A negative start means nothing that is documented; 3.5.1 cancels such a watch, newer releases refuse it.
        self.due: Sequence[int] = truth.due(self.request) if self.start >= 0 else []
        self.at = bisect_left(self.due, self.start) if self.start > 0 else -1
        self.index = 0  # Of the message that is looked at.
        self.last = 0
        self.first = 0
        self.last_index = -1
        self.last_changes = NO_CHANGES
        self.last_group: tuple[Event, ...] = _NO_EVENTS
        self.promised = 0
        self.promise_index = -1
        self._promise: tuple[int, StreamMessage] | None = None  # That message, with its index.
        self.gaps: list[tuple[int, int, int]] = []
        self.returned: set[int] = set()
        self.short: dict[int, tuple[tuple[Event, ...], int]] = {}

    def run(self) -> None:
        created = self.watch.created
        assert created is not None
        self._header(created)
        messages = self.watch.messages
        at = 0
        while at < len(messages):
            at = self.skip(self, at)
            if at < len(messages):
                self.index = at
                self._message(messages[at])
                at += 1
        self._missing()
        self._fragments()
        self._late()
        self.seen.broken = [one.finding if one.times == 1 else _with_times(one) for one in self.broken.values()]

    @property
    def last_message(self) -> StreamMessage | None:
        """The last message with events."""
        return self.watch.messages[self.last_index] if self.last_index >= 0 else None

    @property
    def promise(self) -> StreamMessage | None:
        """The message that announced `promised`."""
        if self.promise_index < 0:
            return None
        if self._promise is None or self._promise[0] != self.promise_index:
            self._promise = (self.promise_index, self.watch.messages[self.promise_index])
        return self._promise[1]

    def _message(self, item: StreamMessage) -> None:
        """Every rule, one message."""
        message: WatchResponse = item[2]
        events = message.events
        if not events:
            self._without_events(item, message)
            return
        self._header(item)
        self.seen.events += len(events)
        for revision, group in by_revision(events):
            if self.at < 0:
                self.at = self._begin(revision)
            if self.narrow:
                self._filter(item, group)
            if len(group) > 1:
                self._doubled(item, revision, group)
            if revision <= self.last or revision <= self.promised or revision < self.floor:
                self._backwards(item, revision, group)
            if revision > self.last:
                self._advance(revision)
                self.last, self.last_group, self.last_changes = revision, group, NO_CHANGES
                self.first = self.first or revision
            known = self.truth.proven.get(revision)
            if known is None or revision >= self.truth.limit:
                self._unproven(item, revision, group)
            else:
                self._content(item, revision, group, known)
                if not self.truth.ordered:
                    self._unproven(item, revision, group)
        self.last_index = self.index

    def _advance(self, revision: int) -> None:
        """Move over `due` to behind `revision`; what lies between is a gap."""
        due, at = self.due, self.at
        if at < len(due) and due[at] < revision:
            upto = bisect_left(due, revision, at)
            self.gaps.append((at, upto, self.index))
            at = upto
        self.at = at + 1 if at < len(due) and due[at] == revision else at

    def _begin(self, first: int = 0) -> int:
        """Where `due` begins for a watch from now, whose first delivery is `first` (0: none).

        It begins after the created reply's header at the latest. Newer releases (3.5.35, 3.6.16, 3.7.3 among them) read that header after
        the watch was registered, so that revisions up to it may come; what came first then tells where the watch began.
        """
        after_created = self._created_at() + 1
        return bisect_left(self.due, first if self.floor <= first < after_created and first else after_created)

    # ---- messages without events ----

    def _without_events(self, item: StreamMessage, message: WatchResponse) -> None:
        if message.canceled:
            self._canceled(item, message)
            return
        self._header(item)
        self.seen.progress += 1
        revision = message.header.revision
        # Before the fix of #15220 a requested notification may name the revision before one that was just delivered: members hand events
        # out a moment before the store shows their revision. That takes nothing back, so only notifications are compared with each other.
        if revision < self.promised:
            if self._news("WATCH-PROGRESS", "back"):
                self._break(
                    "WATCH-PROGRESS",
                    "back",
                    f"progress went back to revision {revision} after {self.promised}",
                    f"Progress at {self.promised} had been announced to this watch. A progress notification carries the store's current "
                    f"revision, and a store does not go back: {revision} is older.",
                    (self._shown(self.promise), self._shown(item)),
                    revision,
                )
        elif message.watch_id != ALL_WATCHES and self.start > 0 and revision < self.start - 1:
            self._break(
                "WATCH-START",
                "progress",
                f"progress at revision {revision} was announced to a watch that begins at {self.start}",
                f"Progress at {revision} tells this watch's client that it may resume from {revision + 1}; the watch was asked to begin at "
                f"{self.start}, and resumed from there it delivers events that were never asked for (#20221).",
                (self._asked(), self._shown(item)),
                revision,
            )
        if revision > self.promised:
            self.promised, self.promise_index = revision, self.index

    def _canceled(self, item: StreamMessage, message: WatchResponse) -> None:
        watch, truth = self.watch, self.truth
        if message.compact_revision == 0 or self.start < 0:
            if watch.cancel_sent is None and message.compact_revision == 0 and not watch.user:
                self._break(
                    "WATCH-CANCEL",
                    "unasked",
                    "a watch was cancelled though nobody asked for it",
                    "The client sent no cancel request for this watch, the create request had been accepted, and the message names no "
                    "compaction.",
                    (self._asked(), self._shown(item)),
                )
            return
        # First revision not yet due. For a watch from now, the stream had shown the store at `floor`, so it was registered there or later.
        due = max(self.start if self.start > 0 else watch.floor, self.last + 1)
        if not truth.compacted_at(message.compact_revision, item.time):
            self._break(
                "WATCH-CANCEL",
                "never compacted",
                f"a watch was cancelled for a compaction at revision {message.compact_revision} that nobody had asked for",
                f"No recorded request to compact at revision {message.compact_revision} was sent before this message came.",
                (self._asked(), self._shown(item)),
                message.compact_revision,
            )
        elif not truth.compacted_above(due, item.time):
            self._break(
                "WATCH-CANCEL",
                "not reached",
                f"a watch that had everything before revision {due} was cancelled for a compaction at {message.compact_revision}",
                f"A compaction at a revision keeps the events of that revision and later. What this watch still had to deliver begins at "
                f"{due}; no compaction above {due} had been asked for when the message came.",
                (self._asked(), *self._last_shown(), self._shown(item)),
                message.compact_revision,
            )

    def _header(self, item: StreamMessage) -> None:
        revision = item.message.header.revision
        truth = self.truth
        if truth.invoked_after(revision, item.time):
            if self._news("WATCH-PROGRESS", "early"):
                self._break(
                    "WATCH-PROGRESS",
                    "early",
                    f"a watch spoke of revision {revision} before the request that wrote it was sent",
                    f"The header says that the store stood at revision {revision}, and a write at or below that revision was asked for "
                    "only after this message had come.",
                    (self._shown(item), *self._written(truth.first_invoked_after(item.time))),
                    revision,
                )
        elif revision > truth.newest and revision < truth.limit:
            reachable = truth.reachable(item.time)
            if reachable is not None and revision > reachable:
                if self._news("WATCH-PROGRESS", "beyond"):
                    self._break(
                        "WATCH-PROGRESS",
                        "beyond",
                        f"a watch spoke of revision {revision} when at most revision {reachable} can have existed",
                        "The store began empty at revision 1 and each request makes at most one revision (a lease that expires counts for "
                        f"its grant). The requests sent when this message came, less those whose revision is known, reach {reachable} "
                        "at most.",
                        (self._shown(item),),
                        revision,
                    )

    # ---- order of delivery ----

    def _backwards(self, item: StreamMessage, revision: int, group: tuple[Event, ...]) -> None:
        """`revision` should not come (again, any more, or at all). One cause is told once: the first of these that fits."""
        if revision < self.floor:
            where = f"from revision {self.start}" if self.start > 0 else "from now on"
            told = "" if self.start > 0 else f"; the same stream had shown revision {self.floor} before the watch was asked for"
            if self._news("WATCH-START", "event"):
                self._break(
                    "WATCH-START",
                    "event",
                    f"a watch {where} delivered revision {revision}",
                    f"The create request asks for events {where}{told}. Revision {revision} lies before it.",
                    (self._asked(), self._shown(item), *self._written(revision)),
                    revision,
                )
            if revision < self.last:
                self.returned.add(revision)
            return
        if revision < self.last:
            self.returned.add(revision)
            if self._news("WATCH-ORDERED", ""):
                self._break(
                    "WATCH-ORDERED",
                    "",
                    f"revision {revision} came after revision {self.last} on one watch",
                    f"The watch had delivered revision {self.last}; then it went back to {revision}.",
                    (*self._last_shown(), self._shown(item), *self._written(revision)),
                    revision,
                )
            return
        if revision == self.last:
            if not self.last_changes:
                self.last_changes = frozenset(map(_change, self.last_group))
            again = [event for event in group if _change(event) in self.last_changes]
            self.last_changes |= set(map(_change, group))
            self._complete(revision, group)
            if again:
                if self._news("WATCH-UNIQUE", ""):
                    self._break(
                        "WATCH-UNIQUE",
                        "",
                        f"key {telling.text(again[0].kv.key)} at revision {revision} was delivered twice on one watch",
                        "Both messages carry the same change of the same key at the same revision.",
                        (*self._last_shown(), self._shown(item), *self._written(revision)),
                        revision,
                        again[0].kv.key,
                    )
            else:
                if self._news("WATCH-ATOMIC", ""):
                    self._break(
                        "WATCH-ATOMIC",
                        "",
                        f"revision {revision} came in two messages",
                        f"One message ended with revision {revision} and the next went on with it, so that a client saw half of a "
                        "transaction.",
                        (*self._last_shown(), self._shown(item), *self._written(revision)),
                        revision,
                    )
            return
        if revision <= self.promised:
            kind = "for all" if self.promise is not None and self.promise.message.watch_id == ALL_WATCHES else "own"
            if self._news("WATCH-BOOKMARKABLE", kind):
                self._break(
                    "WATCH-BOOKMARKABLE",
                    kind,
                    f"revision {revision} came after progress at {self.promised} had been announced",
                    f"Progress at {self.promised} says that everything up to it has been delivered; revision {revision} came later on that "
                    "watch. A client that resumed from the announced revision would have lost it.",
                    (self._asked(), self._shown(self.promise), self._shown(item), *self._written(revision)),
                    revision,
                )

    def _doubled(self, item: StreamMessage, revision: int, group: tuple[Event, ...]) -> None:
        """The same change twice in one message. `group` is in key order, and in the transaction's order within a key.

        A transaction may put and delete a key (a range open to the end is not checked for overlap), in turns, never the same twice running.
        """
        for one, other in pairwise(group):
            if _change(one) == _change(other):
                if self._news("WATCH-UNIQUE", "in one message"):
                    self._break(
                        "WATCH-UNIQUE",
                        "in one message",
                        f"key {telling.text(one.kv.key)} at revision {revision} was delivered twice in one message",
                        "No transaction makes the same change of a key twice running; the message carries it twice at one revision.",
                        (self._shown(item), *self._written(revision)),
                        revision,
                        one.kv.key,
                    )

    def _filter(self, item: StreamMessage, group: tuple[Event, ...]) -> None:
        low, high, filters = self.low_key, self.high_key, self.request.filters
        for event in group:
            key = event[1][0]
            if key < low or (high is not None and key >= high):
                if self._news("WATCH-FILTER", "key"):
                    self._break(
                        "WATCH-FILTER",
                        "key",
                        f"a watch on {telling.key_range(self.request.key, self.request.range_end)} delivered key {telling.text(key)}",
                        "The key lies outside the range that was asked for.",
                        (self._asked(), self._shown(item)),
                        event.kv.mod_revision,
                        key,
                    )
            elif filters and (wire.NOPUT if event.type == wire.PUT else wire.NODELETE) in filters:
                if self._news("WATCH-FILTER", "type"):
                    self._break(
                        "WATCH-FILTER",
                        "type",
                        f"a watch that filters {'puts' if event.type == wire.PUT else 'deletes'} delivered one of key {telling.text(key)}",
                        "The create request names this type of event in its filters.",
                        (self._asked(), self._shown(item)),
                        event.kv.mod_revision,
                        key,
                    )

    # ---- content ----

    def _content(self, item: StreamMessage, revision: int, group: tuple[Event, ...], known: tuple[Event, ...]) -> None:
        """`group` is what came of the proven `revision`, `known` what it did."""
        if group == known:  # mostly the same objects, and then nothing differs and nothing lacks, whatever the request matches
            return
        if len(known) == 1 and len(group) == 1 and known[0].kv.key == group[0].kv.key:
            self._event(item, group[0], known[0])
            return
        expected = self.truth.expected(self.request, revision) if self.narrow else known
        left = list(known)
        for event in group:
            same_key = [made for made in left if made.kv.key == event.kv.key]
            # A key that is put and deleted in one transaction has two events; each delivered one stands for the one it equals.
            made = min(same_key, key=lambda made: (made.type != event.type, made.kv != event.kv), default=None)
            if made is not None:
                left.remove(made)
                self._event(item, event, made)
            elif not any(_change(other) == _change(event) for other in known):
                self._invented(item, event)
        delivered = set(map(_change, group))
        lacking = tuple(event for event in expected if _change(event) not in delivered)
        if lacking and revision == self.last and revision not in self.short and not self.last_changes:
            self.short[revision] = (lacking, self.index)

    def _complete(self, revision: int, group: tuple[Event, ...]) -> None:
        """More of a revision that had been delivered in part."""
        if revision in self.short:
            lacking, index = self.short[revision]
            delivered = set(map(_change, group))
            rest = tuple(event for event in lacking if _change(event) not in delivered)
            if rest:
                self.short[revision] = (rest, index)
            else:
                del self.short[revision]

    def _event(self, item: StreamMessage, event: Event, made: Event) -> None:
        if event.type != made.type or event.kv != made.kv:
            if self._news("WATCH-CONTENT", "differs"):
                self._break(
                    "WATCH-CONTENT",
                    "differs",
                    f"a watch says of revision {made.kv.mod_revision}: {telling.event(event)}; the history says: {telling.event(made)}",
                    "What the watch delivered is not what happened to this key at this revision.",
                    (self._shown(item), *self._written(made.kv.mod_revision)),
                    made.kv.mod_revision,
                    made.kv.key,
                )
        elif event.prev_kv is not made.prev_kv:
            self._prev(item, event, made)

    def _invented(self, item: StreamMessage, event: Event) -> None:
        revision = event.kv.mod_revision
        if self._news("WATCH-CONTENT", "invented"):
            self._break(
                "WATCH-CONTENT",
                "invented",
                f"a watch says that revision {revision} did {telling.event(event)}; the history says that it did not touch that key",
                "The complete effect of this revision is known, and this event is not part of it.",
                (self._shown(item), *self._written(revision)),
                revision,
                event.kv.key,
            )

    def _prev(self, item: StreamMessage, event: Event, made: Event) -> None:
        """The change is right; `event.prev_kv` and `made.prev_kv` are different objects."""
        revision = event.kv.mod_revision
        if not self.truth.ordered or event.prev_kv == made.prev_kv:
            return
        if made.prev_kv is not None and made.prev_kv.mod_revision == revision:
            # etcd reads the value at the revision before: of what one transaction put and deleted, that is what its first change replaced.
            first = next((other for other in self.truth.proven.get(revision) or () if other.kv.key == made.kv.key), made)
            made = made._replace(prev_kv=None if first == made else first.prev_kv)
            if event.prev_kv == made.prev_kv:
                return
        creates = event.type == wire.PUT and event.kv.version == 1
        if made.prev_kv is None and not creates:
            return  # What stood there before was never seen (the store did not begin empty).
        if event.prev_kv is not None:
            had = "nothing, for this put creates the key" if made.prev_kv is None else telling.key_value(made.prev_kv)
            if self._news("WATCH-PREV-KV", "wrong"):
                self._break(
                    "WATCH-PREV-KV",
                    "wrong",
                    f"prev_kv of key {telling.text(event.kv.key)} at revision {revision} is not what revision {revision} replaced",
                    f"The event carries {telling.key_value(event.prev_kv)}; replaced was {had}.",
                    (self._shown(item), *self._written(made.prev_kv.mod_revision if made.prev_kv is not None else revision)),
                    revision,
                    event.kv.key,
                )
            return
        asked_to_end = self.watch.cancel_sent is not None and item.time >= self.watch.cancel_sent
        if creates or not self.request.prev_kv or asked_to_end or self.truth.may_be_compacted(revision, item.time):
            return  # The server forgets what a watch asked for while it cancels it, before the last messages have left.
        assert made.prev_kv is not None
        # The one known way to lose them: the server notes what a watch asked for after it has registered it, so that the first message,
        # collected in between, is made without. Nothing of that message has its previous value then, and every later one does.
        unnoted = self.last_index < 0 and all(each.prev_kv is None for each in item.message.events)
        code = "WATCH-PREV-KV-FIRST" if unnoted else "WATCH-PREV-KV"
        if self._news(code, "missing"):
            self._break(
                code,
                "missing",
                f"key {telling.text(event.kv.key)} at revision {revision} came without the prev_kv that was asked for",
                f"The watch asked for previous values. Revision {revision} replaced {telling.key_value(made.prev_kv)}, and no compaction "
                "at or above it had been asked for when the message came."
                + (" Nothing in the watch's first message has one." if unnoted else ""),
                (self._asked(), self._shown(item), *self._written(made.prev_kv.mod_revision)),
                revision,
                event.kv.key,
            )

    def _unproven(self, item: StreamMessage, revision: int, group: tuple[Event, ...]) -> None:
        """Nothing is proven of `revision`: an event must make sense in itself, and watches must agree on it."""
        known = self.truth.watched
        if revision < self.truth.limit:
            told = known.events.get(revision, _NO_EVENTS)
        else:
            told = known.by_member.get(self.watch.member, _NOTHING_TOLD).get(revision, _NO_EVENTS)
        for event in group:
            reason = _nonsense(event)
            if reason:
                if self._news("WATCH-CONTENT", "nonsense"):
                    self._break(
                        "WATCH-CONTENT",
                        "nonsense",
                        f"an event of revision {revision} contradicts itself: {reason}",
                        f"The event: {event!r}.",
                        (self._shown(item),),
                        revision,
                        event.kv.key,
                    )
            if revision in known.differing:
                continue  # Said once, as the difference between the members.
            for other in told:
                if other is not event and _change(other) == _change(event) and other.kv != event.kv:
                    if self._news("WATCH-CONTENT", "watches disagree"):
                        self._break(
                            "WATCH-CONTENT",
                            "watches disagree",
                            f"two watches tell revision {revision} differently: {telling.event(event)}, and {telling.event(other)}",
                            "Every watch shows the same change of a key at a revision, whatever its filter, member and time.",
                            (self._shown(item), *self._elsewhere(revision)),
                            revision,
                            event.kv.key,
                        )

    # ---- what did not come ----

    def _missing(self) -> None:
        if self.promise_index >= 0:
            if self.at < 0:
                self.at = self._begin()
            if type(self.due) is range and self.promised < self.truth.limit and not self._overstated():
                # A header that names a revision says that it exists, and so that it has an event, which a watch of everything must have.
                self.due = range(2, max(len(self.due) + 2, self.promised + 1))
            upto = bisect_right(self.due, self.promised)
            if upto > self.at:
                self.gaps.append((self.at, upto, self.promise_index))
        self._unseen()
        passed: dict[int, int] = {}
        for begin, end, index in self.gaps:
            passed.update((revision, index) for revision in self.due[begin:end] if revision not in self.returned)
        before = [revision for revision in passed if self.start > 0 and (not self.first or revision < self.first)]
        after = [revision for revision in passed if self.start <= 0 or (self.first and revision > self.first)]
        for code, revisions in (("WATCH-RESUMABLE", before), ("WATCH-RELIABLE", after)):
            for revision in revisions[:1]:
                self._gap(code, revision, self.truth.expected(self.request, revision), passed[revision], len(revisions))
        if not passed:
            parts = [revision for revision in self.short if revision not in self.returned]
            for revision in parts[:1]:
                events, index = self.short[revision]
                # The first revision of a watch is where compaction meets it: half of it missing is a start that went wrong.
                code = "WATCH-RESUMABLE" if self.start > 0 and revision == self.first else "WATCH-RELIABLE"
                self._gap(code, revision, events, index, len(parts))

    def _unseen(self) -> None:
        """Progress at a revision that only requests can have made which this watch would have seen."""
        item, truth = self.promise, self.truth
        if not self.narrow or item is None or not truth.ordered or not self.start <= truth.newest or self._overstated():
            return
        reachable = truth.reachable(item.time, unseen_by=self.request)
        if reachable is None or not max(self.last, reachable) < self.promised < truth.limit:
            return
        self._break(
            "WATCH-RELIABLE",
            "unseen",
            f"progress at revision {self.promised}, but nothing delivered above {max(self.last, truth.newest)}",
            f"Everything up to revision {truth.newest} is known. Of the requests that may have made the revisions above it, all but "
            f"{reachable - truth.newest} make nothing but events that match this watch, so that it must have had one to deliver.",
            (self._asked(), *self._last_shown(), self._shown(item)),
            self.promised,
        )

    def _overstated(self) -> bool:
        """True where a header of this watch was found to name a revision that cannot have existed."""
        return ("WATCH-PROGRESS", "beyond") in self.broken or ("WATCH-PROGRESS", "early") in self.broken

    def _gap(self, code: str, revision: int, events: tuple[Event, ...], index: int, count: int) -> None:
        item = self.watch.messages[index]
        by = f"delivered revision {self._passing(item, revision)}" if item.message.events else f"announced progress at {self.promised}"
        begins = f"begins at revision {self.start}" if self.start > 0 else f"begins after revision {self._created_at()}"
        at_compaction = " It is the revision of a compaction (#18089, #19179)." if self._compacted_here(revision, item.time) else ""
        more = f" {count} revisions are missing in all." if count > 1 else ""
        what = ", ".join(telling.event(event) for event in events[:3]) or "whatever it did: every revision has an event"
        first = self._last_before(index)
        self._break(
            code,
            "compacted" if at_compaction else f"{'event' if item.message.events else 'progress'} {_types(events)}",
            f"a watch that {begins} never delivered revision {revision} ({what}), and {by}",
            f"Revision {revision} matches the request and lies between the watch's begin and what it has passed.{at_compaction}{more}",
            (self._asked(), *first, self._shown(item), *self._written(revision)),
            revision,
            events[0].kv.key if events else None,
        )

    def _passing(self, item: StreamMessage, revision: int) -> int:
        return next((event.kv.mod_revision for event in item.message.events if event.kv.mod_revision >= revision), self.last)

    def _compacted_here(self, revision: int, by: int) -> bool:
        return self.truth.closed and self.truth.compacted_at(revision, by)

    # ---- fragments, and what came too late ----

    def _fragments(self) -> None:
        pieces = self.watch.fragments
        if not pieces:
            return
        if not self.request.fragment:
            self._break(
                "WATCH-FRAGMENT",
                "unasked",
                "a message came in fragments though the watch did not ask for them",
                "Without `fragment` in the create request each message is complete in itself, and a client takes a piece for the whole.",
                (self._asked(), self._shown(pieces[0])),
            )
        finished = [item for item in self.watch.messages if item.message.watch_id != ALL_WATCHES]
        times = [item.time for item in finished]
        for piece in pieces:
            at = bisect_left(times, piece.time)
            if at == len(finished):
                continue  # Never completed because the stream ended, or the record does: no promise is broken.
            last = finished[at].message
            if last.canceled or not last.events or last.header.revision != piece.message.header.revision:
                self._break(
                    "WATCH-FRAGMENT",
                    "not completed",
                    "fragments were followed by another message",
                    "The pieces of one message carry one header; what followed a piece marked as not the last is of another message.",
                    (self._asked(), self._shown(piece), self._shown(finished[at])),
                )

    def _late(self) -> None:
        for item in self.watch.late:
            if item.message.events and self.watch.canceled is not None:
                self._break(
                    "WATCH-CANCEL",
                    "late",
                    "events came for a watch after it had been cancelled",
                    "The cancellation of a watch says that no further events come for it.",
                    (self._asked(), self._shown(self.watch.canceled), self._shown(item)),
                )

    # ---- certificates ----

    def _news(self, code: str, kind: str) -> bool:
        """Whether this rule breaks for the first time; else it is counted, and its wording need not be made."""
        known = self.broken.get((code, kind))
        if known is not None:
            known.times += 1
        return known is None

    def _break(
        self,
        code: str,
        kind: str,
        summary: str,
        explanation: str,
        certificate: tuple[Exhibit, ...],
        revision: int | None = None,
        key: bytes | None = None,
    ) -> None:
        if not self._news(code, kind):
            return
        watch = self.watch
        subject: dict[str, object] = {"member": watch.member, "stream": watch.stream, "watch": watch.id}
        if revision is not None:
            subject["revision"] = revision
        if key is not None:
            subject["key"] = telling.text(key)
        operations = [exhibit.operation for exhibit in certificate if exhibit.operation is not None]
        if operations:
            subject["operations"] = operations
        shape = (kind, *_shape(code, self.request, self._created_at()))
        where = f"member {watch.member}: " if watch.member else ""
        finding = Finding(code, f"{where}{summary}", explanation, certificate, subject, shape)
        self.broken[(code, kind)] = Broken(finding)

    def _created_at(self) -> int:
        return self.watch.created.message.header.revision if self.watch.created is not None else 0

    def _asked(self) -> Exhibit:
        watch = self.watch
        told = f"watch {watch.id} of client {watch.client or watch.stream}: {show_request(watch.request)}"
        end = watch.created.time if watch.created is not None else None
        what = f"{told}; created, header revision {self._created_at()}"
        return Exhibit(what, stream=watch.stream, member=watch.member, start=watch.asked, end=end)

    def _shown(self, item: StreamMessage | None) -> Exhibit:
        watch = self.watch
        if item is None:
            return self._asked()
        return Exhibit(show_message(watch, item.message), stream=watch.stream, member=watch.member, start=item.time, end=item.time)

    def _last_shown(self) -> tuple[Exhibit, ...]:
        return (self._shown(self.last_message),) if self.last_message is not None else ()

    def _last_before(self, index: int) -> tuple[Exhibit, ...]:
        for at in range(index - 1, -1, -1):
            if self.watch.messages[at].message.events:
                return (self._shown(self.watch.messages[at]),)
        return ()

    def _written(self, revision: int) -> tuple[Exhibit, ...]:
        operation = self.truth.writer(revision)
        if operation is not None:
            return (telling.exhibit(operation, f"wrote revision {revision}"),)
        return self._elsewhere(revision)

    def _elsewhere(self, revision: int) -> tuple[Exhibit, ...]:
        """The first delivery of `revision` by another stream, where there was one."""
        seen = self.truth.watched.seen.get(revision)
        if seen is None or seen[1] == self.watch.stream:
            return ()
        time, stream = seen
        what = f"stream {stream} delivered revision {revision}: {telling.events(self.truth.watched.events[revision])}"
        return (Exhibit(what, stream=stream, start=time, end=time),)


def _change(event: Event) -> tuple[bytes, int]:
    return event.kv.key, event.type


def _with_times(one: Broken) -> Finding:
    return replace(one.finding, subject={**one.finding.subject, "times": one.times})


def _nonsense(event: Event) -> str:
    """Why `event` cannot be, whatever happened, or ""."""
    kv = event.kv
    if event.type == wire.DELETE:
        if kv.create_revision or kv.version or kv.value or kv.lease:
            return "a deletion carries nothing but key and revision"
    elif kv.version < 1 or kv.create_revision > kv.mod_revision or (kv.version == 1) != (kv.create_revision == kv.mod_revision):
        return "version 1 belongs to the revision that creates the key, and to no other"
    if event.prev_kv is not None:
        if event.prev_kv.key != kv.key or event.prev_kv.mod_revision >= kv.mod_revision:
            return "prev_kv is of another key, or not older"
        if event.type == wire.PUT and kv.version == 1:
            return "a put that creates the key replaces nothing"
    return ""


def _types(events: tuple[Event, ...]) -> str:
    return "+".join(sorted({"put" if event.type == wire.PUT else "delete" for event in events}))


_TELLING_OPTIONS = {
    "WATCH-FILTER": ("noput", "nodelete"),
    "WATCH-START": ("progress_notify",),
    "WATCH-PREV-KV": ("prev_kv",),
    "WATCH-PREV-KV-FIRST": ("prev_kv",),
    "WATCH-FRAGMENT": ("fragment",),
    "WATCH-ATOMIC": ("fragment",),
}
"""The options that can matter to a rule. Others stay out of a finding's shape: one defect is not nine for nine sets of options."""


def _shape(code: str, request: WatchCreateRequest, created_at: int) -> tuple[str, ...]:
    """What was asked, without key, revision and id: part of a finding's shape."""
    kind = "all" if request.range_end == b"\0" and request.key in (b"", b"\0") else "range" if request.range_end else "key"
    start = "now" if request.start_revision == 0 else "past" if request.start_revision <= created_at else "future"
    return ("watch", kind, start, *(flag for flag in _flags(request) if flag in _TELLING_OPTIONS.get(code, ())))


def _flags(request: WatchCreateRequest) -> tuple[str, ...]:
    named = ("progress_notify", "prev_kv", "fragment")
    filters = tuple("noput" if each == wire.NOPUT else "nodelete" for each in sorted(set(request.filters)))
    return (*(name for name in named if getattr(request, name)), *filters)


def show_request(request: WatchCreateRequest) -> str:
    """A create request in words."""
    start = f"from revision {request.start_revision}" if request.start_revision else "from now"
    flags = "".join(f", {flag}" for flag in _flags(request))
    return f"watch {telling.key_range(request.key, request.range_end)} {start}{flags}"


def show_message(watch: Watch, message: WatchResponse) -> str:
    """A message of a watch in words."""
    head = f"watch {watch.id}, header revision {message.header.revision}"
    if message.canceled:
        why = f" for a compaction at {message.compact_revision}" if message.compact_revision else ""
        return f"{head}: cancelled{why}{f' ({message.cancel_reason})' if message.cancel_reason else ''}"
    if not message.events:
        return f"{head}: progress{' for all watches of the stream (watch_id -1)' if message.watch_id == ALL_WATCHES else ''}"
    revisions = sorted({event.kv.mod_revision for event in message.events})
    span = f"revision {revisions[0]}" if len(revisions) == 1 else f"revisions {revisions[0]} to {revisions[-1]}"
    return f"{head}{', fragment' if message.fragment else ''}: {span} {telling.events(message.events)}"

"""Is there a legal order? The reference search, in plain Python.

Wing and Gong's search with Lowe's memory of configurations, and what keeps it small. A *configuration* is (which operations have been put
in order, state of the object). All operations whose call comes before the first return that is still to pass can be next:

::

    time ─────────────────────────────────────────>
    a  ├───────┤ .                                     a, b and d are enabled: nothing has returned before they were called.
    b    ├───────┼──┤        front: the first return   c is not: a must come before it.
    c            .  ├─────┤  of what is not yet in     d never returned: it may come now, later, or never.
    d      ├─────┼───────────────────────────────>     order

Rules, each exact: a branch is dropped only where another one that is kept leads to an order whenever it does (checked against brute force).

1. read commitment   an enabled, legal operation of a class that changes no state at all is put in at once: it is legal here, does not
                     matter to the others, and nothing is gained by waiting
2. symmetry          of enabled operations of one class only the one that returns first is tried: two of a class can change places
3. optional          what never returned need not be put in; where it would change nothing, it is not
4. dominance         a configuration that differs from one already seen only by having used more of the optional operations is dropped
5. last producer     a state is not left while operations still need it and too few can produce it again (Hints.requires, .produces);
                     an optional operation is not put in while nobody needs what it produces
6. viability         a state is dropped from which one of the next goals can no longer be reached, neither from it nor from where a reset
                     called before the goal's return leads (Hints.goals, .resets, .viable; .produces tells where resets lead)

Configurations are remembered exactly: what is in order is known from the front and from which of the operations that are open there are in.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass

from pekan.checkers.linearizability.question import ILLEGAL, NOTHING, UNSAID, Answer, Bound, Question

EVENTS_AHEAD = 64
GOALS_AHEAD = 4
"""Events and goals that the viability rule looks ahead. Of 50 clients' texts, four goals leave as few configurations as any number of them
does, in two thirds of the time that sixteen take."""
BYTES_A_CONFIGURATION = 250
"""Key (a tuple of three integers), list and mask of one remembered configuration in CPython, about."""
HEAD = 0
"""Node 0 of a list: before its first and behind its last."""


class Lists:
    """Calls and returns in order of time, as two linked lists (operations that returned, and the others) from which nodes can be taken
    out and put back in the opposite order."""

    __slots__ = ("call_node", "is_return", "later", "mandatory", "next", "operation", "optional", "previous", "return_node", "twin")

    def __init__(self, q: Question) -> None:
        count = len(q.call)
        # What never returned and changes nothing is not needed by anybody.
        self.optional = [o for o in range(count) if q.ret[o] is None and not q.readonly[q.of[o]]]
        self.optional.sort(key=lambda o: (q.call[o], o))
        self.mandatory = sum(ret is not None for ret in q.ret)
        events = [(q.call[o], False, o) for o in range(count) if q.ret[o] is not None]
        events += [(ret, True, o) for o, ret in enumerate(q.ret) if ret is not None]
        events += [(q.call[o], False, o) for o in self.optional]
        events.sort()  # A call before a return of the same time: closed intervals.
        size = len(events) + 1
        self.is_return, self.operation = [False] * size, [-1] * size
        self.call_node, self.return_node = [0] * count, [sys.maxsize] * count
        self.next, self.previous = [HEAD] * size, [HEAD] * size
        self.later: list[int] = []  # Nodes of the calls of optional operations: `optional` by node.
        last = HEAD
        for node, (_, is_return, o) in enumerate(events, 1):
            self.operation[node], self.is_return[node] = o, is_return
            (self.return_node if is_return else self.call_node)[o] = node
            if q.ret[o] is not None:
                self.next[last], self.previous[node] = node, last
                last = node
        self.previous[HEAD] = last
        # The optional operation of the same class that was called before it: of two that are left, the earlier is tried.
        self.twin = [-1] * count
        latest: dict[int, int] = {}
        for o in self.optional:
            self.twin[o] = latest.get(q.of[o], -1)
            latest[q.of[o]] = o

    def take(self, node: int) -> None:
        """Out of its list."""
        before, after = self.previous[node], self.next[node]
        self.next[before], self.previous[after] = after, before

    def put_back(self, node: int) -> None:
        """The node taken last, where it was."""
        self.next[self.previous[node]] = node
        self.previous[self.next[node]] = node


class Needs:
    """Who still needs a state and who can still produce it, among operations that are not yet in order."""

    __slots__ = ("consumers", "consumes", "forgetful", "makers", "produces", "requires", "takers", "wanted", "wild")

    def __init__(self, q: Question, optional: list[int]) -> None:
        hints = q.hints
        classes = range(len(q.readonly))
        self.requires = list(hints.requires) or [UNSAID] * len(classes)
        self.produces = [NOTHING if q.readonly[c] else (hints.produces or [UNSAID] * len(classes))[c] for c in classes]
        # Every class either keeps the state or replaces it by one that does not depend on it.
        self.forgetful = UNSAID not in self.requires and UNSAID not in self.produces
        self.consumes = [r >= 0 and not q.readonly[c] and self.produces[c] != r for c, r in enumerate(self.requires)]
        self.wild = 0  # Operations that might produce any state.
        self.makers: dict[int, int] = {}  # state -> operations that produce it
        self.wanted: dict[int, int] = {}  # state -> operations that returned and require it
        self.consumers: dict[int, int] = {}  # state -> those among them that leave it
        self.takers: dict[int, int] = {}  # state -> optional operations that require it
        for o, c in enumerate(q.of):
            if q.ret[o] is not None:
                self.count(c, False, 1)
        for o in optional:
            self.count(q.of[o], True, 1)

    def count(self, c: int, optional: bool, by: int) -> None:
        """One operation of class `c` less (-1) or more (1) to put in order."""
        required, produced = self.requires[c], self.produces[c]
        if produced == UNSAID:
            self.wild += by
        elif produced >= 0:
            self.makers[produced] = self.makers.get(produced, 0) + by
        if required >= 0:
            table = self.takers if optional else self.wanted
            table[required] = table.get(required, 0) + by
            if self.consumes[c] and not optional:
                self.consumers[required] = self.consumers.get(required, 0) + by

    def starved(self, state: int, now: int) -> bool:
        """True where operations need `state`, and it cannot come often enough. `now` is the present state."""
        if self.wild or not self.wanted.get(state):
            return False
        return self.makers.get(state, 0) + (now == state) < max(1, self.consumers.get(state, 0))

    def useless(self, c: int) -> bool:
        """True where an optional operation of class `c` would produce what nobody needs."""
        return self.forgetful and not self.wanted.get(self.produces[c]) and not self.takers.get(self.produces[c])


@dataclass(slots=True)
class Choice:
    """A configuration with several ways on: first `ways`, then the optional operations behind `cursor`."""

    state: int
    used: int
    length: int
    front: int
    ways: list[int]
    tried: int = 0
    cursor: int = HEAD


class Search:
    """The search for one question; `run` goes on where it stopped."""

    def __init__(self, question: Question) -> None:
        q = self.question = question
        self.lists = Lists(q)
        self.needs = Needs(q, self.lists.optional) if q.hints.requires else None
        self.goals = _Goals(q) if q.hints.viable is not None else None
        self.transitions: dict[tuple[int, int], int] = {}
        self.seen: dict[tuple[int, int, int], list[int]] = {}
        self.choices: list[Choice] = []
        self.order: list[int] = []
        self.best: list[int] = []
        self.best_front = 0
        self.bit = self._bits()
        self.state, self.left = q.init, self.lists.mandatory
        self.used = 0  # Optional operations in order, as a mask.
        self.inside = 0  # Mandatory ones, as a mask over the places of `_bits`; see there.
        self.steps = 0
        self.verdict = "unknown"

    def _bits(self) -> list[int]:
        """A bit for each operation: optional ones each their own; of the others, those open at one time have different ones.

        A bit is flipped when an operation is put in order. All operations that returned before the front are in order, so the front tells
        what they have flipped, and the mask tells the rest: (front, mask) stands for exactly one set of operations.
        """
        bit = [0] * len(self.question.call)
        for i, o in enumerate(self.lists.optional):
            bit[o] = 1 << i
        free: list[int] = []
        places = 0
        node = self.lists.next[HEAD]
        while node != HEAD:
            o = self.lists.operation[node]
            if self.lists.is_return[node]:
                free.append(bit[o])
            elif free:
                bit[o] = free.pop()
            else:
                bit[o] = 1 << places
                places += 1
            node = self.lists.next[node]
        return bit

    # ---- the search ----

    def run(self, steps: int) -> bool:
        """Go on until the answer is known (True) or `steps` transitions have been looked at since the beginning."""
        if self.verdict == "unknown" and not self.steps and self._hopeless():
            self.verdict = "illegal"
        while self.verdict == "unknown":
            if self.steps >= steps:
                return False
            if self._arrive():
                self.verdict = "ok"
            elif not self._go_on():
                self.verdict = "illegal"
        return True

    def _arrive(self) -> bool:
        """A new configuration: commit reads, and keep it as a choice where it is worth one. True where everything is in order."""
        q, lists, state = self.question, self.lists, self.state
        following, is_return, operation, return_node = lists.next, lists.is_return, lists.operation, lists.return_node
        ways: dict[int, int] = {}
        node = following[HEAD]
        while node != HEAD and not is_return[node]:
            o = operation[node]
            c = q.of[o]
            if q.readonly[c]:
                self.steps += 1
                after = self._step(state, c)
                if after == state:
                    self._put_in(o)
                elif after != ILLEGAL:
                    raise ValueError(f"class {c} is declared read-only and leads from state {state} to {after}")
            else:
                other = ways.get(c)
                if other is None or return_node[o] < return_node[other]:
                    ways[c] = o
            node = following[node]
        if not self.left:
            return True
        if (node, len(self.order)) > (self.best_front, len(self.best)):
            self.best_front, self.best = node, self.order.copy()
        if self.goals is not None:
            if self._lost(node, ways):
                return False
        if not self._dominated(node):
            self.choices.append(Choice(state, self.used, len(self.order), node, sorted(ways.values(), key=return_node.__getitem__)))
        return False

    def _dominated(self, front: int) -> bool:
        """True where the same was seen with no more optional operations used; else it is remembered."""
        seen = self.seen.setdefault((front, self.inside, self.state), [])
        used = self.used
        if any(not other & ~used for other in seen):
            return True
        seen[:] = [other for other in seen if used & ~other]
        seen.append(used)
        return False

    def _go_on(self) -> bool:
        """To the next way of the latest choice that has one; False where there is none left."""
        while self.choices:
            choice = self.choices[-1]
            self._take_back(choice.length)
            self.state, self.used = choice.state, choice.used
            while choice.tried < len(choice.ways):
                o = choice.ways[choice.tried]
                choice.tried += 1
                if self._try(o):
                    return True
            while (o := self._next_optional(choice)) >= 0:
                if self._try(o):
                    return True
            self.choices.pop()
        return False

    def _next_optional(self, choice: Choice) -> int:
        """The next optional operation worth trying at `choice`, -1 where there is none."""
        q, lists = self.question, self.lists
        while choice.cursor < len(lists.optional):
            o = lists.optional[choice.cursor]
            if lists.call_node[o] > choice.front:
                break
            choice.cursor += 1
            c = q.of[o]
            if self.used & self.bit[o] or (lists.twin[o] >= 0 and not self.used & self.bit[lists.twin[o]]):
                continue
            if any(q.of[way] == c for way in choice.ways) or (self.needs is not None and self.needs.useless(c)):
                continue
            return o
        return -1

    def _try(self, o: int) -> bool:
        """Put `o` in order; False (and nothing done) where that is illegal or leads nowhere."""
        q, state = self.question, self.state
        c, optional = q.of[o], q.ret[o] is None
        self.steps += 1
        after = self._step(state, c)
        if after == ILLEGAL or (optional and after == state):
            return False
        self._put_in(o)
        self.state = after
        if self.needs is not None and self.needs.starved(state, after):
            self._take_back(len(self.order) - 1)
            self.state = state
            return False
        return True

    def _put_in(self, o: int) -> None:
        self.order.append(o)
        if self.question.ret[o] is None:
            self.used |= self.bit[o]
        else:
            self.lists.take(self.lists.return_node[o])
            self.lists.take(self.lists.call_node[o])
            self.inside ^= self.bit[o]
            self.left -= 1
        if self.needs is not None:
            self.needs.count(self.question.of[o], self.question.ret[o] is None, -1)

    def _take_back(self, length: int) -> None:
        """The last operations, until `length` are in order."""
        while len(self.order) > length:
            o = self.order.pop()
            if self.question.ret[o] is None:
                self.used &= ~self.bit[o]
            else:
                self.lists.put_back(self.lists.call_node[o])
                self.lists.put_back(self.lists.return_node[o])
                self.inside ^= self.bit[o]
                self.left += 1
            if self.needs is not None:
                self.needs.count(self.question.of[o], self.question.ret[o] is None, 1)

    def _step(self, state: int, c: int) -> int:
        after = self.transitions.get((state, c))
        if after is None:
            after = self.transitions[state, c] = self.question.step(state, c)
        return after

    # ---- what cannot come out well ----

    def _hopeless(self) -> bool:
        """True where some operation needs a state that nobody can produce; `blocked` is then the first of them to return."""
        needs = self.needs
        if needs is None:
            return False
        starved = {state for state in needs.wanted if needs.starved(state, self.state)}
        if starved:
            q, node = self.question, self.lists.return_node
            self.best_front = min(node[o] for o in range(len(q.of)) if q.ret[o] is not None and needs.requires[q.of[o]] in starved)
        return bool(starved)

    def _lost(self, front: int, ways: Collection[int]) -> bool:
        """True where some goal can be reached neither from the present state nor from where a reset that comes before it may lead."""
        goals, q, lists = self.goals, self.question, self.lists
        assert goals is not None
        starts = [self.state, *(goals.lands[c] for c in ways if goals.resets[c])]
        unused = [o for o in lists.optional if goals.resets[q.of[o]] and not self.used & self.bit[o]]
        met = looked = 0
        node = front
        for _ in range(EVENTS_AHEAD):
            if node == HEAD or looked == GOALS_AHEAD:
                break
            while met < len(unused) and lists.call_node[unused[met]] < node:
                starts.append(goals.lands[q.of[unused[met]]])
                met += 1
            c = q.of[lists.operation[node]]
            if not lists.is_return[node]:
                if goals.resets[c]:
                    starts.append(goals.lands[c])
            elif goals.goals[c]:
                if not any(start == UNSAID or goals.viable(start, c) for start in starts):
                    return True
                looked += 1
            node = lists.next[node]
        return False

    # ---- the answer ----

    def memory_bytes(self) -> int:
        """What the search holds, about."""
        return BYTES_A_CONFIGURATION * (len(self.seen) + len(self.transitions))

    def answer(self, bound: Bound = "") -> Answer:
        """What is known now."""
        counts = (self.steps, sum(map(len, self.seen.values())), len(self.transitions))
        if self.verdict == "ok":
            return Answer("ok", tuple(self.order), -1, "", *counts)
        blocked = self.lists.operation[self.best_front] if self.best_front else -1
        if self.verdict == "illegal":
            return Answer("illegal", tuple(self.best), blocked, "", *counts)
        return Answer("unknown", tuple(self.best), blocked, bound, *counts)


class _Goals:
    """The viability hints, and each of their answers asked once."""

    __slots__ = ("_answers", "_ask", "goals", "lands", "resets")

    def __init__(self, q: Question) -> None:
        assert q.hints.viable is not None
        self._ask = q.hints.viable
        self._answers: dict[tuple[int, int], bool] = {}
        self.goals = list(q.hints.goals) or [True] * len(q.readonly)
        self.resets = [resets and not readonly for resets, readonly in zip(q.hints.resets, q.readonly, strict=True)]
        # Where a reset leads; NOTHING, of one that is no reset, is never looked at.
        self.lands = [state if state >= 0 else UNSAID for state in q.hints.produces] or [UNSAID] * len(q.readonly)

    def viable(self, state: int, c: int) -> bool:
        """`Hints.viable`, remembered."""
        found = self._answers.get((state, c))
        if found is None:
            found = self._answers[state, c] = bool(self._ask(state, c))
        return found

"""A register whose writes are distinct: zones (Gibbons and Korach 1997). The reference of native/crates/linear/src/monitors/register.rs.

A write and the reads that saw its value are a cluster: A must be altogether before B where some operation of A returned before some
operation of B was called, that is ``first_ret(A) < last_call(B)``. Two clusters for which this holds both ways contradict each other.
Otherwise the clusters can be sorted by it (of a longer cycle, the cluster with the latest `last_call` and the one after it contradict
each other), and each is put down as a block, its write first.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

from pekan.checkers.linearizability.monitors.asked import EMPTY, INSERT, LEGAL, REPEATED, TAKE, Asked, Monitored, illegal, inserts, unknown


def register(asked: Asked) -> Monitored:
    """Whether the reads and writes of `asked` can be put in order."""
    call, ret, value = asked.call, asked.ret, asked.value
    written = inserts(asked)
    # By the place of their write: the first to return and the last to be called, among the write and the reads of its value.
    first = {place: place for place, act in enumerate(asked.act) if act == INSERT}
    last = dict(first)
    untouched = -1
    found = None
    for place, act in enumerate(asked.act):
        if act == TAKE:
            write = written[value[place]]
            if write == -2:
                return REPEATED
            if write == -1:
                found = found or unknown(asked, place, value[place])
                continue
            if ret[place] < ret[first[write]]:
                first[write] = place
            if call[place] > call[last[write]]:
                last[write] = place
            if ret[place] < call[write]:
                found = found or illegal("early", place, write)
        elif act == EMPTY and (untouched < 0 or call[place] > call[untouched]):
            untouched = place
    if found:
        return found
    if untouched >= 0:
        # The zone of the untouched register reaches from before everything to here.
        earliest = min(first.values(), key=lambda place: (ret[place], place), default=-1)
        if earliest >= 0 and ret[earliest] < call[untouched]:
            return illegal("untouched", earliest, untouched)

    def contradict(a: int, b: int) -> Monitored:
        return illegal("zones", first[a], last[b], first[b], last[a])

    forward = sorted((ret[first[write]], write) for write in first if ret[first[write]] < call[last[write]])
    for (_, a), (begin, b) in pairwise(forward):
        if call[last[a]] > begin:
            return contradict(a, b)
    # A zone that ends before it begins, of a cluster all of whose operations overlap, may lie inside none of the others.
    for b in first:
        if call[last[b]] <= ret[first[b]]:
            after = bisect_left(forward, (call[last[b]], -1))
            if after and call[last[forward[after - 1][1]]] > ret[first[b]]:
                return contradict(forward[after - 1][1], b)
    return LEGAL

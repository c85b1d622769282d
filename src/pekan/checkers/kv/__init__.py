"""Did the key-value operations of a history take place in one order, and does that order explain every answer?

::

    collect   operations by the revision their answer names          timing   when each revision can and must have been made
    replay    the store, revision by revision; every answer held against it                ──> Case.order
    pool      who can have written a revision nobody was acknowledged for:  matching where a watch showed it,
    search, facts              else a bounded search led by what later answers show
    compaction, compares, leases, refusals       side questions that only need the order
    forks     where members' histories part                                               ──> Case.fork

etcd tells, in the header of nearly every answer, the revision at which a request took place. So the order is not searched for, it is read
and then verified: linear in the number of operations, except where unanswered writes leave revisions that nobody explains.
"""

from pekan.checkers.kv.check import check_kv

__all__ = ["check_kv"]

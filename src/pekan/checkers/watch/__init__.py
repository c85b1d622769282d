"""Did every watch deliver what it was asked for: all of it, once, in order, and true?

::

    evidence.watches ──> one Watch per create request ──walk──> broken rules of that watch
    Case.order ──> truth: what each revision did, where proven ──┘        (a fork: only below its first revision)

==================  ==================================================================================================================
code                broken when
==================  ==================================================================================================================
WATCH-FILTER        an event's key is outside the range, or its type was filtered
WATCH-START         an event lies below the start asked for (for "now": below what the stream had shown before it was asked), or
                    progress was announced to a watch at least one revision before the last one that it did not ask for
WATCH-ORDERED       an event comes after one of a higher revision
WATCH-UNIQUE        the same key at the same revision comes again
WATCH-ATOMIC        a revision continues in another message
WATCH-BOOKMARKABLE  an event comes at or below a revision up to which progress had been announced
WATCH-RESUMABLE     events between a start in the past and the first delivery are missing
WATCH-RELIABLE      other events are missing below the last delivery or progress
WATCH-CONTENT       an event says something else than the history, or than another watch
WATCH-PREV-KV       a prev_kv is wrong, or missing though no compaction at or above the event had been invoked
WATCH-PROGRESS      a header names a revision that nothing had written by then, or progress goes backwards
WATCH-CANCEL        a cancellation that nobody asked for and no compaction explains, or events after it
WATCH-FRAGMENT      pieces that were not asked for, or of different messages
MEMBER-DIVERGED     two watches of the whole keyspace tell different stories of one revision (where no other finding names the fork)
==================  ==================================================================================================================

A watch is local: it may lag as much as it likes, and where it ends nothing is missing. A message with events promises nothing about what
comes next (a catch-up message carries at most 1,000 revisions), nor does `created` or `canceled`; only progress does. One cause is told
once: an event that went back in time is not also called a duplicate, and a watch with a thousand missing events has one finding.

Four readings that are choices, and why:

* Watch id -1 announces progress to every watch of its stream that is created and not cancelled by then, as client libraries hand it on.
  Only a notification to a watch's own id is held against its start: the one for all may speak for its neighbours.
* Progress before a start in the future breaks no promise by itself where it leads a resuming client to that start; further below, the
  client resumes into events that were never asked for (#20221, mended in 3.4.38, 3.5.22 and 3.6.2).
* A watch from now begins at the created reply's header or before it (newer releases read that header after the watch was registered):
  what came first tells, and nothing below what the stream had shown before may come.
* A resume that delivers an event again delivers below its start: WATCH-START. A client that starts lower gets what it asks for.

Sources: https://etcd.io/docs/latest/learning/api_guarantees/ (watch guarantees), etcd server/etcdserver/api/v3rpc/watch.go and
server/storage/mvcc/watchable_store.go at 3.5.35, 3.6.16 and 3.7.3.
"""

from pekan.checkers.watch.check import check_watch

__all__ = ["check_watch"]

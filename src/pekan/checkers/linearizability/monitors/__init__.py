"""Monitors: linearizability in near-linear time, for objects whose values are distinct.

::

    asked      a history of one object in columns: classified here, once, for both engines
    register   the zones of two values contradict each other                       set     what reads show is a chain, and orders the rest
    queue      what went in first came out later, or it was never empty            stack   bottoms are taken away until none is left
    explain    the few operations of a contradiction, in words

A monitor decides exactly or declines; then the generic engine decides. That values are distinct is checked and not assumed.
"""

from pekan.checkers.linearizability.monitors.asked import Asked, Monitored
from pekan.checkers.linearizability.monitors.classify import classify
from pekan.checkers.linearizability.monitors.decide import decide, monitor
from pekan.checkers.linearizability.monitors.explain import explain

__all__ = ["Asked", "Monitored", "classify", "decide", "explain", "monitor"]

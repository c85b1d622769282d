"""Objects of anybody: is there a sequential object that gave these answers?

::

    choose       which model: the one asked for, the one the file names, or the one its calls look like
    parts        one history ──> its independent objects, each a question in numbers for the linearizability engine
    decide       every part's answer, from whichever engine is quickest and right, and which one it was
    partial      the search where clocks are not shared: only the order within each process counts
    core         of a part that cannot be, the few operations that say so
    explain      these in words
    orders       a legal order of every object, or the one that gets furthest, for a viewer
    etcd         etcd's store as one more such object: a second opinion
"""

from pekan.checkers.objects.check import check_objects
from pekan.checkers.objects.choose import of_objects
from pekan.checkers.objects.etcd import check_generic

__all__ = ["check_generic", "check_objects", "of_objects"]

"""Slow, obvious judges beside Pekan's checkers, and the differential fuzzing between the two.

::

    brute.py     is there any order of the operations that one etcd store could have answered like this?   (tries them all)
    watching.py  did each watch tell the one true story?                                                   (quadratic loops)
    fuzz.py      small random histories, valid and mutated: both must answer alike;  python -m oracle.fuzz --cases N --seed S
    locking.py   histories of locks and elections, step by step, and a slow opinion of each grant;  python -m oracle.locking
    engines.py   the native core beside the reference, over all of these;  python -m oracle.engines, with --locks of locks
"""

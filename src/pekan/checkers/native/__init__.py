"""Checkers of histories that the native core holds: the core looks at everything, Python at what a person will look at.

::

    History.session ──> Evidence ──> (key-value checker) ──> Order ──> Watches ──> ...      in the core: pekan._native
                           │                                   │          │
                        evidence.py                            └──────> watch.py            findings, by the functions of the reference

Each checker gives the report that the reference gives of the same history, or raises `pekan._native.Declined`, and then the reference
judges all of it.
"""

"""Linearizability of any sequential object: is there one order of the operations, each between its call and its return, that it allows?

::

    question   what is asked, in columns of numbers, and what is answered
    engine     several questions, one budget; the native core or the reference
    search     the reference
    core       of an illegal history, the few operations that cannot be ordered
"""

from pekan.checkers.linearizability.engine import solve, solve_all
from pekan.checkers.linearizability.question import ANYWHERE, ILLEGAL, NOTHING, UNSAID, Answer, Budget, Hints, Question

__all__ = ["ANYWHERE", "ILLEGAL", "NOTHING", "UNSAID", "Answer", "Budget", "Hints", "Question", "solve", "solve_all"]

"""Histories of objects for tests, a line an operation.

::

    history("0  write 1      1..3        process, call, times; what a call answers is its value unless said with ->
             1  read -> 1    2..4        `..?` is never answered, `failed` behind the times has no effect
             2  write 2      2..?")
"""

from __future__ import annotations

import ast
import re
from typing import Any

from pekan.history.types import FAILED, INDEFINITE, OK, Call, History, Operation, Outcome

LINE = re.compile(r"(\d+)\s+(\w+)(?:@(\w+))?\s*(.*?)\s*(?:->\s*(.*?))?\s+(\d+)\.\.(\d+|\?)\s*(failed)?$")


def history(text: str, **fields: Any) -> History:
    """The history that `text` tells. Values are Python's; ``f@key`` names an object."""
    operations = []
    for line in filter(str.strip, text.splitlines()):
        match = LINE.match(line.strip())
        assert match is not None, line
        process, f, key, value, output, call, ret, failed = match.groups()
        outcome: Outcome = FAILED if failed else INDEFINITE if ret == "?" else OK
        argument = ast.literal_eval(value) if value else None
        answer = ast.literal_eval(output) if output else argument
        operations.append(
            Operation(
                len(operations),
                int(process),
                int(call),
                None if ret == "?" else int(ret),
                outcome,
                Call(f, argument, key),
                answer if outcome == OK else None,
            )
        )
    operations.sort(key=lambda op: op.call)
    return History(tuple(op._replace(id=i) for i, op in enumerate(operations)), **fields)

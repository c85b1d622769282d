"""What happened: records as bytes, operations and streams as values, and the run directory they lie in.

``load(path)`` reads a recorded run; ``operations(records)`` and ``history_of(records)`` do the same for records in memory.
"""

from pekan.history.reading import UNKNOWN_USER, history_of, is_read, load, operations, outcome_of
from pekan.history.records import Reading, RecordFile, RecordWriter, read_records
from pekan.history.run import RunDirectory
from pekan.history.types import FAILED, INDEFINITE, OK, Call, FaultSpan, History, Mark, Operation, Outcome, Stream, StreamMessage
from pekan.history.values import Keyword, Map, freeze

__all__ = [
    "FAILED",
    "INDEFINITE",
    "OK",
    "UNKNOWN_USER",
    "Call",
    "FaultSpan",
    "History",
    "Keyword",
    "Map",
    "Mark",
    "Operation",
    "Outcome",
    "Reading",
    "RecordFile",
    "RecordWriter",
    "RunDirectory",
    "Stream",
    "StreamMessage",
    "freeze",
    "history_of",
    "is_read",
    "load",
    "operations",
    "outcome_of",
    "read_records",
]

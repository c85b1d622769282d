"""Every error that Pekan raises on purpose, and the exit code each becomes.

::

    PekanError                 exit 2 unless said otherwise
    ├── UsageError             2    the caller asked for something that makes no sense
    ├── EvidenceError          2    a run or history file is unreadable; names file, offset and what was expected
    ├── CoreFailure            2    the native core failed on an input, which is a bug of ours; names the input
    └── EnvironmentFailure     4    this machine could not do it; says what would make it possible
        ├── BinaryUnavailable  4    no provider could produce that etcd
        ├── ClusterFailure     4    etcd did not start, or a port or directory was not to be had
        └── RecorderFailure    4    the record could not be written; traffic has been stopped

Messages are for the person at the terminal: what, where, what to do. `Interrupted` is no error: it ends a hunt with 130.
"""

from __future__ import annotations


class PekanError(Exception):
    """Root of the tree. `exit_code` is what the command line ends with."""

    exit_code = 2


class UsageError(PekanError):
    """An option, a name or a combination that cannot be served."""


class EvidenceError(PekanError):
    """A recorded run or a history that cannot be read as evidence."""


class CoreFailure(PekanError):
    """The native core panicked. The reference in Python does without it (`--engine reference`)."""


class EnvironmentFailure(PekanError):
    """The machine, not the caller, stood in the way."""

    exit_code = 4


class BinaryUnavailable(EnvironmentFailure):
    """No provider could produce the etcd binary that was asked for."""


class ClusterFailure(EnvironmentFailure):
    """The cluster did not start or could not be kept as asked."""


class RecorderFailure(EnvironmentFailure):
    """The history file could not be written; nothing further may be sent."""

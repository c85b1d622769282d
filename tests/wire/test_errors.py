"""The error table: what each error of etcd proves."""

from __future__ import annotations

import pytest

from pekan.wire import errors
from pekan.wire.errors import CODE_NAMES, DEFINITE_TEXTS, INDEFINITE_TEXTS, WireError, is_decided, is_definite


@pytest.mark.parametrize(
    ("code", "message", "definite"),
    [
        (errors.INVALID_ARGUMENT, errors.DUPLICATE_KEY, True),
        (errors.OUT_OF_RANGE, errors.COMPACTED, True),
        (errors.OUT_OF_RANGE, errors.FUTURE_REVISION, True),
        (errors.NOT_FOUND, errors.LEASE_NOT_FOUND, True),
        (errors.FAILED_PRECONDITION, errors.LEASE_EXISTS, True),
        (errors.PERMISSION_DENIED, errors.PERMISSION, True),
        (errors.UNAUTHENTICATED, errors.INVALID_AUTH_TOKEN, True),
        (errors.UNKNOWN, "etcdserver: too many requests", True),
        (errors.RESOURCE_EXHAUSTED, "etcdserver: too many requests", True),
        (errors.UNKNOWN, "etcdserver: re-configuration failed due to not enough started members", True),
        (errors.UNKNOWN, "election: not leader", True),
        (errors.UNKNOWN, "election: no leader", True),
        (errors.UNKNOWN, "mutex: session is expired", False),
        (errors.INVALID_ARGUMENT, errors.AUTH_OLD_REVISION, False),
        (errors.RESOURCE_EXHAUSTED, errors.NO_SPACE, False),
        (errors.UNKNOWN, "raft: stopped", False),
        (errors.UNAVAILABLE, "etcdserver: request timed out", False),
        (errors.UNAVAILABLE, "etcdserver: leader changed", False),
        (errors.UNAVAILABLE, "failed to connect to all addresses", False),
        (errors.DEADLINE_EXCEEDED, "context deadline exceeded", False),
        (errors.CANCELLED, "cancelled", False),
        (errors.DATA_LOSS, "etcdserver: corrupt cluster", False),
        (99, "a code of the future", False),
    ],
)
def test_what_an_error_promises(code: int, message: str, definite: bool) -> None:
    """Each text that etcd sends is definite or indefinite as the taxonomy says; what is unknown is indefinite."""
    assert is_definite(WireError(code, message)) == definite


def test_the_table_agrees_with_itself() -> None:
    """No text is on both lists, every code has its name in place, and exactly the definite codes count as decided by etcd."""
    assert not DEFINITE_TEXTS.keys() & INDEFINITE_TEXTS.keys()
    assert [CODE_NAMES[getattr(errors, name)] for name in CODE_NAMES] == list(CODE_NAMES)
    assert {code for code in range(20) if is_decided(WireError(code, ""))} == errors.DEFINITE_CODES

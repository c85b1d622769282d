"""What an error proves about a request that may have changed something: one table of data.

======================  ============================================================================================
definite                etcd's promise that nothing happens, now or later
indefinite              it may take effect once, at any later time, or never
======================  ============================================================================================

Sources: etcd `api/v3rpc/rpctypes/error.go` (texts and codes), `server/etcdserver/api/v3rpc/util.go` (mapping),
`server/etcdserver/apply/quota.go` (why NOSPACE is indefinite: the quota applier runs the request and then swaps its success for the
error), `server/etcdserver/api/v3election/election.go` (its errors have no code), raft `node.go` (why "raft: stopped" is indefinite: also
returned while waiting for an accepted proposal).

The rule for what is not in the table: codes that etcd uses for argument, state and permission errors are definite, every other code is
indefinite. An error can only ever be *more* uncertain than the truth, so indefinite is the safe side.
"""

from __future__ import annotations

from typing import NamedTuple


class WireError(NamedTuple):
    """A call that ended without a response: the gRPC status code (int) and the status message."""

    code: int
    message: str


OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
ALREADY_EXISTS = 6
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
ABORTED = 10
OUT_OF_RANGE = 11
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
DATA_LOSS = 15
UNAUTHENTICATED = 16

CODE_NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip

DEFINITE_CODES = frozenset(
    {
        INVALID_ARGUMENT,  # malformed requests, and auth failures that etcd files here
        NOT_FOUND,  # lease, member
        PERMISSION_DENIED,
        FAILED_PRECONDITION,  # lease exists, auth not enabled, role and user states, not leader
        OUT_OF_RANGE,  # compacted and future revisions, too large TTL; see #18667 for who keeps this promise
        UNIMPLEMENTED,
        UNAUTHENTICATED,
    }
)

DEFINITE_TEXTS: dict[str, str] = {
    "etcdserver: too many requests": "refused before it is proposed; arrives as UNKNOWN, the server maps it to a value without a status",
    "etcdserver: re-configuration failed due to not enough started members": "refused before it is proposed; UNKNOWN for the same reason",
    "election: not leader": "the transaction's guard did not hold; UNKNOWN, as all errors of the lock and election services are",
    "election: no leader": "an answer to a read; UNKNOWN for the same reason",
    '"leader" field must be provided': "refused before anything is done; UNKNOWN for the same reason",
}
"""Definite whatever the code is: text -> why."""

INDEFINITE_TEXTS: dict[str, str] = {
    "etcdserver: revision of auth store is old": "raised at apply on one member; others may hold another auth revision",
}
"""Indefinite though the code says otherwise: text -> why."""

COMPACTED = "etcdserver: mvcc: required revision has been compacted"
FUTURE_REVISION = "etcdserver: mvcc: required revision is a future revision"
LEASE_NOT_FOUND = "etcdserver: requested lease not found"
LEASE_EXISTS = "etcdserver: lease already exists"
KEY_NOT_FOUND = "etcdserver: key not found"
DUPLICATE_KEY = "etcdserver: duplicate key given in txn request"
PERMISSION = "etcdserver: permission denied"
INVALID_AUTH_TOKEN = "etcdserver: invalid auth token"
AUTH_OLD_REVISION = "etcdserver: revision of auth store is old"
NO_SPACE = "etcdserver: mvcc: database space exceeded"


def is_definite(error: WireError) -> bool:
    """True where `error` is etcd's promise that a mutation did not and will not happen."""
    if error.message in INDEFINITE_TEXTS:
        return False
    return error.code in DEFINITE_CODES or error.message in DEFINITE_TEXTS


def is_decided(error: WireError) -> bool:
    """True where etcd itself decided the answer: a deliberate refusal counts as service, a lost connection does not."""
    return error.code in DEFINITE_CODES

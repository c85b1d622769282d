"""etcd's gRPC API on the wire: our own description, values decoded from it, and the error taxonomy as one table of data.

``pekan.wire.messages`` has the values and the decoder, ``pekan.wire.errors`` says what an error proves, ``pekan.wire.pb`` is the
generated module for messages that are asked for a few times a run.
"""

from pekan.wire._generated import pekan_wire_pb2 as pb
from pekan.wire.messages import (
    METHODS,
    Compare,
    Decoder,
    Event,
    Header,
    KeyValue,
    Request,
    Response,
    encode,
    method_of,
    to_pb,
)

__all__ = [
    "METHODS",
    "Compare",
    "Decoder",
    "Event",
    "Header",
    "KeyValue",
    "Request",
    "Response",
    "encode",
    "method_of",
    "pb",
    "to_pb",
]

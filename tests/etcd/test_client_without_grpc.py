"""The client without etcd: gRPC is needed only when a client is made, and its absence is said with the line that helps."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_GRPC = """
import sys
import pekan.etcd.client
assert "grpc" not in sys.modules, "imported before it is needed"
sys.modules["grpc"] = None  # what Python itself notes of a module that cannot be imported
from pekan.errors import EnvironmentFailure
from pekan.etcd.client import Client
from pekan.etcd.recorder import Recorder
from pekan.history import RecordWriter
try:
    Client(name="kv-0", member="m1", address="127.0.0.1:1", recorder=Recorder(RecordWriter("/dev/null")), timeout_s=1.0)
except EnvironmentFailure as failure:
    print(failure, failure.exit_code)
"""


def test_without_grpc_the_message_says_what_to_install() -> None:
    """In a Python without gRPC everything imports, and making a client is an EnvironmentFailure with the pip line."""
    result = subprocess.run([sys.executable, "-c", WITHOUT_GRPC], capture_output=True, text=True, check=False, timeout=60)
    assert result.stderr == ""
    assert "pip install 'pekan[hunt]' 4" in result.stdout

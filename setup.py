"""Build steps: Python code for the wire, generated from our own .proto files, and the native core where a Rust toolchain is there.

One source for the wire (``src/pekan/wire/proto/``); the generated modules are never committed. protoc comes as a Python module
(grpcio-tools), so that a machine needs no protoc binary. Generating before `setup` lets package discovery see the result.

The core (``native/``, the module ``pekan._native``) is optional: without cargo, or where it does not compile, the install succeeds with a
warning, the checkers in Python serve, and ``pekan doctor`` says so.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup
from setuptools_rust import Binding, RustExtension

ROOT = Path(__file__).parent / "src"
PROTO = ROOT / "pekan" / "wire" / "proto"
GENERATED = ROOT / "pekan" / "wire" / "_generated"

CORE = RustExtension(
    "pekan._native",
    path="native/Cargo.toml",
    args=["--locked"],
    binding=Binding.PyO3,
    py_limited_api=True,
    # An editable install would build without optimisation, and be slower than the Python that it replaces.
    debug=False,
    optional=True,
)


def generate() -> None:
    """Write ``_generated/*_pb2.py`` and their type stubs from every file in ``wire/proto``."""
    from grpc_tools import protoc

    GENERATED.mkdir(exist_ok=True)
    (GENERATED / "__init__.py").write_text('"""Generated at build from wire/proto; do not edit."""\n', encoding="utf-8")
    for source in sorted(PROTO.glob("*.proto")):
        status = protoc.main(["protoc", f"-I{PROTO}", f"--python_out={GENERATED}", f"--pyi_out={GENERATED}", str(source)])
        if status != 0:
            sys.exit(f"generating Python code from {source} failed with status {status}")


generate()
# The core uses the stable ABI, so one wheel serves every Python from 3.11 on.
setup(rust_extensions=[CORE], options={"bdist_wheel": {"py_limited_api": "cp311"}})

"""What a Go executable says about the modules it was built from, read without a Go toolchain.

Go's linker leaves a header in every binary, aligned to 16 bytes, and keeps it when symbols are stripped
(Go 1.18 and later, `debug/buildinfo`)::

    0   "\\xff Go buildinf:"     14 bytes
    14  pointer size            ignored here
    15  flags                   bit 1 set: the two strings follow inline
    32  uvarint length, Go version
        uvarint length, module text between two 16-byte sentinels:
            path\\tgo.etcd.io/etcd/server/v3
            mod\\tgo.etcd.io/etcd/server/v3\\tv3.6.4\\th1:...=
            dep\\t...

The `h1:` of the main module is the value in Go's public checksum database: a binary that carries it names its source.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final, NamedTuple

_MAGIC: Final = b"\xff Go buildinf:"
_ALIGNMENT: Final = 16
_INLINE: Final = 0x2
_STRINGS_AT: Final = 32
_SENTINEL_BYTES: Final = 16
_TEXT_BYTES_MAX: Final = 1 << 20  # a server's list of dependencies is ten kilobytes


class MainModule(NamedTuple):
    """The module that holds the main package; `checksum` (`h1:...`) is None for a build from a working tree."""

    path: str
    version: str
    checksum: str | None


def read_main_module(path: Path) -> MainModule | None:
    """The main module of a Go 1.18+ executable, or None when the file does not tell (older Go, no Go, no modules).

    Raises `OSError` when the file cannot be read.
    """
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:  # an empty file cannot be mapped
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            at = data.find(_MAGIC)
            while at >= 0:
                if at % _ALIGNMENT == 0:
                    # The first aligned header decides, as it does for Go's own reader.
                    return _parse(bytes(data[at : at + _STRINGS_AT + _TEXT_BYTES_MAX]))
                at = data.find(_MAGIC, at + 1)
    return None


def _parse(header: bytes) -> MainModule | None:
    """The main module told by a header and what follows it."""
    if len(header) <= _STRINGS_AT or not header[15] & _INLINE:
        return None
    _, at = _string(header, _STRINGS_AT)
    text, _ = _string(header, at)
    lines = text[_SENTINEL_BYTES:-_SENTINEL_BYTES].decode("utf-8", "replace").split("\n")
    for number, line in enumerate(lines):
        fields = line.split("\t")
        if fields[0] == "mod" and len(fields) >= 3:
            # A following `=>` line replaces the module: what was compiled is then not what this line names.
            replaced = lines[number + 1].startswith("=>") if number + 1 < len(lines) else False
            checksum = fields[3] if len(fields) > 3 and fields[3].startswith("h1:") and not replaced else None
            return MainModule(fields[1], fields[2], checksum)
    return None


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """The string whose uvarint length stands at `at`, and the offset after it; empty when the data is not long enough."""
    length = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return (data[at : at + length], at + length) if at + length <= len(data) else (b"", len(data))

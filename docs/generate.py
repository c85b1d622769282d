"""Writes docs/findings.md from the catalogue. A test fails when the file and the catalogue differ.

Run: ``.venv/bin/python docs/generate.py``
"""

from __future__ import annotations

from pathlib import Path

from pekan.catalogue import CODES

HEAD = """# Findings

Every finding has a stable code. This page is generated from the catalogue in the code: what was promised, what a finding of this code
means, and what to look at next. A finding with status `counts` makes a run `broken`; `follows`, `excused` and `allowed` do not, and
name why.
"""


def findings() -> str:
    """The text of docs/findings.md."""
    parts = [HEAD]
    for code, entry in CODES.items():
        promised = f"**Promised.** {entry.guarantee} ([source]({entry.source}))"
        parts.append(f"## {code}\n\n{promised}\n\n**Means.** {entry.means}\n\n**Next.** {entry.next_step}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    (Path(__file__).parent / "findings.md").write_text(findings(), encoding="utf-8")

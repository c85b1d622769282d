"""docs/issues.md says what the files of the issues and the recorded runs say."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

from pekan.catalogue import CODES
from pekan.issues import ISSUES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_files_and_results() -> None:
    """Regenerated, the page is the same: every issue with its story, its run and what was recorded."""
    generated = runpy.run_path(str(DOCS / "generate.py"))["issues"]()
    assert (DOCS / "issues.md").read_text(encoding="utf-8") == generated, "run docs/generate.py"


def test_results_are_of_issues_and_commands_that_there_are() -> None:
    """Each recorded cell names a known issue, an answer with its counts or the reason why it was not run, and the command that made it."""
    cells = json.loads((DOCS / "issues-results.json").read_text(encoding="utf-8"))["cells"]
    assert len({(cell["issue"], cell["etcd"]) for cell in cells}) == len(cells)
    for cell in cells:
        assert cell["issue"] in ISSUES
        etcd = f"./etcd-{cell['etcd']}" if cell["role"] == "build" else cell["etcd"]
        assert cell["command"].startswith(f"pekan reproduce {cell['issue']} --etcd {etcd} ")
        if cell["answer"] == "not run":
            assert cell["why"]
        else:
            assert 0 <= cell["shown"] <= cell["fired"] <= cell["counted"] <= cell["tries"]
            assert (cell["answer"] == "shown") == (cell["shown"] > 0) == (cell["median_seconds"] is not None)


def test_every_issue_is_told_whole() -> None:
    """Each file has a story of some paragraphs, links, codes that there are, and a boundary or the reason why it has none."""
    for name, issue in ISSUES.items():
        assert issue.story.count("\n\n") >= 2, name
        assert issue.links or not name.isdecimal(), name
        assert set(issue.codes) <= set(CODES), name
        assert issue.boundaries or issue.not_released, name

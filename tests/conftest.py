"""What all tests share: children that can be interrupted, also where the runner began in the background; a second try for live ones."""

from __future__ import annotations

import signal

import pytest

# A shell starts background jobs with SIGINT ignored, nohup with SIGHUP; children would inherit that, and tests send both.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A live test that fails is tried once more: real members share the machine with whatever else runs there, and lose seconds to it."""
    for item in items:
        if item.get_closest_marker("live") is not None:
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """First tries that failed are told in full, whatever became of the second: each is a race, of the test or of Pekan, to be mended."""
    tries = terminalreporter.getreports("rerun")
    if tries:
        terminalreporter.section("failed at the first try, tried once more")
        for report in tries:
            terminalreporter.write_line(report.nodeid, bold=True)
            terminalreporter.write_line(report.longreprtext)

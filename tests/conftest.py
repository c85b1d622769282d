"""What all tests share: children that can be interrupted, also where the runner began in the background; a second try for live ones;
examples that are the same in every run; output without colours."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# A shell starts background jobs with SIGINT ignored, nohup with SIGHUP; children would inherit that, and tests send both.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Rich obeys these wherever it writes: a runner that wants colours in its log would have them in every text that a test reads.
for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(name, None)

# How long an example takes says how busy the machine is: a stall of a fifth of a second would fail a test (`deadline`), one of a second the
# making of its examples (`too_slow`). What a commit's tests say is a function of the commit; to look further, with examples never tried:
# pytest --hypothesis-profile=further
settings.register_profile("further", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fixed", settings.get_profile("further"), derandomize=True)
settings.load_profile("fixed")


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

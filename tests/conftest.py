"""What all tests share: children that can be interrupted, also where the runner was started in the background."""

from __future__ import annotations

import signal

# A shell starts background jobs with SIGINT ignored, nohup with SIGHUP; children would inherit that, and tests send both.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

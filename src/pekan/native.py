"""The native core, where it is there: the one place that imports ``pekan._native``.

``core`` is the module, or None; ``reason`` then says why not, and ``remedy`` what would change that. Everything that Pekan can do it can
do without the core, by the reference in Python; with it, faster.
"""

from __future__ import annotations

import importlib
from typing import Any

from pekan import __version__

# Any: the core's classes are described where they are used, by protocols.
core: Any = None
reason = ""
remedy = ""

try:
    core = importlib.import_module("pekan._native")
except ModuleNotFoundError:
    reason = "it was not built when Pekan was installed: there was no Rust toolchain, or compiling it failed"
    remedy = "install Rust (cargo 1.87 or newer) and install Pekan again"
except ImportError as error:
    reason = f"it cannot be loaded: {error}"
    remedy = "install Pekan again on this machine"
else:
    if core.__version__ != __version__:
        reason = f"it is of release {core.__version__}, and Pekan is {__version__}"
        remedy = "install Pekan again"
        core = None

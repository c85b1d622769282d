"""The run directory: where the evidence of one run lies and where what is derived from it goes.

::

    run/
      plan.json        evidence   what was asked
      history.pb       evidence   what happened; history-2.pb, ... where further processes wrote
      members/NAME/    evidence   etcd.log, and what was kept of the data directory
      images/N/        evidence   crash image N: data/NAME of each member; A/history.pb, the epoch of the A-th start on a copy of it
      verdict.json     derived    replaced atomically, skipped with a note where the directory is read-only

Evidence is written once, by the run; nothing here opens it for writing again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pekan.errors import EnvironmentFailure, EvidenceError, UsageError
from pekan.plan import Plan

HISTORY_NAME = "history.pb"
"""The record of a run, and of what was started beside it."""
_HISTORY = re.compile(r"history(?:-(\d+))?\.pb")
_READ_ONLY = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_EVIDENCE = re.compile(r"plan\.json|history.*\.pb|(members|images)(/.*)?")


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of one run. Made by `create` (a new one) or `open` (a recorded one)."""

    path: Path

    @classmethod
    def create(cls, path: str | os.PathLike[str], plan: Plan) -> RunDirectory:
        """A new run directory with `plan` in it. Raises UsageError where `path` holds something, EnvironmentFailure where it cannot be."""
        run = cls(Path(path))
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            if any(run.path.iterdir()):
                raise UsageError(f"{run.path}: is not empty; a run needs a directory of its own, give another one")
            (run.path / "members").mkdir()
            # Exclusive: of two runs that race for the same directory, one is told so.
            with open(run.plan_path, "x", encoding="utf-8") as file:
                file.write(plan.to_text())
        except FileExistsError:
            raise UsageError(f"{run.path}: is not an empty directory; a run needs a directory of its own, give another one") from None
        except NotADirectoryError:
            raise UsageError(f"{run.path}: a part of this path is a file; give another directory") from None
        except OSError as error:
            raise EnvironmentFailure(
                f"{run.path}: cannot hold a run: {error.strerror} ({errno.errorcode.get(error.errno or 0, '?')}); give a writable directory"
            ) from None
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDirectory:
        """The recorded run at `path`. Raises EvidenceError naming what is missing."""
        run = cls(Path(path))
        try:
            if not run.path.exists():
                raise EvidenceError(f"{run.path}: does not exist; expected a run directory (plan.json, history.pb)")
            if not run.path.is_dir():
                raise EvidenceError(f"{run.path}: is not a directory; expected a run directory (plan.json, history.pb)")
            missing = [name for name in ("plan.json", "history.pb") if not (run.path / name).is_file()]
            series = sorted(each.parent for each in run.path.glob("*/history.pb")) if missing else []
        except OSError as error:
            raise EvidenceError(f"{run.path}: cannot be read: {error.strerror}") from None
        if series:
            raise EvidenceError(f"{run.path}: holds runs and is none itself ({len(series)} of them); name one, the last is {series[-1]}")
        if missing:
            raise EvidenceError(f"{run.path}: {' and '.join(missing)} missing; expected a run directory with plan.json and history.pb")
        return run

    @property
    def plan_path(self) -> Path:
        """plan.json."""
        return self.path / "plan.json"

    @property
    def history_path(self) -> Path:
        """history.pb, the first writer's file."""
        return self.path / HISTORY_NAME

    @property
    def verdict_path(self) -> Path:
        """verdict.json."""
        return self.path / "verdict.json"

    def history_paths(self) -> tuple[Path, ...]:
        """All history files, history.pb first, then history-N.pb in the order of N. Raises EvidenceError where they cannot be listed."""
        try:
            found = [(int(match[1] or 0), entry) for entry in self.path.iterdir() if (match := _HISTORY.fullmatch(entry.name))]
        except OSError as error:
            raise EvidenceError(f"{self.path}: cannot be listed: {error.strerror}") from None
        return tuple(entry for _, entry in sorted(found))

    def member_path(self, name: str) -> Path:
        """members/NAME, where that member's log and data are kept."""
        return self.path / "members" / name

    @property
    def images_path(self) -> Path:
        """images, where crash images are kept."""
        return self.path / "images"

    def epoch_paths(self) -> tuple[tuple[int, int, Path], ...]:
        """(image, attempt, history file) of each start on a crash image, in that order."""
        found = [(entry.parent.parent.name, entry.parent.name, entry) for entry in self.images_path.glob(f"*/*/{HISTORY_NAME}")]
        return tuple(sorted((int(image), int(attempt), path) for image, attempt, path in found if (image + attempt).isdecimal()))

    def drop_images(self, kept: Collection[int] = ()) -> None:
        """Remove the data of every crash image that is not among `kept`; what members answered on it stays."""
        for data in self.images_path.glob("*/data"):
            if not (data.parent.name.isdecimal() and int(data.parent.name) in kept):
                shutil.rmtree(data, ignore_errors=True)

    def drop_record(self) -> None:
        """Remove history, members and images of a run that nobody needs any more; plan and verdict stay."""
        for path in self.history_paths():
            path.unlink(missing_ok=True)
        shutil.rmtree(self.path / "members", ignore_errors=True)
        shutil.rmtree(self.images_path, ignore_errors=True)

    def plan(self) -> Plan:
        """What was asked of this run. Raises EvidenceError where plan.json cannot be read as a plan."""
        return read_plan(self.plan_path)

    def write_derived(self, name: str, text: str) -> str | None:
        """Replace the derived file `name` atomically by `text`.

        Returns None, or a note for the user where the directory is read-only and nothing was written. Raises EnvironmentFailure where the
        file could not be written for another reason (disk full). Evidence cannot be named: UsageError.
        """
        if _EVIDENCE.fullmatch(name) or Path(name).name != name:
            raise UsageError(f"{name}: is evidence of the run or lies outside of it, and is never rewritten")
        target = self.path / name
        temporary = None
        try:
            with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self.path, prefix=f".{name}.", delete=False) as file:
                temporary = file.name
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            # NamedTemporaryFile is private to its owner; a verdict may be read by whoever may read the run.
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except OSError as error:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
            if error.errno in _READ_ONLY:
                return f"{target} not written: the run directory is read-only"
            raise EnvironmentFailure(f"{target}: cannot be written: {error.strerror}; free some space or copy the run") from None
        return None


def read_plan(path: Path) -> Plan:
    """The plan in a plan.json. Raises EvidenceError naming the file and what is wrong."""
    try:
        return Plan.from_text(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be read: {error.strerror}") from None
    except (UsageError, UnicodeDecodeError) as error:
        raise EvidenceError(f"{path}: {error}") from None

"""The order in which providers are asked for a version."""

from __future__ import annotations

from pekan.etcd.binaries.cache import Cache
from pekan.etcd.binaries.providers import Progress, Provider
from pekan.etcd.binaries.providers.archive import ReleaseMirror
from pekan.etcd.binaries.providers.debian import DebianPackage
from pekan.etcd.binaries.providers.gomodules import GoModules
from pekan.etcd.binaries.providers.wheel import DistroWheel


def version_providers(cache: Cache, progress: Progress, *, offline: bool = False) -> tuple[Provider, ...]:
    """Every provider that takes a version, in order; with `offline` none of them asks the network what it has."""
    return (
        ReleaseMirror(offline=offline),
        DistroWheel(),
        DebianPackage(cache, progress, offline=offline),
        GoModules(),
    )

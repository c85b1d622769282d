"""Members started beside a run on data that the run has left - a crash image, a snapshot - with a record of their own.

::

    run/images/7/                      directory of what is started aside
        m1/ m2/ m3/                    data directories, made by the caller
        m1.log ...                     what the members say
        history.pb                     the epoch: its own record, which no checker takes for the run's

    async with aside(directory, specs) as side:          # started and ready, or ClusterFailure
        reply = await side.client("m1").call(...)        # recorded into directory/history.pb
                                                         # leaving: everything has been stopped

What is started so is another epoch of the store: what clients do to it is in no history but its own. The members may be those of the run on
their own addresses, once the run's own have ended, or one of them alone on other addresses (`alone`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pekan.errors import RecorderFailure
from pekan.etcd.client import Client
from pekan.etcd.cluster import Cluster
from pekan.etcd.ports import PortLease
from pekan.etcd.recorder import Recorder, boot_id
from pekan.etcd.spec import Address, ClusterSpec, MemberExit, MemberSpec
from pekan.history.records import RecordWriter
from pekan.history.run import HISTORY_NAME

READY_TIMEOUT_S = 15.0
"""An election with default timeouts takes up to 3 s; the rest is for a busy machine."""
REQUEST_TIMEOUT_S = 5.0
"""Nobody disturbs these members."""


class Aside:
    """Members that are up, and the record of what is asked of them. Made by `aside`."""

    def __init__(self, cluster: Cluster, recorder: Recorder) -> None:
        self.cluster = cluster
        self.recorder = recorder
        self.clients: dict[str, Client] = {}

    def client(self, member: str) -> Client:
        """The recorded client of that member, made at the first call and closed at the end."""
        known = self.clients.get(member)
        if known is None:
            spec = self.cluster.member(member).spec
            known = self.clients[member] = Client(
                name=f"aside-{member}",
                member=member,
                address=spec.advertise_client,
                recorder=self.recorder,
                timeout_s=REQUEST_TIMEOUT_S,
                tls=spec.tls,
            )
        return known


@asynccontextmanager
async def aside(
    directory: Path,
    specs: Sequence[MemberSpec],
    *,
    ready_timeout_s: float = READY_TIMEOUT_S,
    detail: Mapping[str, Any] | None = None,
    notice: Callable[[MemberExit], None] = lambda _: None,
) -> AsyncIterator[Aside]:
    """Start `specs` on the data directories that they name, and wait until each answers a linearizable read.

    Everything is recorded into `directory/history.pb`, which must not exist: a start mark (`start` unknown, with `detail`), each end of a
    process as the run's record has them (`notice` is told too), and an end mark. Raises `ClusterFailure` where a member does not come up;
    then nothing is left running, and the record says how processes ended.
    """
    recorder = Recorder(RecordWriter(directory / HISTORY_NAME))
    reason = "failed"

    def on_exit(end: MemberExit) -> None:
        with contextlib.suppress(RecorderFailure):
            recorder.mark("member", end.member, **exit_detail(end))
        notice(end)

    async def as_given(_: tuple[MemberSpec, ...], __: PortLease) -> tuple[MemberSpec, ...]:
        return tuple(specs)

    try:
        recorder.mark("start", boot_id=boot_id(), clock="CLOCK_MONOTONIC", start="unknown", **(detail or {}))
        spec = ClusterSpec(specs[0].binary, directory, members=1)
        async with Cluster(spec, on_exit=on_exit, arrange=as_given, ready_timeout_s=ready_timeout_s) as cluster:
            side = Aside(cluster, recorder)
            try:
                yield side
            finally:
                await asyncio.gather(*(client.close() for client in side.clients.values()), return_exceptions=True)
        reason = "finished"
    finally:
        with contextlib.suppress(RecorderFailure):
            recorder.mark("end", reason=reason)
        recorder.close()


def exit_detail(end: MemberExit) -> dict[str, object]:
    """What a "member" mark says of the end of a process."""
    detail: dict[str, object] = {"state": "exited", "incarnation": end.incarnation, "pid": end.pid, "asked": end.asked}
    detail["wait_status"] = end.wait_status
    if end.crash:
        detail["crash"] = end.crash
    if not end.asked:
        detail["log_tail"] = list(end.log_tail)
    return detail


def alone(spec: MemberSpec, data_dir: Path, log: Path, ports: PortLease, *, forced: bool = True) -> MemberSpec:
    """The member `spec` as a cluster of its own on `data_dir`, on two ports of `ports`, without what faults need around it.

    `forced` is etcd's `--force-new-cluster`, which makes it the only member of what was a cluster of several. It then drops the entries
    of its log that it does not know to be committed (etcd server/etcdserver/bootstrap.go): acknowledged writes among them.
    """
    client, peer = Address(ports.host, ports.take()), Address(ports.host, ports.take())
    return replace(
        spec,
        data_dir=data_dir,
        wal_dir=None,
        log=log,
        listen_client=client,
        advertise_client=client,
        listen_peer=peer,
        advertise_peer=peer,
        attachments=(),
        options={**spec.options, **({"force-new-cluster": "true"} if forced else {})},
        initial_cluster_state="new",
    )

"""Packets of real members lost, doubled, overtaken and late, as members' kernels and clients see it; and that it ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pekan.errors import EnvironmentFailure
from pekan.etcd.cluster import Member
from pekan.faults.network.equipment import Proxy
from pekan.faults.packets import Packets
from stage import Stage, stage
from stage.releases import provided

pytestmark = pytest.mark.live

VERSION = "3.7.3"
PUTS = 60
VALUE_BYTES = 40_000
"""Five packets: enough that one is overtaken by others, however long the disk keeps the next put waiting."""
ATTEMPTS = 5
"""At looking for what a fault does to counters of the kernel: a machine that holds the switch up for 200 ms makes them count as well."""
DEADLINE_S = 300
SHORT_S = 0.7
"""Deadline of a request that is not to be answered: longer than any round trip here, shorter than an election."""


@pytest.fixture(autouse=True)
def possible() -> None:
    ability = Packets.probe()
    if not ability.possible:
        pytest.skip(f"{ability.why_not}; would help: {ability.remedy}")


def tcp(members: tuple[Member, ...]) -> Counter[str]:
    """What the kernel counts of TCP in the members' namespaces together (netstat -s)."""
    found: Counter[str] = Counter()
    for member in members:
        for name in ("netstat", "snmp"):
            lines = Path(f"/proc/{member.pid}/net/{name}").read_text().splitlines()
            for head, values in zip(lines[::2], lines[1::2], strict=True):
                if head.startswith(("Tcp:", "TcpExt:")):
                    found.update(dict(zip(head.split()[1:], map(int, values.split()[1:]), strict=True)))
    return found


async def traffic(it: Stage, puts: int) -> None:
    for number in range(puts):
        await it.put("m2", b"key", str(number).encode().ljust(VALUE_BYTES))


async def armed(it: Stage, fault: str) -> asyncio.Task[None]:
    """A task of `fault`, which has a victim when this returns; the switch is told in a moment."""
    before = len(it.spans())
    task = it.carry_out(fault)
    while len(it.spans()) == before or not it.context.active:
        await asyncio.sleep(0.01)
    return task


async def served(it: Stage, member: str) -> None:
    """Return once a linearizable read through `member` is answered."""
    while (await it.get(member, b"key")).outcome != "ok":
        await asyncio.sleep(0.05)


async def counted(it: Stage, fault: str, puts: int) -> Counter[str]:
    """What the kernel counts of TCP in the members' namespaces while there are `puts` under `fault`."""
    before = tcp(it.cluster.members)
    task = await armed(it, fault)
    await traffic(it, puts)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return tcp(it.cluster.members) - before


def test_members_kernels_see_what_the_switch_does(tmp_path: Path) -> None:
    """Doubled packets arrive as duplicates, overtaken ones out of order, lost ones are sent again; without a fault hardly any are."""

    async def go() -> None:
        async with stage(VERSION, tmp_path, "packet-loss m1 1s at 0s") as it:
            seen = False
            for _ in range(ATTEMPTS):
                nothing = await counted(it, "packet-loss m1 60s percent=0 at 0s", PUTS)
                doubled = await counted(it, "packet-duplicate m1 60s percent=100 at 0s", PUTS)
                overtaken = await counted(it, "packet-reorder m1 60s percent=30 at 0s", PUTS)
                # Each loss may cost 200 ms: a third of the puts, and still a hundred packets.
                lost = await counted(it, "packet-loss m1 60s percent=10 at 0s", PUTS // 3)
                await served(it, "m1")
                seen = (
                    doubled["TCPDSACKOldSent"] > 10 * (nothing["TCPDSACKOldSent"] + 1)
                    and overtaken["TCPOFOQueue"] > 5 * (nothing["TCPOFOQueue"] + 1)
                    and lost["RetransSegs"] > 2 * (nothing["RetransSegs"] + 1)
                )
                spans = it.spans()[-4:]
                # Nothing lost of nothing: that one expired. The others fired with the switch's own counts, and were healed when cancelled.
                assert [span.fired is not None for span in spans] == [False, True, True, True]
                assert all(span.healed is not None for span in spans[1:])
                healed = [span.evidence["healed"] for span in spans[1:]]
                assert healed[0]["doubled"] > PUTS
                assert healed[1]["overtaken"] > 0
                assert healed[2]["lost"] > 0
                if seen:
                    break
            assert seen

    asyncio.run(go())


async def unanswered(it: Stage, member: str, kind: str, *, serializable: bool = False) -> None:
    """Return once the fault of that kind has fired and a read through `member` is not answered; then no further one may be."""
    while (await it.get(member, b"key", SHORT_S, serializable=serializable)).outcome == "ok" or not it.context.fired_by_kind[kind]:
        pass
    assert (await it.get(member, b"key", SHORT_S, serializable=serializable)).outcome != "ok"


def test_what_does_not_arrive_is_not_answered(tmp_path: Path) -> None:
    """With all packets of a member's peers lost it answers no linearizable read and its others do; with those of its clients delayed beyond
    the deadline nobody reaches it, serializable or not; afterwards it serves again."""

    async def go() -> None:
        async with stage(VERSION, tmp_path, "packet-loss m1 1s at 0s", tls=True) as it:
            await served(it, "m1")
            task = await armed(it, "packet-loss m1 60s percent=100 at 0s")
            await unanswered(it, "m1", "packet-loss")
            assert (await it.get("m1", b"key", serializable=True)).outcome == "ok"
            await served(it, "m2")
            task.cancel()
            await asyncio.wait({task})
            await served(it, "m1")
            task = await armed(it, "packet-delay m1 60s delay_ms=3000 traffic=clients at 0s")
            await unanswered(it, "m1", "packet-delay", serializable=True)
            await served(it, "m2")
            task.cancel()
            await asyncio.wait({task})
            await served(it, "m1")
            # A member that is started again comes back into its namespace.
            await it.cluster.member("m1").kill()
            await it.cluster.member("m1").start()
            await served(it, "m1")

    asyncio.run(go())


def test_what_is_cancelled_while_it_begins_is_undone(tmp_path: Path) -> None:
    """A fault that is cancelled before the switch has answered leaves no rule behind: members answer as before."""

    async def go() -> None:
        async with stage(VERSION, tmp_path, "packet-loss m1 1s at 0s") as it:
            packets = it.equipment["packets"]
            assert isinstance(packets, Packets)
            task = it.carry_out("packet-loss m1 60s percent=100 traffic=all at 0s")
            while not it.context.active:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            with pytest.raises(EnvironmentFailure, match="KeyError"):
                await packets.counts(packets.number() - 1)
            await served(it, "m1")

    asyncio.run(go())


def test_a_proxy_between_members_in_namespaces(tmp_path: Path) -> None:
    """With links' faults and packets' faults in one run members are reached through the proxy and through the switch, over TLS: the proxy
    knows who sends to whom, a member that it isolates serves no linearizable read, and packets on the way to it are lost."""

    async def go() -> None:
        async with stage(VERSION, tmp_path, "packet-loss m1 1s at 0s", "isolate m1 1s at 0s", tls=True) as it:
            await served(it, "m1")
            task = await armed(it, "isolate m1 60s at 0s")
            await it.context.until_fired("isolate", 1)
            assert (await it.get("m1", b"key", SHORT_S)).outcome != "ok"
            task.cancel()
            await asyncio.wait({task})
            await served(it, "m1")
            task = await armed(it, "packet-loss m1 60s percent=20 at 0s")
            await it.context.until_fired("packet-loss", 1)
            task.cancel()
            await asyncio.wait({task})
            await served(it, "m1")
            proxy = it.equipment["proxy"]
            assert isinstance(proxy, Proxy)
            names = [member.name for member in it.cluster.members]
            links = {(sender, receiver) for sender in names for receiver in names if sender != receiver}
            while links - {link for link, counts in (await proxy.counts()).items() if counts["bytes"]}:
                await asyncio.sleep(0.05)

    asyncio.run(go())


ALONE = """
import asyncio, sys
from pathlib import Path
from stage import stage

async def go():
    async with stage(sys.argv[1], Path(sys.argv[2]), "packet-loss m1 60s percent=20 at 0s") as it:
        task = it.carry_out()
        while not it.context.fired_by_kind:
            await it.put("m2", b"key", b"value")
        task.cancel()
        await asyncio.wait({task})
        while (await it.get("m1", b"key")).outcome != "ok":
            await asyncio.sleep(0.05)

asyncio.run(go())
"""


def test_a_namespace_of_users_does_without_privileges(tmp_path: Path) -> None:
    """Without the capabilities to administer system or network, members are on the switch inside a user namespace and lose packets."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        pytest.skip("privileges can only be given away by root, with setpriv of util-linux")
    provided(VERSION)  # while there are privileges, and time, to build it
    # To map the root user into a namespace takes CAP_SETFCAP (user_namespaces(7)); others map themselves without it. As root it may open
    # the TUN device wherever that is kept from users.
    command = [setpriv, "--bounding-set=-all,+setfcap", "--inh-caps=-all", sys.executable, "-c", ALONE, VERSION, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr

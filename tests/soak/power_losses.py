"""Power failures by the dozen: does a release keep what it has acknowledged, and does our account of what is unsynced ever take too much?

::

    python tests/soak/power_losses.py 3.7.3 --members 3 --rounds 40        about 4 s a round

Each round draws a power loss or a torn write for one member, or for all of them at once, under load, and then reads back everything that
was acknowledged in it. Prints a line a round and a last one with the sums; ends with 1 where an acknowledged write is gone. A current
release that loses one is a bug of etcd or of ours; 3.5.1 with one member is known to (#14370).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from pekan.faults import INJECTORS
from pekan.wire.messages import PutRequest, RangeRequest
from stage import Stage, stage

KINDS = ("power-loss", "power-loss", "power-loss", "torn-write")
CLIENTS = 12
TIMEOUT_S = 2.0
ALL_AT_ONCE = 3
"""Every so many rounds all members lose power."""


def drawn(rng: random.Random, members: list[str]) -> list[str]:
    """`--fault` texts for one round."""
    texts = []
    for member in members:
        kind = rng.choice(KINDS)
        parameters = {**INJECTORS[kind].draw(rng).parameters, "down_ms": 0}
        texts.append(f"{kind} {member} {' '.join(f'{name}={value}' for name, value in parameters.items())} at 0s")
    return texts


async def round_of(it: Stage, number: int, faults: list[str]) -> tuple[int, int, int, int]:
    """(faults that fired, bytes lost, writes acknowledged, acknowledged writes that are gone)."""
    before = {span.id for span in it.spans()}
    it.context.heal_ms = it.context.elapsed_ms() + 15_000
    task = it.carry_out(*faults)
    acknowledged: set[bytes] = set()
    prefix = b"%04d-" % number

    async def writes(client_number: int) -> None:
        member = it.cluster.members[client_number % len(it.cluster.members)].name
        client = it.context.open(f"round-{number}-{client_number}", member)
        count = 0
        while not task.done():
            key = prefix + b"%d-%d" % (client_number, count)
            count += 1
            if (await client.call(PutRequest(key, b"x" * (64 << (count % 5))), TIMEOUT_S)).outcome == "ok":
                acknowledged.add(key)
            else:
                await asyncio.sleep(0.02)
        await client.close()

    await asyncio.gather(*(writes(each) for each in range(CLIENTS)))
    await task
    await it.cluster.wait_ready(60)
    found: set[bytes] = set()
    for member in it.cluster.members:
        reply = await it.call(member.name, RangeRequest(prefix, prefix[:-1] + b".", keys_only=True), 20.0)
        assert reply.outcome == "ok", reply
        keys = {each.key for each in reply.output.kvs}
        found = keys if not found else found & keys
    spans = [span for span in it.spans() if span.id not in before and span.fired is not None]
    return len(spans), sum(span.evidence["lost_bytes"] for span in spans), len(acknowledged), len(acknowledged - found)


async def soak(version: str, members: int, rounds: int, seed: int) -> int:
    rng = random.Random(seed)
    names = [f"m{number}" for number in range(1, members + 1)]
    fired = lost = acknowledged = gone = 0
    needs = [f"{kind} m1 at 0s" for kind in dict.fromkeys(KINDS)]
    with tempfile.TemporaryDirectory(prefix="pekan-power-") as directory:
        async with stage(version, Path(directory), *needs, members=members, seconds=rounds * 90) as it:
            for number in range(rounds):
                faults = drawn(rng, names if number % ALL_AT_ONCE == 0 else [rng.choice(names)])
                done = await round_of(it, number, faults)
                print(version, number, *done, " | ".join(faults) if done[3] else "", flush=True)
                fired, lost, acknowledged, gone = (a + b for a, b in zip((fired, lost, acknowledged, gone), done, strict=True))
    print(
        f"{version}, {members} members: {fired} losses of power, {lost} bytes lost, {acknowledged} writes acknowledged, {gone} of them gone"
    )
    return 1 if gone else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version")
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    return asyncio.run(soak(arguments.version, arguments.members, arguments.rounds, arguments.seed))


if __name__ == "__main__":
    sys.exit(main())

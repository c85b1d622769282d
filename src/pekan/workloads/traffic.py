"""What every workload is given, and what it gives back: the contract between a hunt and its traffic.

::

    hunt ── Traffic(plan, members, connect) ──> workload.prepare()   store made ready, before the clock of the traffic starts
            traffic.begin()                     workload.run()       clients draw choices until `finished` is set
            traffic.finished.set()              workload.finish()    left so that the members can be compared

    while await traffic.turn():                      # rate limit; False once the traffic has ended
        choice = choose(plan.seed, client.name, n)   # pure: kind, key, value, options
        reply = await caller.call(request)           # one request, counted; a short rest when nobody was there

**Replay.** The n-th choice of a client is drawn from `draws(seed, client, n)` and nothing else: no shared generator, no clock, no reply.
What comes from replies (revisions compared or read at, page keys, which watch is resumed) is derived *after* the choice. Traffic that may
only be sent late in a run belongs to clients of its own that start late, so that time never changes what a client's n-th choice is.

What a plan leaves out (`Plan.without`) is drawn and not sent: `skips`.

**Members that come and go.** A client belongs to one of the first members, its home. When that has departed it moves to another one that
is there, and when a newcomer serves, a fair share of all clients moves to it: as an application does whose list of endpoints is renewed. It
moves between two requests, or streams, and never within. A client of a removed member stays until that member's process has ended.

**Names.** A client's name tells its role: `kv-0` main traffic, `late-m1` known deviations, `watch-m1-...` watchers, `admin-m1` maintenance.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from pekan.plan import Plan, Trigger
from pekan.wire import errors, messages
from pekan.wire.errors import WireError
from pekan.wire.messages import Request, pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pekan.etcd.client import Client, Reply

T = TypeVar("T")

LATE_FROM = 0.8
"""Known deviations are drawn in the last fifth of the traffic only: a refused transaction that others applied forks the revision order,
and nothing after a fork can be judged as sharply as before it."""
REST_S = (0.02, 0.1)
"""How long a client rests after a connection error: a dead member is not hammered (at most 50 attempts a second and client), and a member
that comes back is met within a tenth of a second. The length is drawn, so that clients do not come back in step."""
BURST_S = 0.05
"""What a limited client may have saved up; more would turn a pause of all members into a spike that no steady load has."""


class Choice(NamedTuple):
    """What a client does next: a function of seed, client name and n.

    `template` is the request with holes where replies decide (`pekan.workloads.keys`); `options` are (name, value) pairs that say what
    is done around it. Neither ever holds anything that a reply told.
    """

    kind: str
    key: bytes = b""
    value: bytes = b""
    template: Any = None
    options: tuple[tuple[str, Any], ...] = ()

    def option(self, name: str, default: Any = None) -> Any:
        """The option called `name`, `default` where it was not drawn."""
        for known, value in self.options:
            if known == name:
                return value
        return default


def draws(seed: int, client: str, n: int) -> random.Random:
    """The random numbers of a client's n-th choice; the same for the same three arguments on every machine and Python release."""
    return random.Random(f"pekan/{seed}/{client}/{n}")


def unique_value(seed: int, client: str, n: int, part: int = 0, size: int = 0) -> bytes:
    """A value that is written once in a run: seed, client, n and the part of a request that writes several; padded to `size` bytes."""
    value = f"{seed}/{client}/{n}/{part}".encode()
    return value.ljust(size, b".")


def weighted(rng: random.Random, weights: dict[T, int]) -> T:
    """One key of `weights`, drawn by weight; one random number is used."""
    point = rng.random() * sum(weights.values())
    for kind, weight in weights.items():
        point -= weight
        if point < 0:
            return kind
    return next(reversed(weights))


class Connect(Protocol):
    """How a workload gets a client: given by the hunt, which also closes it."""

    def __call__(self, name: str, member: str, *, metadata: tuple[tuple[str, str], ...] = (), slow: bool = False) -> Client:
        """A client called `name`, pinned to the member with label `member`; `metadata` goes with every call and stream of it, and
        `slow` keeps its buffers small (see `pekan.etcd.client.Client`). A name may be asked for again when its client was closed."""


class Workload(Protocol):
    """One kind of traffic.

    `prepare` runs before the traffic's clock starts and without faults; it raises `PekanError` where the store cannot be made ready.
    `run` has all its tasks in one task group and returns within the request timeout (plus a second) after `finished` is set; the only
    exceptions that leave it are those of the recorder and bugs. `finish` runs after the faults have been healed.
    """

    name: str

    async def prepare(self, traffic: Traffic) -> None:
        """Make the store ready."""

    async def run(self, traffic: Traffic) -> None:
        """Send traffic until `traffic.finished`."""

    async def finish(self, traffic: Traffic) -> None:
        """Leave the store so that its members can be compared by a client without a token."""


class Moments(Protocol):
    """What a script knows of the run around it: given by the hunt."""

    async def until(self, trigger: Trigger, target: str) -> str:
        """Return at the moment of `trigger`: the member that brought it about, or "". `target`: whose log and whose hits count."""

    def done(self, step: str, lane: str) -> None:
        """The step of that name has been done: faults and other steps may wait for it. Recorded."""

    async def who(self, role: str) -> str:
        """The member that has the `role` now: "leader", "follower", "any", or its own name."""

    async def lead(self, member: str) -> None:
        """Return once `member` leads, leadership being moved to it; the caller bounds the wait."""

    async def ready(self, member: str) -> None:
        """Return once `member` answers a linearizable read; the caller bounds the wait."""

    def ended(self, stopped: dict[str, str]) -> None:
        """The script has ended; `stopped` says which lanes did before their last step, and why. Recorded."""


class Credentials(NamedTuple):
    """A user of etcd's auth store."""

    name: str
    password: str


class Limiter:
    """Token bucket over all clients of a run: `rate` operations a second, 0 = unlimited."""

    def __init__(self, rate: int) -> None:
        self._interval = 1.0 / rate if rate > 0 else 0.0
        self._next = 0.0

    def delay(self, now: float) -> float:
        """Take one token; how many seconds to wait before using it. `now` is seconds of any monotonic clock."""
        if not self._interval:
            return 0.0
        self._next = max(self._next, now - BURST_S) + self._interval
        return max(0.0, self._next - self._interval - now)


@dataclass
class Traffic:
    """The state that the clients of one run share. Made by the hunt, one a run; used in one event loop.

    revision, compacted   the newest header revision and the highest acknowledged compaction that any client has seen
    counts                operations by outcome ("ok", "refused", "failed", "indefinite"), and whatever else is worth a live line
    administrator         the user that may do everything, once auth is on; None while it is off
    """

    plan: Plan
    members: tuple[str, ...]
    """The first members: the homes of the clients."""
    connect: Connect
    moments: Moments | None = None
    """For a script; None where there is none."""
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    counts: Counter[str] = field(default_factory=Counter)
    administrator: Credentials | None = None
    revision: int = 1
    compacted: int = 0
    present: tuple[str, ...] = ()
    """The members that serve clients now; whoever changes the cluster's membership assigns it."""
    _limiter: Limiter = field(init=False)
    _began: float | None = None

    def __post_init__(self) -> None:
        self._limiter = Limiter(self.plan.rate)
        self.present = self.present or self.members

    def host(self, home: str, client: str) -> str:
        """The member that `client` is to ask now: a pure function of the seed, who is `present`, and these two."""
        present = self.present
        newcomers = [member for member in present if member not in self.members]
        if home not in present:
            gone = draws(self.plan.seed, f"{client}/host/{','.join(present)}", 0)
            return gone.choice(newcomers or present) if present else home
        for newcomer in newcomers:
            if draws(self.plan.seed, f"{client}/host/{newcomer}", 0).random() * len(present) < 1:
                return newcomer
        return home

    def begin(self) -> None:
        """Start the traffic's clock: `elapsed_ms` and the triggers of faults count from here."""
        self._began = time.monotonic()

    def elapsed_ms(self) -> int:
        """Milliseconds since `begin`; 0 before it."""
        return 0 if self._began is None else int((time.monotonic() - self._began) * 1000)

    @property
    def late(self) -> bool:
        """Whether the traffic is in its last fifth, the time of known deviations."""
        return self.elapsed_ms() >= LATE_FROM * self.plan.time_ms

    def clients(self) -> int:
        """How many clients of the main traffic each workload of the plan starts: its share, and at least one a member."""
        return max(len(self.members), self.plan.concurrency // max(1, len(self.plan.workloads)))

    def caller(
        self,
        name: str,
        member: str,
        credentials: Credentials | None = None,
        *,
        administrator: bool = False,
        metadata: tuple[tuple[str, str], ...] = (),
        slow: bool = False,
        pinned: bool = False,
    ) -> Caller:
        """A client that speaks as `credentials`, or as the administrator of the moment (nobody while auth is off), or as nobody.

        `member` is its home, which it leaves only when that has departed or for a newcomer, and not at all where it is `pinned`.
        """

        def connect(member: str) -> Client:
            return self.connect(name, member, metadata=metadata, slow=slow)

        return Caller(self, connect(member), credentials, administrator=administrator, move=None if pinned else connect)

    async def rest(self, seconds: float) -> None:
        """Wait, but not beyond the end of the traffic."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.finished.wait(), seconds)

    def sends(self, workload: str, kind: str) -> bool:
        """Whether choices of this kind are sent: the plan may leave them out."""
        return workload not in self.plan.without and f"{workload}:{kind}" not in self.plan.without

    async def skips(self, workload: str, kind: str) -> bool:
        """Whether a choice of this kind, drawn, is not sent; then everybody else has had a turn."""
        if self.sends(workload, kind):
            return False
        await asyncio.sleep(0)
        return True

    async def idle(self, workload: str, kinds: Iterable[str]) -> bool:
        """Whether the plan leaves out everything that a client draws from: then the traffic has ended. Such a client would only draw."""
        if any(self.sends(workload, kind) for kind in kinds):
            return False
        await self.finished.wait()
        return True

    async def turn(self) -> bool:
        """Wait for this client's share of the rate. False once the traffic has ended: draw nothing more."""
        if self.finished.is_set():
            return False
        delay = self._limiter.delay(time.monotonic())
        if delay > 0:
            await self.rest(delay)
        return not self.finished.is_set()

    async def until(self, share: float) -> bool:
        """Wait until `share` of the traffic's time is over; False where the traffic ends first."""
        while not self.finished.is_set():
            left_ms = share * self.plan.time_ms - self.elapsed_ms()
            if left_ms <= 0:
                return True
            await self.rest(left_ms / 1000)
        return False

    def saw(self, revision: int) -> None:
        """Take note of a header revision."""
        if revision > self.revision:
            self.revision = revision


@dataclass
class Caller:
    """A client with the user it speaks as, and the manners of a workload: counts, short rests, tokens renewed.

    No request is ever sent twice: a refused token is renewed and the *next* choice uses the new one.
    """

    traffic: Traffic
    client: Client
    credentials: Credentials | None = None
    administrator: bool = False
    move: Callable[[str], Client] | None = None
    """Makes the same client anew at another member; None where it stays."""
    rested: int = 0
    home: str = field(init=False)
    _token_of: Credentials | None = None
    _settled: tuple[str, ...] = field(init=False)
    """Who was present when it last looked whether to move."""

    def __post_init__(self) -> None:
        self.home = self.client.member
        self._settled = self.traffic.members

    @property
    def name(self) -> str:
        """The client's name."""
        return self.client.name

    @property
    def member(self) -> str:
        """The label of the member it is pinned to."""
        return self.client.member

    async def call(self, request: Request, timeout_s: float | None = None, *, patient: bool = False) -> Reply:
        """Send one request, as the client's `call`. The reply's outcome is counted; after a connection error the client rests a little."""
        traffic = self.traffic
        if not await self.authorize():
            # The request goes out all the same, without a token: what a client sends never depends on how its member is.
            await self._rest()
        reply = await self.client.call(request, timeout_s, patient=patient)
        if reply.outcome == "ok":
            traffic.counts["ok"] += 1
            header = getattr(reply.output, "header", None)
            if header is not None:
                traffic.saw(header.revision)
            if isinstance(request, messages.CompactionRequest):
                traffic.compacted = max(traffic.compacted, request.revision)
            return reply
        error = reply.output
        if isinstance(error, WireError) and errors.is_decided(error):
            traffic.counts["refused"] += 1
            if token_refused(error):
                self._token_of = None
        else:
            traffic.counts[reply.outcome] += 1
            await self._rest()
        return reply

    async def _rest(self) -> None:
        """A short rest. Only its length is drawn: what is sent next stays a function of seed, client and n."""
        self.rested += 1
        await self.traffic.rest(draws(self.traffic.plan.seed, self.name + "/rest", self.rested).uniform(*REST_S))

    def speaks_as(self) -> Credentials | None:
        """The user of this moment, None for requests without a token."""
        return self.traffic.administrator if self.administrator else self.credentials

    async def authorize(self) -> bool:
        """Be at a member that is there, with a token for the user of this moment. False where the member gave none (the call goes on
        without). To be called before each stream; `call` does it by itself."""
        if self._settled is not self.traffic.present and self.move is not None:
            await self._move(self.move)
        wanted = self.speaks_as()
        if wanted == self._token_of:
            return True
        if wanted is None:
            self.client.set_token("")
            self._token_of = None
            return True
        self.client.set_token("")
        reply = await self.client.call(pb.AuthenticateRequest(name=wanted.name, password=wanted.password))
        if reply.outcome != "ok":
            self._token_of = None
            return False
        self.client.set_token(reply.output.token)
        self._token_of = wanted
        return True

    async def _move(self, connect: Callable[[str], Client]) -> None:
        self._settled = self.traffic.present
        member = self.traffic.host(self.home, self.name)
        if member != self.client.member:
            await self.client.close()
            self.client = connect(member)
            self._token_of = None

    def forget_token(self) -> None:
        """Renew the token before the next call."""
        self._token_of = None


def token_refused(error: WireError) -> bool:
    """A member that was restarted has forgotten its simple tokens; a password or auth change invalidates them."""
    return error.code == errors.UNAUTHENTICATED or error.message in (
        errors.INVALID_AUTH_TOKEN,
        errors.AUTH_OLD_REVISION,
        "etcdserver: user name is empty",
    )


def masked(request: Any) -> Any | None:
    """`request` without what depends on replies, so that two runs of one plan can be compared; None for a follow-up of a choice.

    Masked: revisions read at, watched from or compacted, integer operands of compares and compared values. Dropped: second and later
    pages (their number depends on how many keys there are).
    """
    if isinstance(request, messages.RangeRequest) and request.limit and len(request.key) > 1 and request.key.endswith(b"\0"):
        return None
    return _masked(request)


def _masked(request: Any) -> Any:
    if isinstance(request, messages.RangeRequest):
        return request._replace(revision=0, min_mod_revision=0, max_mod_revision=0, min_create_revision=0, max_create_revision=0)
    if isinstance(request, messages.TxnRequest):
        return messages.TxnRequest(
            tuple(compare._replace(operand=0) for compare in request.compare),
            tuple(map(_masked, request.success)),
            tuple(map(_masked, request.failure)),
        )
    if isinstance(request, messages.CompactionRequest):
        return request._replace(revision=0)
    return request

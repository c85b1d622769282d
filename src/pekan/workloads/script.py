"""The workload `script`: traffic that is spelled out in the plan, step by step.

::

    plan.script    Lane a ── step ── step ── step ...      lanes run side by side, the steps of one after each other
                   Lane b ── step ── step ...              step: wait for a moment ─> one request, or many ─> what its reply has to be

    before    Step.wait    at T, a revision, a line of a log, a fault fired or healed, a step of another lane: the triggers of faults
    request   Step.request filled into etcd's own message; text in it may count ({n}, {i}), numbers may come from earlier replies
    after     the step's name is known as done: steps and faults wait for it; a reply under that name can be referred to

Streams of watches are read in the background until every lane has ended, and then as far as the newest revision, if that comes.

Where a step's answer is not what it has to be, its lane ends there. The record says with which step and what came instead (mark
`script`): the run has not met its conditions, and a verdict says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from pekan.errors import UsageError
from pekan.plan import ROLES, Lane, Plan, Step
from pekan.wire import messages
from pekan.wire.errors import WireError
from pekan.wire.messages import Decoder, Request, WatchCreateRequest, WatchProgressRequest, pb
from pekan.workloads.traffic import Caller, Credentials, Moments, Traffic

if TYPE_CHECKING:
    from pekan.etcd.client import WatchStream

NAME = "script"
ANSWERS = ("any", "ok", "error")
WATCH = "watch"
OWN_FIELDS = {
    WATCH: ("watches", "progress", "bytes_a_second", "slow"),
    "progress": ("stream",),
    "cancel": ("stream",),
    "keepalive": ("ID",),
    "lead": (),
    "ready": (),
    "login": ("name", "password"),
    "administrator": ("name", "password"),
    "nothing": (),
}
"""What is no request of etcd's API, or more than one; and what `Step.request` may say then, beside a watch's own fields."""
ANSWER_S = 20.0
"""How long a step waits for the answer that it has to have, where it does not say: a connection to be dialled again, a stalled disk,
several elections. What an answer that did not come would show, another run has to show."""
READ_S = 0.1
"""One look at a stream that has nothing to say."""
HEAD_S = 10.0
"""How long streams may take, once all lanes have ended, to deliver the newest revision: a stalled disk, an election, a slow start."""
IDLE_LOOKS = 3
"""So many looks at a stream without a message, after the end, and its member served before each of them: it has delivered what it was going
to deliver. Watches that lag behind are served every 100 ms."""
WITHIN_S = 30.0
"""How long a member may take to lead or to serve: several elections, a slow replay."""
_LATER: Any = object()
"""What a reply will say, while a plan is only checked."""


class _Stopped(Exception):
    """The lane ends here, because of this."""


@dataclass
class _Reader:
    """A stream of watches, and what has been read of it."""

    stream: WatchStream
    member: str
    bytes_a_second: int
    created: int = 0
    revision: int = 0
    """The newest that an event or an announcement of progress has named."""
    delivered: int = 0
    """The newest of an event: affected releases announce what they have not delivered (#15220)."""
    heard: int = 0
    """Messages so far."""
    idle: int = 0
    """Looks so far that found nothing."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, traffic: Traffic) -> None:
        """Take messages, no faster than wanted, until the stream ends or somebody cancels."""
        while not self.stream.ended:
            try:
                message = await self.stream.receive(READ_S)
            except TimeoutError:
                self.idle += 1
                continue
            if message is None:
                break
            self.heard += 1
            self.created += message.created
            size = 0
            for event in message.events:
                self.delivered = max(self.delivered, event.kv.mod_revision)
                size += len(event.kv.key) + len(event.kv.value)
            self.revision = max(self.revision, self.delivered)
            if not message.events and not message.created and not message.canceled:
                self.revision = max(self.revision, message.header.revision)
            traffic.counts["events"] += len(message.events)
            traffic.saw(message.header.revision)
            self.news.set()
            self.news = asyncio.Event()
            if self.bytes_a_second:
                await asyncio.sleep(size / self.bytes_a_second)
        self.news.set()

    async def until_created(self, count: int) -> None:
        """Return once `count` watches have been confirmed, or the stream has ended; the caller bounds the wait."""
        while self.created < count and not self.stream.ended:
            await self.news.wait()


class Script:
    """The workload `script`."""

    name = NAME

    def __init__(self) -> None:
        self.replies: dict[str, Any] = {}
        """What was answered last to the step of that name."""
        self.readers: dict[str, _Reader] = {}
        """The last stream that a step of that name opened."""
        self.opened: list[_Reader] = []
        self.reading: list[asyncio.Task[None]] = []
        self.speakers: dict[str, Credentials | None] = {}
        """Lane -> whom it speaks as."""
        self.callers: dict[tuple[str, int, str], Caller] = {}
        self.decoder = Decoder()
        self.moments: Moments

    async def prepare(self, traffic: Traffic) -> None:
        """Nothing: what is wrong with a script was said when it was planned (`check`)."""

    async def run(self, traffic: Traffic) -> None:
        """All lanes; returns when the last has ended, or the traffic."""
        assert traffic.moments is not None
        self.moments = traffic.moments
        ends = {lane.name: asyncio.create_task(self.lane(lane, traffic), name=f"script {lane.name}") for lane in traffic.plan.script}
        over = asyncio.create_task(traffic.finished.wait(), name="end of the traffic")
        try:
            going = set(ends.values())
            while going and not over.done():
                done, _ = await asyncio.wait({*going, over}, return_when=asyncio.FIRST_COMPLETED)
                going -= done
            whys = {name: task.result() if task.done() else "the run ended before" for name, task in ends.items()}
            stopped = {name: why for name, why in whys.items() if why}
            if not over.done():
                await self.read_on(traffic)
            self.moments.ended(stopped)
        finally:
            for task in (*ends.values(), over, *self.reading):
                task.cancel()
            await asyncio.gather(*ends.values(), over, *self.reading, return_exceptions=True)
            for reader in self.opened:
                await reader.stream.close()

    async def finish(self, traffic: Traffic) -> None:
        """Nothing: a script leaves the store as it says."""

    async def read_on(self, traffic: Traffic) -> None:
        """Wait until every stream has delivered the newest revision, or has nothing to say though its member serves."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAD_S), asyncio.TaskGroup() as group:
                for reader in self.opened:
                    group.create_task(self.read_to_head(reader, traffic), name=f"read stream {reader.stream.id} to the head")

    async def read_to_head(self, reader: _Reader, traffic: Traffic) -> None:
        """The same of one stream; the caller bounds the wait. A member that is held up by its disk has more to say than it says."""
        looks = 0
        while not reader.stream.ended and reader.delivered < traffic.revision and looks < IDLE_LOOKS:
            await self.moments.ready(reader.member)
            heard, idle = reader.heard, reader.idle
            await asyncio.sleep(READ_S)
            looks = 0 if reader.heard > heard else looks + (reader.idle > idle)

    async def lane(self, lane: Lane, traffic: Traffic) -> str:
        """Do the steps of `lane`. Returns why it ended early, or ""."""
        for number, step in enumerate(lane.steps):
            try:
                if step.wait is not None:
                    await self.moments.until(step.wait, step.member or lane.member)
                await self.step(step, lane, traffic)
            except _Stopped as reason:
                return f"step {step.name or number} ({step.call}): {reason}"
            if step.name:
                self.moments.done(step.name, lane.name)
        return ""

    async def step(self, step: Step, lane: Lane, traffic: Traffic) -> None:
        """All turns of all clients of a step."""
        end: asyncio.Task[str] | None = None
        if step.until is not None:
            end = asyncio.create_task(self.moments.until(step.until, step.member or lane.member), name=f"until {step.until}")
        try:
            async with asyncio.TaskGroup() as group:
                for client in range(step.clients):
                    group.create_task(self.turns(step, lane, traffic, client, end), name=f"script {lane.name} {client}")
        except* _Stopped as stopped:
            raise _Stopped(str(next(_leaves(stopped)))) from None
        finally:
            if end is not None:
                end.cancel()
                await asyncio.gather(end, return_exceptions=True)

    async def turns(self, step: Step, lane: Lane, traffic: Traffic, client: int, end: asyncio.Task[str] | None) -> None:
        """The turns of one client; the last one's answer has to be what the step says."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        turn = 0
        answer: Any = None
        while (turn < step.times if end is None else not end.done()) and not traffic.finished.is_set():
            if step.every_ms and turn:
                await traffic.rest(began + turn * step.every_ms / 1000 - loop.time())
            names = {"n": client + turn * step.clients, "client": client, "lane": lane.name}
            answer = await self.turn(step, lane, traffic, client, names)
            if not isinstance(answer, WireError) and step.name:
                self.replies[step.name] = answer
            turn += 1
        said = "error" if isinstance(answer, WireError) else "ok"
        if step.answer not in ("any", said):
            raise _Stopped(f"{answer.message if isinstance(answer, WireError) else 'ok'!r} was answered, {step.answer!r} is what it needs")

    async def turn(self, step: Step, lane: Lane, traffic: Traffic, client: int, names: Mapping[str, Any]) -> Any:
        """One turn: what it was answered, or a WireError."""
        asked = _filled_in(step.request, names, self.replies, self.readers)
        if step.call == "nothing":
            return None
        member = await self.moments.who(step.member or lane.member)
        if step.call in ("lead", "ready"):
            within_s = step.timeout_ms / 1000 or WITHIN_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await (self.moments.lead(member) if step.call == "lead" else self.moments.ready(member))
                    return None
            return WireError(0, f"{member} does not {'lead' if step.call == 'lead' else 'serve'} after {within_s:g} s")
        if step.call in ("login", "administrator"):
            user = Credentials(asked["name"], asked["password"]) if asked.get("name") else None
            if step.call == "administrator":
                traffic.administrator = user
            else:
                self.speakers[lane.name] = user
            return None
        caller = self.caller(lane, client, member, traffic)
        timeout_s = step.timeout_ms / 1000 if step.timeout_ms else None if step.answer == "any" else ANSWER_S
        if step.call == WATCH:
            return await self.watch(step, asked, caller, traffic, timeout_s)
        if step.call == "progress":
            reader = self.readers[asked["stream"]]
            return None if await reader.stream.send(WatchProgressRequest()) else WireError(reader.stream.code, reader.stream.reason)
        if step.call == "cancel":
            await self.readers[asked["stream"]].stream.close()
            return None
        if step.call == "keepalive":
            return await _keep_alive(caller, int(asked["ID"]), timeout_s or traffic.plan.timeout_ms / 1000)
        reply = await caller.call(self.request(step, asked), timeout_s, patient=step.answer != "any")
        return reply.output

    def caller(self, lane: Lane, client: int, member: str, traffic: Traffic) -> Caller:
        """The client of that number in a lane, at that member."""
        key = (lane.name, client, member)
        if key not in self.callers:
            name = f"{NAME}-{lane.name}-{client}-{member}"
            self.callers[key] = traffic.caller(name, member, pinned=True)
        caller = self.callers[key]
        caller.credentials = self.speakers.get(lane.name)
        return caller

    def request(self, step: Step, asked: Mapping[str, Any]) -> Request:
        """The request of a step, as clients take it."""
        method, kind = messages.called(step.call)
        message = kind()
        _fill(message, asked, step.call)
        request: Request = self.decoder.request(method, message.SerializeToString())
        return request

    async def watch(self, step: Step, asked: dict[str, Any], caller: Caller, traffic: Traffic, timeout_s: float | None) -> Any:
        """Open a stream with its watches; done when they are confirmed."""
        own = {name: asked.get(name) for name in OWN_FIELDS[WATCH]}
        count = int(own["watches"] or 1)
        create = {name: value for name, value in asked.items() if name not in own}
        await caller.authorize()
        client = caller.client
        if own["slow"]:
            client = traffic.connect(f"{caller.name}-{step.name}-slow", caller.member, slow=True)
        stream = client.watch(patient=step.answer != "any")
        reader = _Reader(stream, caller.member, int(own["bytes_a_second"] or 0))
        self.readers[step.name] = reader
        self.opened.append(reader)
        for number in range(count):
            whole = pb.WatchRequest(create_request=pb.WatchCreateRequest())
            _fill(whole.create_request, _filled_in(create, {"i": number}, {}, {}), step.call)
            request: WatchCreateRequest = self.decoder.request(messages.WATCH, whole.SerializeToString())
            if not await stream.send(request):
                return WireError(stream.code, stream.reason)
        for _ in range(int(own["progress"] or 0)):
            await stream.send(WatchProgressRequest())
        self.reading.append(asyncio.create_task(reader.read(traffic), name=f"read {step.name}"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s or traffic.plan.timeout_ms / 1000):
                await reader.until_created(count)
        if reader.created < count:
            return WireError(stream.code, stream.reason or f"{reader.created} of {count} watches were confirmed in time")
        return None


async def _keep_alive(caller: Caller, lease: int, timeout_s: float) -> Any:
    await caller.authorize()
    async with caller.client.stream(messages.LEASE_KEEP_ALIVE) as stream:
        await stream.send(messages.LeaseKeepAliveRequest(lease))
        try:
            answer = await stream.receive(timeout_s)
        except TimeoutError as error:
            return WireError(0, str(error))
        return WireError(stream.code, stream.reason) if answer is None else answer


def _leaves(group: BaseExceptionGroup[_Stopped]) -> Iterator[_Stopped]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


# ---- from a plan's JSON to a message ----


def check(plan: Plan) -> None:
    """Raise `UsageError` naming lane, step and field where the script of `plan` cannot be done as it stands."""
    if (NAME in plan.workloads) != bool(plan.script):
        raise UsageError("plan: the workload 'script' does what plan.script says: give both, or none")
    steps = [(lane, step, number) for lane in plan.script for number, step in enumerate(lane.steps)]
    members = (*(f"m{number + 1}" for number in range(plan.members)), *ROLES)
    streams = {step.name for _, step, _ in steps if step.call == WATCH}
    named = {step.name for _, step, _ in steps if step.name}
    for lane, step, number in steps:
        try:
            _check_step(step, lane, members, named, streams)
        except UsageError as error:
            raise UsageError(f"plan.script: lane {lane.name}, step {step.name or number} ({step.call}): {error}") from None


def _check_step(step: Step, lane: Lane, members: tuple[str, ...], named: set[str], streams: set[str]) -> None:
    if (step.member or lane.member) not in members:
        raise UsageError(f"no member is called {step.member or lane.member!r}; there are {', '.join(members)}")
    if step.answer not in ANSWERS:
        raise UsageError(f"answer {step.answer!r}: it may be {', '.join(ANSWERS)}")
    for moment in (step.wait, step.until):
        if moment is not None and moment.step and moment.step not in named:
            raise UsageError(f"it waits for the step {moment.step!r}, and no step is called that")
    for reference in _references(step.request):
        if reference.partition(".")[0] not in named:
            raise UsageError(f"it refers to a reply of {reference.partition('.')[0]!r}, and no step is called that")
    asked = _filled_in(step.request, {"n": 0, "client": 0, "lane": ""}, None, {})
    if step.call == WATCH:
        if not step.name:
            raise UsageError("give it a name: its stream is known by it")
        create = {name: value for name, value in asked.items() if name not in OWN_FIELDS[WATCH]}
        _fill(pb.WatchCreateRequest(), _filled_in(create, {"i": 0}, None, {}), step.call)
    elif step.call in OWN_FIELDS:
        for name in asked:
            if name not in OWN_FIELDS[step.call]:
                raise UsageError(f"it takes no {name!r}; it takes {', '.join(OWN_FIELDS[step.call]) or 'nothing'}")
        if step.call in ("progress", "cancel") and asked.get("stream") not in streams:
            raise UsageError(f"no watch step is called {asked.get('stream')!r}")
    else:
        _fill(messages.called(step.call)[1](), asked, step.call)


def _references(value: Any) -> Iterator[str]:
    """Every {"reply": ...} in a step's request."""
    if isinstance(value, dict):
        if "reply" in value:
            yield str(value["reply"])
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _references(each)


def _filled_in(value: Any, names: Mapping[str, Any], replies: Mapping[str, Any] | None, readers: Mapping[str, _Reader]) -> Any:
    """`value` with its text counted, lists unfolded and references looked up; without `replies` they are left for later."""
    if isinstance(value, str):
        return _said(value, names)
    if isinstance(value, dict):
        if "reply" in value:
            return _LATER if replies is None else _referred(value, replies, readers)
        return {name: _filled_in(each, names, replies, readers) for name, each in value.items()}
    if isinstance(value, list | tuple):
        filled: list[Any] = []
        for each in value:
            if isinstance(each, dict) and set(each) == {"times", "of"}:
                filled += (_filled_in(each["of"], {**names, "i": number}, replies, readers) for number in range(int(each["times"])))
            else:
                filled.append(_filled_in(each, names, replies, readers))
        return filled
    return value


class _Left(dict[str, Any]):
    """Names that are not known yet stay as they are: {i} of a watch is filled in when there is one."""

    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"


def _said(text: str, names: Mapping[str, Any]) -> str:
    if "{" not in text:
        return text
    known = _Left(names)
    try:
        for _, name, _, _ in string.Formatter().parse(text):
            if name is not None and name not in (*names, "i"):
                raise UsageError(f"{text!r}: nothing is called {name!r}; there are {', '.join((*names, 'i'))}")
        return text.format_map(known) if "i" in names or "{i" not in text else text
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}; braces that stand for themselves are doubled") from None


def _referred(reference: Mapping[str, Any], replies: Mapping[str, Any], readers: Mapping[str, _Reader]) -> Any:
    """What {"reply": "STEP.FIELD.FIELD", "plus": N} stands for."""
    step, _, path = str(reference["reply"]).partition(".")
    if step in readers and path == "revision":
        found: Any = readers[step].revision
    else:
        if step not in replies:
            raise _Stopped(f"nothing has been answered to {step!r}")
        found = replies[step]
        for name in filter(None, path.split(".")):
            try:
                found = found[int(name)] if name.isdecimal() else getattr(found, name)
            except (AttributeError, IndexError):
                raise _Stopped(f"the answer to {step!r} has no {path}") from None
    return found + reference["plus"] if "plus" in reference else found


def _fill(message: Message, asked: Mapping[str, Any], where: str) -> None:
    """Set the fields of `message` that `asked` names. Raises `UsageError` naming the field that is wrong."""
    fields = message.DESCRIPTOR.fields_by_name
    for name, value in asked.items():
        found = fields.get(name)
        if found is None:
            raise UsageError(f"{where} has no field {name!r}; it has {', '.join(fields)}")
        here = f"{where}.{name}"
        many = found.is_repeated
        values = value if many else [value]
        if not isinstance(values, list):
            raise UsageError(f"{here}: expected an array, found {value!r}")
        for each in values:
            if each is _LATER:
                continue
            if found.message_type is not None:
                if not isinstance(each, dict):
                    raise UsageError(f"{here}: expected an object, found {each!r}")
                child = getattr(message, name).add() if many else getattr(message, name)
                child.SetInParent()
                _fill(child, each, here)
                continue
            plain = _plain(found, each, here)
            try:
                if many:
                    getattr(message, name).append(plain)
                else:
                    setattr(message, name, plain)
            except (TypeError, ValueError) as error:
                raise UsageError(f"{here}: {error}") from None


def _plain(found: Any, value: Any, where: str) -> Any:
    """A value as protobuf takes it: bytes for text where etcd takes bytes, the number of an enumerated name."""
    if found.cpp_type == found.CPPTYPE_ENUM and isinstance(value, str):
        names = found.enum_type.values_by_name
        if value not in names:
            raise UsageError(f"{where}: {value!r} is none of {', '.join(names)}")
        return names[value].number
    if found.type == found.TYPE_BYTES and isinstance(value, str):
        return value.encode()
    return value

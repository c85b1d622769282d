"""What a run is asked to do: frozen data, JSON both ways, no I/O.

A plan is enough to do a run again: which etcd, how many members with which flags, which traffic for how long at which rate, which faults
when, which seed. What depends on replies and on time is excepted; each client's n-th choice is a function of (seed, client, n).

::

    Plan ── schedule ──> Fault(kind, target, parameters, trigger, until, required | fault_class)
      │                                                  │
      │                                                  └─ Trigger(at_ms | revision | log | failpoint | after | healed | step)
      │                                                         │
      └──── script ──> Lane(name, member) ── steps ──> Step(call, request, times ... ; wait, until)

Most traffic is drawn. A *script* is traffic that is spelled out: what exactly some clients ask, in which order, and what they wait for.
Faults wait for steps and steps for faults by the same triggers, so that a run of few requests can meet one moment of a server.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, TypeVar

from pekan.errors import UsageError

T = TypeVar("T")
FORMAT = 1
"""Version of the JSON form; a reader refuses what it does not know."""
ROLES = ("leader", "follower", "any")
"""Targets of faults that are no member's name: resolved when the fault is armed."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """When a fault is armed: at `at_ms` after traffic began; with one of the others, at that event, which is looked for from `at_ms` on.

    revision   a reply names this revision of the store, or a later one
    log        a member's log has a new line with this text
    failpoint  a member has hit this point of its program `hit` times since `at_ms`
    after      another fault has fired: its kind, or kind#N for the N-th of that kind
    healed     another fault has been healed, told in the same way
    step       a step of the script that bears this name has been done
    """

    at_ms: int = 0
    revision: int = 0
    log: str = ""
    failpoint: str = ""
    hit: int = 1
    after: str = ""
    healed: str = ""
    step: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault to inject.

    kind         name of an injector, e.g. "kill"
    target       "leader" | "follower" | "any" | a member's name; roles are resolved when it is armed
    parameters   what the injector takes, e.g. {"hold_ms": 800}; whole numbers and text
    required     asked for by name: a run in which it does not fire is undecided
    fault_class  the class it was drawn from, empty where asked for by name
    until        the moment that ends it, instead of a length of time; None: its parameters say how long it lasts
    """

    kind: str
    target: str
    trigger: Trigger
    parameters: dict[str, Any] = field(default_factory=dict)
    required: bool = False
    fault_class: str = ""
    until: Trigger | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """The faults of a run and its phases, in ms since traffic began: quiet until `quiet_ms`, faults until `heal_ms`, then recovery.

    storms  when each storm of drawn faults begins; it begins later where the calm before it does
    """

    quiet_ms: int
    heal_ms: int
    end_ms: int
    faults: tuple[Fault, ...] = ()
    storms: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a client of a script does, once or many times.

    call       a request of etcd's API by its name there: Range, Put, DeleteRange, Txn, Compact, LeaseGrant, MemberList, Lock, AuthEnable;
               or what is no request of its own:
               watch      a stream with `request["watches"]` watches (1), each created as the other fields of WatchCreateRequest say,
                          read in the background until the script ends; `request["progress"]`: that many requests for progress right
                          after it; `request["bytes_a_second"]`: read no faster; `request["slow"]`: with small buffers
               progress   ask for progress on the stream `request["stream"]` (the name of the step that opened it)
               cancel     end that stream
               keepalive  one LeaseKeepAlive of the lease `request["ID"]`
               lead       leadership moved to the step's member, by MoveLeader; done when that leads
               ready      done when the member answers a linearizable read (again)
               login      the lane speaks as `request["name"]` with `request["password"]` from now on; "" for nobody
               administrator  the same, for whoever compares members and asks on behalf of faults
               nothing    nothing: a place to wait, to pause or to be named
    request    its fields by etcd's names; text is UTF-8 where etcd takes bytes. In text {n} is the number of this turn from 0, {i} the
               place within {"times": count, "of": ...}, which stands for so many elements of a list, {lane} and {client} who asks; with
               Python's format: "{n:06}", or "{n:x>1000}" for a value of 1000 bytes. {"reply": "STEP.FIELD.FIELD"} stands for what a
               reply said: the last one to the step of that name, or (FIELD "revision") the last revision that a watch stream named;
               "plus": N adds to it
    name       of the step: faults and other steps wait for it, replies are referred to by it
    member     whom it asks: a member's name, "leader", "follower"; "" for the lane's
    times      how often, one after the other (of each of the `clients`)
    clients    how many clients do it side by side
    every_ms   from the begin of one turn to the next; 0: at once
    wait       for what it waits before it begins
    until      goes on until that moment instead of counting `times`
    timeout_ms of each request; 0: the plan's, or 20 s where `answer` says what has to come
    answer     what has to come of the last turn: "ok", "error" (whatever kind), or "any". Anything else ends the lane: the conditions of
               the script were not met
    """

    call: str
    request: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    member: str = ""
    times: int = 1
    clients: int = 1
    every_ms: int = 0
    wait: Trigger | None = None
    until: Trigger | None = None
    timeout_ms: int = 0
    answer: str = "any"


@dataclass(frozen=True, slots=True)
class Lane:
    """Steps that follow each other; the lanes of a script run side by side. `member`: whom its steps ask that do not say otherwise."""

    name: str
    member: str
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. `etcd` is what the user asked for; what was really run is recorded in the start mark with its checksums.

    rate         operations a second over all clients; 0: as fast as they go
    concurrency  clients of the main traffic (watchers and administrators come on top)
    timeout_ms   deadline of each request
    allow        finding codes that are notes in this run
    script       what the workload "script" does; a run of nothing but a script ends when that is done
    without      what of the traffic is left out: a workload or companion by its name, or a kind of its choices as NAME:KIND. A choice of
                 such a kind is drawn and not sent, so that all others stay what they are
    """

    etcd: str
    seed: int
    members: int = 3
    workloads: tuple[str, ...] = ("kv",)
    time_ms: int = 60_000
    rate: int = 0
    concurrency: int = 8
    timeout_ms: int = 2_000
    tls: bool = False
    flags: tuple[tuple[str, str], ...] = ()
    fault_classes: tuple[str, ...] = ()
    schedule: Schedule = Schedule(quiet_ms=0, heal_ms=0, end_ms=0)
    allow: tuple[str, ...] = ()
    script: tuple[Lane, ...] = ()
    without: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `from_json` takes back to an equal plan."""
        return {"format": FORMAT, **asdict(self)}

    def to_text(self) -> str:
        """`to_json` as indented text with a final newline, the content of plan.json."""
        return json.dumps(self.to_json(), indent=2) + "\n"

    @classmethod
    def from_json(cls, data: object) -> Plan:
        """The plan that `data` (parsed JSON) describes. Raises UsageError naming the field that is wrong."""
        obj = dict(_object(data, "plan"))
        found = obj.pop("format", None)
        if found != FORMAT:
            raise UsageError(f"plan: format is {found!r}, expected {FORMAT}; was it written by another release of Pekan?")
        schedule = dict(_object(obj.pop("schedule", {}), "plan.schedule"))
        faults = []
        for index, item in enumerate(_array(schedule.pop("faults", []), "plan.schedule.faults")):
            where = f"plan.schedule.faults[{index}]"
            fault = dict(_object(item, where))
            fault["trigger"] = _build(Trigger, _object(fault.get("trigger"), f"{where}.trigger"), f"{where}.trigger")
            if fault.get("until") is not None:
                fault["until"] = _build(Trigger, _object(fault["until"], f"{where}.until"), f"{where}.until")
            faults.append(_build(Fault, fault, where))
        storms = tuple(_whole(item, "plan.schedule.storms") for item in _array(schedule.pop("storms", []), "plan.schedule.storms"))
        obj["schedule"] = _build(Schedule, {**schedule, "faults": tuple(faults), "storms": storms}, "plan.schedule")
        for name in ("workloads", "fault_classes", "allow", "without"):
            if name in obj:
                obj[name] = tuple(_text(item, f"plan.{name}") for item in _array(obj[name], f"plan.{name}"))
        obj["script"] = tuple(
            _lane(item, f"plan.script[{index}]") for index, item in enumerate(_array(obj.pop("script", []), "plan.script"))
        )
        if "flags" in obj:
            obj["flags"] = tuple(_pair(item) for item in _array(obj["flags"], "plan.flags"))
        return _build(cls, obj, "plan")

    @classmethod
    def from_text(cls, text: str) -> Plan:
        """Parse plan.json. Raises UsageError naming line or field."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise UsageError(f"plan: not JSON: {error}") from None
        return cls.from_json(data)


def _lane(data: object, where: str) -> Lane:
    lane = dict(_object(data, where))
    steps = []
    for index, item in enumerate(_array(lane.pop("steps", []), f"{where}.steps")):
        here = f"{where}.steps[{index}]"
        step = dict(_object(item, here))
        for name in ("wait", "until"):
            if step.get(name) is not None:
                step[name] = _build(Trigger, _object(step[name], f"{here}.{name}"), f"{here}.{name}")
        _object(step.get("request", {}), f"{here}.request")
        steps.append(_build(Step, step, here))
    return _build(Lane, {**lane, "steps": tuple(steps)}, where)


def _object(data: object, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UsageError(f"{where}: expected a JSON object, found {type(data).__name__}")
    return data


def _array(data: object, where: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise UsageError(f"{where}: expected a JSON array, found {type(data).__name__}")
    return data


def _pair(data: object) -> tuple[str, str]:
    pair = _array(data, "plan.flags")
    if len(pair) != 2:
        raise UsageError(f"plan.flags: expected pairs of name and value, found {data!r}")
    return _text(pair[0], "plan.flags"), _text(pair[1], "plan.flags")


def _text(data: object, where: str) -> str:
    if not isinstance(data, str):
        raise UsageError(f"{where}: expected text, found {data!r}")
    return data


def _whole(data: object, where: str) -> int:
    if not isinstance(data, int) or isinstance(data, bool):
        raise UsageError(f"{where}: expected a whole number, found {data!r}")
    return data


_SIMPLE = {"str": str, "int": int, "bool": bool}


def _build(cls: type[T], obj: dict[str, Any], where: str) -> T:
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    for name, value in obj.items():
        if name not in known:
            raise UsageError(f"{where}: unknown field {name!r}; known are {', '.join(known)}")
        expected = _SIMPLE.get(str(known[name].type))
        if expected is not None and (not isinstance(value, expected) or (expected is int and isinstance(value, bool))):
            raise UsageError(f"{where}.{name}: expected {expected.__name__}, found {value!r}")
    missing = [name for name, f in known.items() if name not in obj and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise UsageError(f"{where}: missing {', '.join(missing)}")
    return cls(**obj)

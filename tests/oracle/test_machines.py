"""Two readings of etcd's server, made apart from each other, answer alike."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from oracle.brute import same
from pekan.models.etcd import Refused, State, apply
from pekan.wire.errors import WireError
from pekan.wire.messages import Event, KeyValue
from simulator.machine import Store, is_local
from simulator.traffic import Mix, World


def changes(events: tuple[Event, ...]) -> list[tuple[int, KeyValue]]:
    """What the events change, in an order of its own: a revoked lease's keys go in any. A previous value is a watch's business."""
    return sorted((event.type, event.kv) for event in events)


@settings(max_examples=400)
@given(seed=st.integers(0, 2**32), keys=st.integers(1, 5), unique=st.booleans(), compact=st.sampled_from((0.0, 1.0, 6.0)))
def test_model_and_simulator_answer_alike(seed: int, keys: int, unique: bool, compact: float) -> None:
    """Sixty random requests of every kind get equal answers and equal events from the model and from the simulator's machine."""
    mix = Mix(compact=compact, grant=5, put_lease=8, nested=8, ranged_txn=4, compares_only=2)
    world = World(Random(seed), [b"k%02d" % n for n in range(keys)], mix, unique)
    store, state = Store(), State()
    for _ in range(60):
        request = world.draw()
        reasons = set() if not hasattr(request, "success") or is_local(request) else {e.message for e in store.refusals(request)}
        ours = store.apply(request)
        outcome = apply(state, request, None if isinstance(ours, WireError) else ours)
        if isinstance(ours, WireError):
            assert isinstance(outcome, Refused), f"{request}: refused with {ours.message}, answered by the model with {outcome}"
            assert outcome.text in (reasons or {ours.message}), f"{request}: {ours.message} and {outcome.text}"
        else:
            assert not isinstance(outcome, Refused), f"{request}: {ours}, refused by the model with {outcome}"
            assert same(ours, outcome.answer), f"{request}:\n simulator {ours}\n model     {outcome.answer}"
            assert state.revision == store.revision, f"{request}: revision {store.revision}, the model's {state.revision}"
            if outcome.events:
                assert changes(store.events[store.revision]) == changes(outcome.events), request
            world.revision = store.revision
        assert (state.compacted, state.kvs) == (store.compacted, store.live)

"""Porcupine's visualisation: what its viewer relies on."""

from __future__ import annotations

from pekan.history import INDEFINITE, OK, Call, History, Operation
from pekan.history.foreign.visualisation import Shown, visualisation

OPERATIONS = (
    Operation(0, 7, 10, 40, OK, Call("write", 1, "x"), 1),
    Operation(1, 8, 20, 30, OK, Call("read", None, "y"), None),
    Operation(2, 7, 50, None, INDEFINITE, Call("write", 2, "x"), None),
    Operation(3, 7, 60, 70, OK, Call("read", None, "x"), 2),
)


def test_keys_are_partitions() -> None:
    """Independent objects are shown apart, on one axis of ranked times."""
    told = visualisation(History(OPERATIONS))["Partitions"]
    assert [[(e["Start"], e["End"]) for e in part["History"]] for part in told] == [[(0, 300), (400, 700), (500, 600)], [(100, 200)]]
    assert [[e["ClientId"] for e in part["History"]] for part in told] == [[0, 0, 2], [1]]


def test_orders_are_told_longest_first() -> None:
    """Each operation is in the longest order that holds it, by the index that the viewer looks up."""
    orders = [[(0, "1")], [(0, "1"), (2, "2")]]
    (part,) = visualisation(History(OPERATIONS), [Shown((OPERATIONS[0], OPERATIONS[2], OPERATIONS[3]), orders)])["Partitions"]
    assert [len(order) for order in part["PartialLinearizations"]] == [2, 1]
    assert part["PartialLinearizations"][0][1] == {"Index": 2, "StateDescription": "2"}
    assert part["Largest"] == {"0": 0, "2": 0}

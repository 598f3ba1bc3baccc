"""Our finaliser: put on once, taken off this very object whoever put it on, and nobody else's with it."""

from __future__ import annotations

from typing import Any

import pytest

from lora_operator.finalizing import with_finalizer, without_finalizer
from lora_operator.labels import FINALIZER
from support.objects import make_adapter

Object = dict[str, Any]
THEIRS = "example.com/theirs"


def held_by(*finalizers: str) -> Object:
    """Return an object that these finalisers hold."""
    obj = make_adapter()
    obj["metadata"]["finalizers"] = list(finalizers)
    return obj


def test_it_is_put_on_by_an_apply_that_makes_no_object_anew() -> None:
    body = with_finalizer(held_by(THEIRS))
    assert body is not None
    assert body["metadata"]["finalizers"] == [FINALIZER]
    assert body["metadata"]["uid"] == "uid-support"


def test_what_is_as_it_should_be_costs_no_write() -> None:
    assert with_finalizer(held_by(FINALIZER)) is None
    assert without_finalizer(held_by(THEIRS)) is None
    assert without_finalizer(make_adapter()) is None


@pytest.mark.parametrize("around", [[FINALIZER], [THEIRS, FINALIZER], [FINALIZER, THEIRS]])
def test_it_alone_is_taken_off(around: list[str]) -> None:
    operations = without_finalizer(held_by(*around))
    place = f"/metadata/finalizers/{around.index(FINALIZER)}"
    assert operations == [
        {"op": "test", "path": "/metadata/uid", "value": "uid-support"},
        {"op": "test", "path": place, "value": FINALIZER},
        {"op": "remove", "path": place},
    ]

"""What becomes of a model in a structural schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import ConfigDict, Field

from generators.structural import structural
from lora_operator.api.schema import IntOrQuantity, Model, rules


class Inner(Model):
    model_config = ConfigDict(json_schema_extra=rules(("has(self.size)", "inner")))

    size: int = 1
    """size of
    the inner."""


class Outer(Model):
    word: Literal["One"] = "One"
    amount: IntOrQuantity = 1
    maybe: Annotated[Inner, Field(json_schema_extra=rules(("self == oldSelf", "outer")))] | None = None
    inner: Inner = Inner()
    items: tuple[Inner, ...] = ()
    labels: dict[str, str] = Field(default_factory=dict)


class Union(Model):
    either: int | bool = 1


def fields(*, defaults: bool = True) -> dict[str, Any]:
    schema: dict[str, Any] = structural(Outer, defaults=defaults)["properties"]
    return schema


def test_a_constant_becomes_an_enumeration() -> None:
    assert fields()["word"] == {"type": "string", "enum": ["One"], "default": "One"}


def test_an_integer_or_string_has_no_type() -> None:
    assert fields()["amount"] == {"x-kubernetes-int-or-string": True, "default": 1, "maxLength": 32}


def test_what_may_be_absent_is_never_null() -> None:
    assert "anyOf" not in fields()["maybe"]
    assert "default" not in fields()["maybe"]
    assert fields()["maybe"]["properties"]["size"]["type"] == "integer"


def test_the_rules_of_a_model_and_of_its_field_hold_both() -> None:
    messages = [rule["message"] for rule in fields()["maybe"]["x-kubernetes-validations"]]
    assert messages == ["inner", "outer"]


def test_a_default_object_is_empty_for_its_fields_have_their_own() -> None:
    assert fields()["inner"]["default"] == {}
    assert fields()["inner"]["properties"]["size"]["default"] == 1


def test_an_empty_list_is_no_default() -> None:
    assert "default" not in fields()["items"]
    assert "default" not in fields()["labels"]


def test_a_status_has_no_defaults() -> None:
    assert "default" not in str(fields(defaults=False))


def test_a_description_is_one_line() -> None:
    assert fields()["inner"]["properties"]["size"]["description"] == "size of the inner."


def test_what_a_structural_schema_can_not_say_is_an_error() -> None:
    with pytest.raises(ValueError, match="anyOf"):
        structural(Union, defaults=True)

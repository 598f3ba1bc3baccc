"""The conventions of Kubernetes' own API linter, held against our CRDs as they lie in the repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CRDS = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]

BOOLEANS = {
    "suspend": "batch/v1 has it",
    "private": "the Hub's own",
    "servable": "an answer, in a status",
    "packing": "trl's own",
    "gradientCheckpointing": "trl's own",
    "useRslora": "peft's own",
    "assistantOnlyLoss": "trl's own",
    "completionOnlyLoss": "trl's own",
    "bnb4bitUseDoubleQuant": "bitsandbytes' own",
}

Schema = dict[str, Any]
every_crd = pytest.mark.parametrize("crd", CRDS, ids=lambda crd: crd["spec"]["names"]["kind"])


def version_of(crd: dict[str, Any]) -> dict[str, Any]:
    version: dict[str, Any]
    (version,) = crd["spec"]["versions"]
    return version


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield every schema within a schema, with its path; metadata is the apiserver's own."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        if (path, name) != ("", "metadata"):
            yield from nodes(field, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield from nodes(schema[word], f"{path}[]")


def broken(schema: Schema, path: str) -> Iterator[str]:
    """Yield every convention that one node breaks."""
    name = path.rpartition(".")[2]
    yield from badly_named(schema, path, name)
    yield from badly_typed(schema, name)
    yield from unbounded(schema, path)


def badly_named(schema: Schema, path: str, name: str) -> Iterator[str]:
    if "phase" in name.lower():
        yield "conditions, no phase"
    if "durat" in name.lower():
        yield "a time has its unit in its name"
    starts = (f"{name} ", f"{name}:")
    if "." in path and not name.endswith("[]") and not schema.get("description", "").startswith(starts):
        yield "a description starts with the field's name"


def badly_typed(schema: Schema, name: str) -> Iterator[str]:
    kind = schema.get("type")
    if kind == "number" or schema.get("format") in {"float", "double"}:
        yield "a decimal is a string with a pattern: no floats"
    if kind == "boolean" and name not in BOOLEANS:
        yield "an enumeration can grow, a boolean can't"
    if kind == "object" and not schema.keys() & {"properties", "additionalProperties"}:
        yield "an object names its fields"
    if kind == "array" and "x-kubernetes-list-type" not in schema:
        yield "a list needs x-kubernetes-list-type"
    if "x-kubernetes-preserve-unknown-fields" in schema:
        yield "no unknown fields"


def unbounded(schema: Schema, path: str) -> Iterator[str]:
    kind = schema.get("type")
    if (
        kind == "string"
        and not schema.keys() & {"maxLength", "enum", "format"}
        and path not in {".apiVersion", ".kind"}
    ):
        yield "a string needs maxLength"
    if schema.get("x-kubernetes-int-or-string") and "maxLength" not in schema:
        yield "an integer or string needs maxLength"
    if kind == "array" and "maxItems" not in schema:
        yield "a list needs maxItems"
    if kind == "object" and "additionalProperties" in schema and "maxProperties" not in schema:
        yield "a map needs maxProperties"


@every_crd
def test_every_field_keeps_the_conventions(crd: dict[str, Any]) -> None:
    schema = version_of(crd)["schema"]["openAPIV3Schema"]
    found = [f"{path or 'the object'}: {sentence}" for path, node in nodes(schema) for sentence in broken(node, path)]
    assert found == []


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        pytest.param({"type": "number"}, "no floats", id="a float"),
        pytest.param({"type": "boolean"}, "a boolean can't", id="a boolean of our own"),
        pytest.param({"type": "string"}, "needs maxLength", id="an unbounded string"),
        pytest.param({"x-kubernetes-int-or-string": True}, "needs maxLength", id="an unbounded integer or string"),
        pytest.param({"type": "array", "maxItems": 1}, "needs x-kubernetes-list-type", id="a list without a type"),
        pytest.param({"type": "array", "x-kubernetes-list-type": "set"}, "needs maxItems", id="an unbounded list"),
        pytest.param({"type": "object", "additionalProperties": {}}, "needs maxProperties", id="an unbounded map"),
        pytest.param({"type": "object"}, "names its fields", id="an object of anything"),
        pytest.param(
            {"description": "The thing."}, "starts with the field's name", id="a description of another field"
        ),
        pytest.param({"x-kubernetes-preserve-unknown-fields": True}, "no unknown fields", id="unknown fields"),
    ],
)
def test_the_conventions_are_noticed_where_they_are_broken(schema: Schema, sentence: str) -> None:
    assert any(sentence in found for found in broken(schema, ".spec.field"))


def test_there_is_a_crd_for_every_kind() -> None:
    assert [crd["spec"]["names"]["kind"] for crd in CRDS] == ["LoRAAdapter", "LoRAEngine", "LoRATrainingJob"]


@every_crd
def test_status_is_a_subresource_whose_conditions_are_merged_by_type(crd: dict[str, Any]) -> None:
    version = version_of(crd)
    conditions = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["conditions"]
    assert version["subresources"] == {"status": {}}
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])
    assert {"type", "status", "reason", "lastTransitionTime"} <= set(conditions["items"]["required"])


@every_crd
def test_only_a_spec_has_defaults(crd: dict[str, Any]) -> None:
    status = version_of(crd)["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert [path for path, node in nodes(status) if "default" in node] == []


@every_crd
def test_every_column_reads_a_field_that_exists(crd: dict[str, Any]) -> None:
    version = version_of(crd)
    known = {path.replace("[]", "") for path, _ in nodes(version["schema"]["openAPIV3Schema"])}
    for column in version["additionalPrinterColumns"]:
        before, _, after = column["jsonPath"].partition("[?(")
        path = before + after.partition(")]")[2]
        assert path in known | {".metadata.creationTimestamp"}, column
    titles = [column["name"] for column in version["additionalPrinterColumns"]]
    assert (titles[:2], titles[-1]) == (["Ready", "Reason"], "Age")


@every_crd
def test_names_are_short_and_grouped(crd: dict[str, Any]) -> None:
    names = crd["spec"]["names"]
    assert names["shortNames"] == [
        {"LoRAAdapter": "lad", "LoRAEngine": "leng", "LoRATrainingJob": "ltj"}[names["kind"]]
    ]
    assert names["categories"] == ["lora"]

"""From a pydantic model to a structural schema, the dialect of OpenAPI 3.0 that the apiserver takes.

References are put in place, `null` and its defaults go, and what Kubernetes doesn't know goes too. Anything that can't
be said in a structural schema is an error here rather than a surprise at install time.
"""

from __future__ import annotations

from typing import Any, Final

from generators.described import Described
from lora_operator.api.schema import INT_OR_STRING, LIST_MAP_KEYS, LIST_TYPE, VALIDATIONS, Model

Schema = dict[str, Any]

KEPT: Final = (
    "description",
    "type",
    INT_OR_STRING,
    "format",
    "enum",
    "default",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    LIST_TYPE,
    LIST_MAP_KEYS,
    "items",
    "additionalProperties",
    "properties",
    "required",
    VALIDATIONS,
)
"""Every word of a schema that we write, in the order in which it reads well."""
DROPPED: Final = {"title", "$defs", "const"}


def structural(model: type[Model], *, defaults: bool) -> Schema:
    """Return the structural schema of a model; without *defaults* for a status, which only its writer fills."""
    schema = model.model_json_schema(by_alias=True, schema_generator=Described)
    return _convert(schema, definitions=schema.get("$defs", {}), defaults=defaults)


def _convert(schema: Schema, *, definitions: Schema, defaults: bool) -> Schema:
    schema = _dereferenced(_without_null(schema), definitions)
    if "const" in schema:
        schema["enum"] = [schema["const"]]
    if schema.get(INT_OR_STRING):
        schema.pop("anyOf", None)
        schema.pop("type", None)
    if unknown := schema.keys() - set(KEPT) - DROPPED:
        raise ValueError(f"a structural schema can't say {sorted(unknown)}: {schema}")
    _settle_default(schema, wanted=defaults)
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    for word in ("items", "additionalProperties"):
        if word in schema:
            schema[word] = _convert(schema[word], definitions=definitions, defaults=defaults)
    if "properties" in schema:
        schema["properties"] = {
            name: _convert(field, definitions=definitions, defaults=defaults)
            for name, field in schema["properties"].items()
        }
    return {word: schema[word] for word in KEPT if word in schema}


def _dereferenced(schema: Schema, definitions: Schema) -> Schema:
    if "$ref" not in schema:
        return dict(schema)
    target = definitions[schema["$ref"].removeprefix("#/$defs/")]
    return _merged(target, {word: value for word, value in schema.items() if word != "$ref"})


def _without_null(schema: Schema) -> Schema:
    """Return the schema of X for `X | None`: what is not there is absent, never null."""
    variants = [variant for variant in schema.get("anyOf", ()) if variant.get("type") != "null"]
    if len(variants) != 1:
        return schema
    outer = {word: value for word, value in schema.items() if word != "anyOf"}
    return _merged(variants[0], outer)


def _merged(inner: Schema, outer: Schema) -> Schema:
    merged = inner | outer
    if VALIDATIONS in inner and VALIDATIONS in outer:
        merged[VALIDATIONS] = [*inner[VALIDATIONS], *outer[VALIDATIONS]]
    return merged


def _settle_default(schema: Schema, *, wanted: bool) -> None:
    """Keep a default that says something. For an object `{}` is enough: its fields have their own."""
    default = schema.get("default")
    if not wanted or default in (None, [], ""):
        schema.pop("default", None)
    elif isinstance(default, dict):
        schema["default"] = {}

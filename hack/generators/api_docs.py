"""Write the tables in `docs/api/`: every field, column and rule of a kind, between markers in pages that people write.

A page holds `<!-- generated: spec -->` and `<!-- end -->` around each table; what stands between them is replaced.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from generators.crds import crd
from generators.files import ROOT, settle, wants_check
from generators.structural import Schema
from lora_operator.api import KINDS, Object
from lora_operator.api.schema import INT_OR_STRING, VALIDATIONS

SECTION: Final = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def page(kind: type[Object]) -> Path:
    """Return the path of the page about a kind."""
    return ROOT / "docs" / "api" / f"{kind.__name__.lower()}.md"


def filled(text: str, kind: type[Object]) -> str:
    """Return the page's text with its tables as they are now."""
    version = crd(kind)["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    tables = {
        "spec": _fields_table(schema["properties"]["spec"], "spec"),
        "status": _fields_table(schema["properties"]["status"], "status"),
        "rules": _rules_list(schema),
        "columns": _columns_table(version["additionalPrinterColumns"]),
    }
    return SECTION.sub(lambda found: f"{found[1]}{tables[found[2]]}{found[3]}", text)


def _fields_table(schema: Schema, path: str) -> str:
    rows = [
        f"| `{name}` | {_type(field)} | {_default(field, required=required)} | {_cell(field['description'])} |\n"
        for name, field, required in _fields(schema, path)
    ]
    return "| Field | Type | Default | Meaning |\n|---|---|---|---|\n" + "".join(rows)


def _fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    """Yield every field below a schema, depth first, with its path."""
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, field, name in schema.get("required", ())
        if "items" in field:
            yield from _fields(field["items"], f"{here}[]")
        else:
            yield from _fields(field, here)


def _type(field: Schema) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get(INT_OR_STRING):
        return "integer or string"
    if "items" in field:
        return f"list of {_type(field['items'])}, {_bounds(field, 'Items')}"
    if "additionalProperties" in field:
        return f"map to {_type(field['additionalProperties'])}, {_bounds(field, 'Properties')}"
    if field["type"] == "integer" and "maximum" in field:
        return f"integer, {field['minimum']} to {field['maximum']}"
    return "time" if field.get("format") == "date-time" else str(field["type"])


def _bounds(field: Schema, unit: str) -> str:
    return f"at most {field[f'max{unit}']}"


def _default(field: Schema, *, required: bool) -> str:
    if required:
        return "*needed*"
    return f"`{json.dumps(field['default'])}`" if field.get("default") not in (None, {}) else ""


def _rules_list(schema: Schema) -> str:
    return "".join(f"- `{path}`: {rule['message']}\n" for path, rule in _rules(schema, ""))


def _rules(schema: Schema, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for rule in schema.get(VALIDATIONS, ()):
        yield path.removeprefix(".") or "metadata.name", rule
    for name, field in schema.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}")


def _columns_table(columns: list[dict[str, Any]]) -> str:
    rows = [
        f"| {column['name'].upper()}{' (wide)' if column.get('priority') else ''} | {_cell(column['description'])} |\n"
        for column in columns
    ]
    return "| Column | Meaning |\n|---|---|\n" + "".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def files() -> dict[Path, str]:
    """Return every page that is generated here in part, with its text."""
    return {page(kind): filled(page(kind).read_text(), kind) for kind in KINDS}


if __name__ == "__main__":
    sys.exit(settle(files(), check=wants_check("Write the tables in docs/api/.")))

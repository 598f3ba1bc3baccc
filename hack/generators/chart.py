"""Write the chart's `values.schema.json` and the table in its README from the comments in `values.yaml`.

A key with a comment `# -- ...` is a value; a mapping without one is a section, closed to keys that it does not have.
`# @schema {...}` adds to what the default tells of a value's type.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from generators.files import ROOT, settle, wants_check

CHART: Final = ROOT / "charts" / "lora-operator"
DIALECT: Final = "http://json-schema.org/draft-07/schema#"
TABLE: Final = re.compile(r"(<!-- generated: values -->\n).*?(<!-- end -->)", re.DOTALL)
DESCRIPTION: Final = "# -- "
SCHEMA: Final = "# @schema "
TYPES: Final = {str: "string", bool: "boolean", int: "integer", list: "array", dict: "object"}

Schema = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """One documented value: where it is, what it is by default, and what the comment says."""

    path: tuple[str, ...]
    default: Any
    description: str
    narrowed: Schema

    @property
    def name(self) -> str:
        """Return the value as `--set` names it."""
        return ".".join(self.path)

    def schema(self) -> Schema:
        """Return what the value may be."""
        return {"description": self.description, "type": TYPES[type(self.default)], **self.narrowed}


def values(text: str) -> list[Value]:
    """Return the documented values of a values.yaml; raises ValueError naming a key without a comment."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise TypeError("values.yaml holds no mapping")
    return list(_walk(root, (), text.splitlines()))


def schema(documented: list[Value]) -> Schema:
    """Return the JSON schema of all values: every section is closed, so that a typo is refused by name."""
    # Helm itself adds `global` where the chart is another one's dependency.
    root = _section({"global": {"type": "object"}})
    for value in documented:
        section = root
        for key in value.path[:-1]:
            section = section["properties"].setdefault(key, _section({}))
        section["properties"][value.path[-1]] = value.schema()
    return {"$schema": DIALECT, **root}


def table(documented: list[Value]) -> str:
    """Return the values as a table in Markdown."""
    rows = [
        f"| `{value.name}` | `{json.dumps(value.default)}` | {_cell(value.description)} |\n" for value in documented
    ]
    return "| Value | Default | Meaning |\n|---|---|---|\n" + "".join(rows)


def files() -> dict[Path, str]:
    """Return what is generated, by path."""
    documented = values((CHART / "values.yaml").read_text())
    readme = CHART / "README.md"
    rows = table(documented)
    return {
        CHART / "values.schema.json": json.dumps(schema(documented), indent=2) + "\n",
        readme: TABLE.sub(lambda found: f"{found[1]}{rows}{found[2]}", readme.read_text()),
    }


def _walk(node: yaml.MappingNode, path: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    for key, child in node.value:
        here = (*path, key.value)
        comment = _comment_above(key.start_mark.line, lines)
        description = next((line.removeprefix(DESCRIPTION) for line in comment if line.startswith(DESCRIPTION)), "")
        narrowed = next((line.removeprefix(SCHEMA) for line in comment if line.startswith(SCHEMA)), "{}")
        if description:
            default = yaml.SafeLoader("").construct_object(child, deep=True)
            yield Value(path=here, default=default, description=description, narrowed=yaml.safe_load(narrowed))
        elif isinstance(child, yaml.MappingNode) and child.value:
            yield from _walk(child, here, lines)
        else:
            raise ValueError(f"values.yaml: {'.'.join(here)} has no comment that begins with {DESCRIPTION!r}")


def _comment_above(line: int, lines: list[str]) -> list[str]:
    start = line
    while start and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return [text.strip() for text in lines[start:line]]


def _section(properties: Schema) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(settle(files(), check=wants_check("Write the chart's schema and the table in its README.")))

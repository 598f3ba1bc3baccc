"""Write the CRDs from the pydantic models: `crds/` to read and to apply, and copies for the chart.

The chart's copies carry one annotation more, by which `helm uninstall` leaves them, and with them everybody's objects.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

import yaml

from generators.files import ROOT, settle, wants_check
from generators.presentation import PRESENTATIONS
from generators.structural import Schema, structural
from lora_operator.api import KINDS, Object
from lora_operator.api.schema import VALIDATIONS
from lora_operator.labels import GROUP, VERSION

HEADER: Final = "# Generated from operator/lora_operator/api by `make generate`; edit that.\n"
KEEP: Final = {"helm.sh/resource-policy": "keep"}
CATEGORY: Final = "lora"
NAME_RULE: Final = {
    "rule": "self.metadata.name.size() <= 63",
    "message": "metadata.name must have at most 63 characters: it becomes a label",
}


def crd(kind: type[Object]) -> dict[str, Any]:
    """Return the CustomResourceDefinition of one kind."""
    name, presentation = kind.__name__, PRESENTATIONS[kind]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [column.to_crd() for column in presentation.columns],
        "selectableFields": [{"jsonPath": path} for path in presentation.selectable],
        "schema": {"openAPIV3Schema": object_schema(kind)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural()}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": kind.plural(),
                "singular": name.lower(),
                "shortNames": [presentation.short_name],
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }


def object_schema(kind: type[Object]) -> Schema:
    """Return the schema of a whole object."""
    schema = structural(kind, defaults=True)
    spec, status = schema["properties"]["spec"], structural(kind, defaults=False)["properties"]["status"]
    return {
        "description": schema["description"],
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string", "description": "apiVersion is the version of this schema."},
            "kind": {"type": "string", "description": f"kind is {kind.__name__}."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "required": ["spec"],
        VALIDATIONS: [NAME_RULE],
    }


def to_yaml(document: dict[str, Any]) -> str:
    """Return the YAML of a CRD as it lies in the repository."""
    return HEADER + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes `2e-4`, which is a string to PyYAML and a number to everybody else; repeats rather than refers."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the name is PyYAML's
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        style = "'" if re.fullmatch(r"[-+.0-9]+[eE][-+0-9]+", data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def files() -> dict[Path, str]:
    """Return every file that is generated here, with its text."""
    texts = {}
    for kind in KINDS:
        document, file = crd(kind), f"{GROUP}_{kind.plural()}.yaml"
        texts[ROOT / "crds" / file] = to_yaml(document)
        document["metadata"]["annotations"] = KEEP
        texts[ROOT / "charts" / "lora-operator" / "files" / "crds" / file] = to_yaml(document)
    return texts


if __name__ == "__main__":
    sys.exit(settle(files(), check=wants_check("Write the CRDs from the pydantic models.")))

"""What people look up has its row: settings, metrics, reasons. Held to the code, both ways."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

import lora_agent.settings
import lora_operator.settings
from lora_operator import metrics, trust
from lora_operator.adapter import Code
from lora_operator.api.lora_engine import EngineCondition
from lora_operator.protocol.door import State
from lora_operator.protocol.training import Reason
from support.injected import injection

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
OPERATIONS = DOCS / "operations.md"
REASON = re.compile(r"[A-Z][a-z][A-Za-z]+")
ENUMS = (EngineCondition, Reason, State)


def section(title: str) -> str:
    """Return what stands below a heading, up to the next one of its level."""
    level = title.index(" ")
    text = OPERATIONS.read_text().partition(f"\n{title}\n")[2]
    assert text, f"docs/operations.md has no heading {title!r}"
    return re.split(rf"\n#{{1,{level}}} ", text)[0]


def first_cells(table: str) -> set[str]:
    """Return what the first cells of a table name in backticks."""
    cells = re.findall(r"^\| ([^|]+)\|", table, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_every_setting_of_the_operator_has_its_row() -> None:
    names = {f"LORA_OPERATOR_{name.upper()}" for name in lora_operator.settings.Settings.__annotations__}
    assert first_cells(section("### The operator's settings")) == names | {trust.VARIABLE}


def test_every_setting_of_the_agent_has_its_row() -> None:
    own = {f"{lora_agent.settings.PREFIX}{name.upper()}" for name in lora_agent.settings._CONVERTERS}
    assert first_cells(section("### The agent's settings")) == own | {"HF_ENDPOINT", "HF_TOKEN"}


def test_every_metric_has_its_row() -> None:
    names = {
        f"{metric._name}_total" if isinstance(metric, Counter) else metric._name
        for metric in vars(metrics).values()
        if isinstance(metric, MetricWrapperBase)
    }
    assert len(names) > 5
    assert first_cells(section("## Metrics")) == names


def test_every_field_that_adopting_writes_has_its_row() -> None:
    content, patch = injection()
    template = patch["spec"]["template"]
    assert set(template["spec"]) == {"initContainers", "containers", "volumes", "imagePullSecrets"}
    assert set(patch["metadata"]) - {"name", "namespace"} == {"labels"}
    labels = {*patch["metadata"]["labels"], *template["metadata"]["labels"]}
    fields = {f'["{label}"]' for label in labels}
    fields |= {f"volumes[{volume['name']}]" for volume in content.volumes}
    fields |= {f"env[{entry['name']}]" for entry in content.engine_env}
    fields |= {f"volumeMounts[{mount['mountPath']}]" for mount in content.engine_mounts}
    fields |= {f"initContainers[{content.agent['name']}]", "imagePullSecrets[...]"}
    told = set(
        re.findall(
            r"((?:volumes|env|volumeMounts|initContainers|imagePullSecrets)?\[(?!<)[^\]]+\])(?!\()",
            section("## What adopting writes"),
        )
    )
    assert fields == told


def test_every_reason_has_its_row() -> None:
    told = first_cells(section("## Reasons")) | first_cells((DOCS / "adapters.md").read_text())
    assert sorted(reasons() - told) == []


def test_no_row_is_about_a_reason_that_nothing_gives() -> None:
    given = reasons() | {code.value for code in Code}
    assert sorted(first_cells(section("## Reasons")) - given) == []


@pytest.mark.parametrize(
    "known", ["EngineNotFound", "Contended", "FieldConflict", "PartlyLoaded", "NoSpace", "AdapterNameTaken"]
)
def test_reasons_are_found_wherever_they_are_given(known: str) -> None:
    assert known in reasons()


@cache
def reasons() -> frozenset[str]:
    """Return every reason that the operator and the agent give: of conditions and of Events."""
    found = {state.value for state in State} | {reason.value for reason in Reason}
    for folder in ("operator/lora_operator", "images/agent/lora_agent"):
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text())
            constants = dict(_constants(tree))
            found.update(_word(node, constants) for node in _places(tree))
    return frozenset(reason for reason in found if REASON.fullmatch(reason))


def _word(node: ast.expr, constants: dict[str, str]) -> str:
    """Return what a reason's expression comes to; empty where it is some other place's word."""
    if isinstance(node, ast.Attribute):
        return next((str(enum[node.attr]) for enum in ENUMS if enum.__name__ == getattr(node.value, "id", "")), "")
    if isinstance(node, ast.Name):
        return constants.get(node.id, "")
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _places(tree: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions that stand where a reason is given."""
    position = dict.fromkeys(("Blocked", "Waiting", "PassError", "Trouble", "Refusal"), 0)
    position |= dict.fromkeys(("true", "false", "unknown", "Fact"), 1) | {"say": 2}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield from node.args[position[name] : position[name] + 1] if name in position else ()
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "reason")
        elif isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "reason" for target in node.targets):
            yield node.value
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
            yield node.value.elts[0]


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            value = node.value.value if isinstance(node.value, ast.Constant) else ""
            yield node.target.id, str(value)

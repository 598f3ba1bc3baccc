"""Every example, at a real apiserver: it is taken as it is, and the models read it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from lora_operator.api import KINDS
from lora_operator.labels import API_VERSION
from support.apiserver import ApiServer
from support.samples import varied

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMESPACE = "crd-tests"
PAGES = sorted((EXAMPLES.parent / "docs" / "api").glob("*.md"))
YAML_BLOCK = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
FILES = sorted(EXAMPLES.glob("[0-9]*/*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_an_example_is_taken_as_it_is(api: ApiServer, file: Path) -> None:
    answer = api.plane.run_kubectl(
        *("apply", "--namespace", NAMESPACE, "--dry-run=server", "--output=json", "--filename", str(file))
    )
    taken = json.loads(answer)
    ours = [obj for obj in taken.get("items", [taken]) if obj["apiVersion"] == API_VERSION]
    for obj in ours:
        kind = next(kind for kind in KINDS if kind.__name__ == obj["kind"])
        assert kind.model_validate(obj).metadata.namespace == NAMESPACE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_objects_in_a_page_are_taken_as_they_are(api: ApiServer, page: Path) -> None:
    objects = [
        document
        for block in YAML_BLOCK.findall(page.read_text())
        for document in yaml.safe_load_all(block)
        if document.get("apiVersion") == API_VERSION
    ]
    assert objects
    for obj in objects:
        api.create(varied(obj, {"metadata.namespace": NAMESPACE}), dry_run=True)


def test_every_folder_is_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    folders = sorted({file.parent.name for file in FILES})
    assert folders
    assert [folder for folder in folders if f"`{folder}`" not in listed] == []

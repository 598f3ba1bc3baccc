"""Binaries come from where people say, else from the cache, and the cache's key follows the pins."""

import re
from pathlib import Path

import pytest

from localcluster import gotool, parts
from localcluster.recipes import ADDONS, CONTROL_PLANE, MODULES, NODE, RECIPES, recipe_of
from machine import debian


@pytest.mark.parametrize("module", sorted(folder.name for folder in MODULES.iterdir()))
def test_a_module_lists_exactly_the_tools_that_its_recipes_build(module: str) -> None:
    text = (MODULES / module / "go.mod").read_text()
    block = re.search(r"^tool \(\n(.*?)^\)", text, flags=re.MULTILINE | re.DOTALL)
    listed = block[1].split() if block else re.findall(r"^tool (\S+)$", text, flags=re.MULTILINE)
    built = {package for recipe in RECIPES if recipe.module == module for package in recipe.packages.values()}
    assert set(listed) == built


def test_every_part_has_a_recipe() -> None:
    for binary in (*CONTROL_PLANE, *NODE, *ADDONS):
        assert binary in recipe_of(binary).packages


def test_an_assets_folder_wins_over_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etcd").touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert parts.ensure(["etcd"]) == {"etcd": tmp_path / "etcd"}


def test_what_the_cache_holds_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = recipe_of("coredns")
    cached = tmp_path / "lora-operator" / f"coredns-{recipe.key()}" / "coredns"
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert parts.ensure(["coredns"]) == {"coredns": cached}


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        pytest.param("v1.37.0", True, id="the same minor is taken"),
        pytest.param("v1.36.9", True, id="a minor older is taken"),
        pytest.param("v1.32.4-dispatcher", False, id="five minors older is not"),
        pytest.param("v1.39.0", False, id="two minors newer is not"),
        pytest.param("nonsense", False, id="what tells no version is not"),
    ],
)
def test_kubectl_from_path_is_taken_within_a_minor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, *, taken: bool
) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"""#!/bin/sh\necho '{{"clientVersion": {{"gitVersion": "{version}"}}}}'\n""")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    assert (parts._found_elsewhere("kubectl") == kubectl) is taken


@pytest.mark.parametrize(
    ("package", "name"),
    [("go.etcd.io/etcd/server/v3", "server"), ("helm.sh/helm/v4/cmd/helm", "helm")],
)
def test_go_names_a_command_after_its_path_without_the_major_version(package: str, name: str) -> None:
    assert gotool._output_name(package) == name


def test_missing_packages_are_named_where_they_cannot_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(debian.MissingPackagesError, match="no-such-package-of-debian"):
        debian.ensure("no-such-package-of-debian")

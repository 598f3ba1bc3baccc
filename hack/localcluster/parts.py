"""The binaries of a real Kubernetes, built once from upstream's Go modules and shared by all clones.

Everything else asks here for a path by name. A binary comes from KUBEBUILDER_ASSETS, from PATH (kubectl and
helm, where new enough) or from the cache, which is filled tool by tool: an interrupted build loses nothing.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from localcluster import gotool
from localcluster.recipes import KUBERNETES_VERSION, RECIPES, Recipe, recipe_of
from machine import cache, debian, lock

KUBECTL_SKEW = 1  # minors: upstream's own promise
OLDEST_HELM = 4
KUBERNETES = next(recipe for recipe in RECIPES if recipe.name == "kubernetes")


def ensure(binaries: Iterable[str]) -> dict[str, Path]:
    """Return a path for each binary, building what is found nowhere."""
    found = {binary: _found_elsewhere(binary) or _cached(binary) for binary in binaries}
    for recipe in RECIPES:
        missing = [binary for binary, path in found.items() if binary in recipe.packages and not path.exists()]
        if missing:
            _build(recipe, missing)
    return found


def pause() -> Path:
    """Return upstream's pause program, linked statically: what holds a pod's namespaces open."""
    target = cache.root() / f"pause-{KUBERNETES_VERSION}" / "pause"
    with _locked(target.parent):
        if not target.exists():
            debian.ensure("gcc", "libc6-dev")
            go = _go()
            source = gotool.module_folder(go, KUBERNETES, "k8s.io/kubernetes") / "build/pause/linux/pause.c"
            partial = target.with_suffix(".partial")
            version = f"-DVERSION={KUBERNETES_VERSION}"
            subprocess.run(["gcc", "-Os", "-static", version, "-o", str(partial), str(source)], check=True)
            partial.rename(target)
    return target


def _go() -> Path:
    with _locked(cache.root() / "go"):
        return gotool.find_go(cache.root() / "go")


def _cached(binary: str) -> Path:
    recipe = recipe_of(binary)
    return cache.root() / f"{recipe.name}-{recipe.key()}" / binary


def _build(recipe: Recipe, binaries: list[str]) -> None:
    folder = cache.root() / f"{recipe.name}-{recipe.key()}"
    with _locked(folder):
        # Another clone may have built them while we waited for the lock.
        missing = [binary for binary in binaries if not (folder / binary).exists()]
        if not missing:
            return
        debian.ensure(*recipe.debian)
        go = _go()
        for abandoned in folder.glob(".partial-*"):
            shutil.rmtree(abandoned)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial:
            gotool.build(recipe, binaries=missing, go=go, into=Path(partial))
            for binary in missing:
                (Path(partial) / binary).rename(folder / binary)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with lock.held(folder / ".lock"):
        yield


def _found_elsewhere(binary: str) -> Path | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (Path(assets) / binary).exists():
        return Path(assets).resolve() / binary
    new_enough = _NEW_ENOUGH.get(binary)
    on_path = shutil.which(binary) if new_enough else None
    return Path(on_path) if on_path and new_enough and new_enough(on_path) else None


@functools.cache
def _kubectl_is_new_enough(path: str) -> bool:
    told = subprocess.run([path, "version", "--client", "-o", "json"], capture_output=True, text=True, check=False)
    try:
        version: Mapping[str, str] = json.loads(told.stdout)["clientVersion"]
        return abs(_minor(version["gitVersion"]) - _minor(KUBERNETES_VERSION)) <= KUBECTL_SKEW
    except (ValueError, KeyError):
        return False


@functools.cache
def _helm_is_new_enough(path: str) -> bool:
    told = subprocess.run([path, "version", "--short"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"v(\d+)\.", told)
    return match is not None and int(match[1]) >= OLDEST_HELM


def _minor(version: str) -> int:
    match = re.match(r"v1\.(\d+)", version)
    if match is None:
        raise ValueError(f"{version!r} is no Kubernetes version")
    return int(match[1])


_NEW_ENOUGH = {"kubectl": _kubectl_is_new_enough, "helm": _helm_is_new_enough}

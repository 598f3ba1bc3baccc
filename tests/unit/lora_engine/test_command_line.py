"""What is read of vLLM's command line, in the forms in which people write it."""

from __future__ import annotations

from typing import Any

import pytest

from lora_operator.engines import vllm
from support.objects import make_container

FLAGS = ["--enable-lora", "--max-lora-rank", "32"]
SCRIPT = "set -e\nexport A=1 && exec vllm serve acme/base --enable-lora \\\n  --max-lora-rank=32 2>&1 | tee /tmp/log"
MODULE = ["python3", "-m", "vllm.entrypoints.openai.api_server"]


def container(command: list[str] | None, args: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """Return a container that runs this."""
    made = make_container(args=args or [], **more)
    made["command"] = command
    if command is None:
        del made["command"]
    return made


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(container(["vllm", "serve", "acme/base", *FLAGS]), id="vllm serve"),
        pytest.param(container(["/opt/env/bin/vllm", "serve"], ["acme/base", *FLAGS]), id="a path, words in args"),
        pytest.param(container(MODULE, ["--model", "acme/base", *FLAGS]), id="the module"),
        pytest.param(
            container(MODULE, ["--model=acme/base", "--enable-lora", "--max-lora-rank=32"]), id="equals signs"
        ),
        pytest.param(container(MODULE, ["--model=acme/base", "--enable_lora", "--max_lora_rank=32"]), id="underscores"),
        pytest.param(
            container(MODULE, ["--model=acme/base", "--max-lora-rank", "8", *FLAGS]), id="the last one counts"
        ),
        pytest.param(container(["sh", "-c", f"vllm serve acme/base {' '.join(FLAGS)}"]), id="a shell"),
        pytest.param(container(["/bin/bash", "-ec"], [SCRIPT]), id="a script of several lines"),
        pytest.param(container(None, ["acme/base", *FLAGS], image="vllm/vllm-openai:v1"), id="the image's entrypoint"),
        pytest.param(
            container(None, ["--model", "acme/base", *FLAGS], image="r:5000/vllm@sha256:0"), id="an older image"
        ),
        pytest.param(
            container(
                ["vllm", "serve", "$(MODEL)", *FLAGS],
                env=[{"name": "ORG", "value": "acme"}, {"name": "MODEL", "value": "$(ORG)/base"}],
            ),
            id="a variable of the pod template",
        ),
        pytest.param(
            container(
                ["sh", "-c", 'vllm serve "${MODEL}" $MORE --tensor-parallel-size $(nproc)'],
                env=[{"name": "MODEL", "value": "acme/base"}, {"name": "MORE", "value": " ".join(FLAGS)}],
            ),
            id="variables of the shell, and one that does not matter",
        ),
    ],
)
def test_the_command_line_is_read_however_it_is_written(given: dict[str, Any]) -> None:
    command = vllm.read_command(given)

    assert isinstance(command, vllm.Command), command
    assert command.model == "acme/base"
    assert command.enable_lora
    assert command.flags.max_lora_rank == 32
    assert command.port == 8000


@pytest.mark.parametrize(
    ("given", "why"),
    [
        pytest.param(container(["bash", "/start.sh"]), "script file /start.sh", id="a script file"),
        pytest.param(container(["vllm", "serve", "$(MODEL)"]), "$(MODEL) depends on", id="a variable from elsewhere"),
        pytest.param(container(["sh", "-c", "vllm serve a/b $ARGS"]), "$ARGS depends on", id="flags from elsewhere"),
        pytest.param(
            container(["sh", "-c", "vllm serve a/b --max-lora-rank $RANK"]),
            "--max-lora-rank depends",
            id="a rank from elsewhere",
        ),
        pytest.param(container(["vllm", "serve", "--config", "/c.yaml"]), "--config", id="a file of flags"),
        pytest.param(container(["vllm", "serve", "a/b", "--max-lora-rank", "24"]), "24", id="a rank that vLLM refuses"),
        pytest.param(container(["vllm", "serve", "a/b", "--port", "http"]), "--port http is no number", id="no number"),
        pytest.param(container(["sh", "-c", "vllm serve a/b & vllm serve c/d"]), "more than once", id="two engines"),
        pytest.param(container(["sh", "-c", "vllm serve 'a/b"]), "can't be parsed", id="an open quote"),
        pytest.param(container(["python", "serve.py"]), "no `vllm serve`", id="something else"),
        pytest.param(container(["vllm", "serve", "a/b", "--max-loras", "0"]), "out of range", id="no slots"),
    ],
)
def test_what_cannot_be_read_says_why(given: dict[str, Any], why: str) -> None:
    command = vllm.read_command(given)

    assert isinstance(command, str), command
    assert why in command


def test_defaults_are_those_of_vllm() -> None:
    command = vllm.read_command(container(["vllm", "serve", "a/b", "--max-loras", "4"]))

    assert isinstance(command, vllm.Command)
    assert not command.enable_lora
    assert (command.flags.max_lora_rank, command.flags.max_loras, command.flags.max_cpu_loras) == (16, 4, 4)
    assert (command.api_server_count, command.uds, command.tls, command.several_pods) == (1, False, False, None)


@pytest.mark.parametrize(
    ("words", "read"),
    [
        pytest.param([], ("auto", "auto", None), id="vLLM's own"),
        pytest.param(["--dtype", "half", "--lora-dtype=float16"], ("half", "float16", None), id="dtypes"),
        pytest.param(
            ["--lora-target-modules", "q_proj", "v_proj", "--port", "1"],
            ("auto", "auto", ("q_proj", "v_proj")),
            id="modules up to the next flag",
        ),
        pytest.param(["--lora_target_modules=o_proj", "x"], ("auto", "auto", ("o_proj",)), id="one module"),
        pytest.param(["--dtype", "$DTYPE", "--lora-target-modules", "$A", "b"], (None, "auto", None), id="unknown"),
        pytest.param(["--dtype", "int8"], (None, "auto", None), id="none that vLLM has"),
    ],
)
def test_what_adapters_are_judged_by_is_read_and_never_keeps_an_engine_out(
    words: list[str], read: tuple[str | None, str | None, tuple[str, ...] | None]
) -> None:
    command = vllm.read_command(container(["vllm", "serve", "a/b", *words]))

    assert isinstance(command, vllm.Command), command
    assert (command.flags.dtype, command.flags.lora_dtype, command.flags.lora_target_modules) == read


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        pytest.param(["-dp", "2"], 2, id="data parallel raises it"),
        pytest.param(["--data-parallel-size", "2", "--api-server-count", "1"], 1, id="unless it is set"),
        pytest.param(["-asc=3"], 3, id="set"),
    ],
)
def test_data_parallel_engines_have_as_many_api_servers(flags: list[str], count: int) -> None:
    command = vllm.read_command(container(["vllm", "serve", "a/b", *flags]))

    assert isinstance(command, vllm.Command)
    assert command.api_server_count == count


@pytest.mark.parametrize(
    ("words", "enabled"),
    [
        pytest.param([], False, id="absent"),
        pytest.param(["--enable-lora"], True, id="given"),
        pytest.param(["--enable-lora=false"], False, id="given as false"),
        pytest.param(["--enable-lora", "--no-enable-lora"], False, id="taken back"),
        pytest.param(["--enable-lora", "--port", "9"], True, id="before another flag"),
    ],
)
def test_lora_is_on_only_where_it_is_asked_for(words: list[str], enabled: bool) -> None:
    command = vllm.read_command(container(["vllm", "serve", "a/b", *words]))

    assert isinstance(command, vllm.Command)
    assert command.enable_lora is enabled


@pytest.mark.parametrize(
    ("given", "named"),
    [
        pytest.param(container(["vllm", "serve"]), True, id="command"),
        pytest.param(container(["sh", "-c", "exec vllm serve x"]), True, id="script"),
        pytest.param(container(None, ["--model", "x"], image="vllm/vllm-openai:v1"), True, id="image"),
        pytest.param(
            container(["router", "--backend=vllm-llama:80"], image="vllm.example.org/router"), False, id="a router"
        ),
    ],
)
def test_an_engine_is_told_by_what_it_runs(given: dict[str, Any], named: bool) -> None:
    assert vllm.names_engine(given) is named


@pytest.mark.parametrize(
    ("given", "device"),
    [
        pytest.param(container(["vllm"], image="vllm/vllm-openai:v1"), "cuda", id="as a rule"),
        pytest.param(container(["vllm"], image="example.org/vllm-cpu:1"), "cpu", id="by image"),
        pytest.param(
            container(["vllm"], env=[{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"}]), "cpu", id="by variable"
        ),
        pytest.param(
            container(["vllm"], image="r/vllm-cpu-offload:1", resources={"limits": {"nvidia.com/gpu": 1}}),
            "cuda",
            id="by what it asks for, whatever its name",
        ),
    ],
)
def test_the_device_is_told_by_resources_image_and_environment(given: dict[str, Any], device: str) -> None:
    assert vllm.device(given) == device

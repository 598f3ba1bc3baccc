"""`lora-inspect` on directories: its exit status, what it prints in each format, and what it refuses to guess."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lora_inspect import __main__ as program
from lora_inspect import progress, reading
from lora_inspect.question import parse_base_name, parse_source
from lora_inspect.report import Report
from lora_operator.adapter import open_directory
from lora_operator.clients.hub_reference import HubRepo
from support.adapters import TINY_LLAMA, AdapterFiles, make_adapter, other_base


@pytest.fixture
def base(tmp_path: Path) -> str:
    path = tmp_path / "base" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(TINY_LLAMA.config()))
    return str(path)


def answer(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, Report]:
    status = program.main([*map(str, words), "--format", "json"])
    return status, Report.model_validate_json(capsys.readouterr().out)


def codes(report: Report, severity: str = "error") -> set[str]:
    return {finding.code for finding in report.findings if finding.severity == severity}


def test_a_good_adapter_is_0_and_the_report_has_its_figures(
    tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = make_adapter()
    status, report = answer(capsys, files.write(tmp_path / "a"), "--base", base, "--max-lora-rank", "16")
    assert (status, report.servable, report.findings) == (0, True, ())
    assert (report.version, report.level, report.shapes_checked) == (1, "full", True)
    assert report.digest == files.digest
    assert report.adapter.rank == 8
    assert report.adapter.target_modules == ("q_proj", "v_proj")
    assert report.bytes_read == sum(len(data) for data in files.files.values())


def test_a_bad_adapter_is_1_with_every_reason(tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_adapter(rank=32, base=other_base()).spoilt(nan=True).write(tmp_path / "a")
    status, report = answer(capsys, folder, "--base", base, "--max-lora-rank", "16")
    assert (status, report.servable) == (1, False)
    assert codes(report) == {"RankTooHigh", "ShapeMismatch", "NotFinite"}


def test_what_needs_no_new_training_is_told(tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_adapter(config={"use_dora": True}).write(tmp_path / "a")
    status, report = answer(capsys, folder, "--base", base)
    assert (status, report.servable_once) == (1, "merged")
    assert [finding.engine_versions[:4] for finding in report.findings if finding.severity == "error"] == ["vLLM"]
    program.main([str(folder), "--base", base])
    assert "servable once merged" in capsys.readouterr().out


def test_header_only_looks_at_no_value_and_says_so(
    tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = make_adapter().spoilt(nan=True)
    status, report = answer(capsys, files.write(tmp_path / "a"), "--base", base, "--header-only")
    assert (status, report.level) == (0, "header")
    assert report.bytes_read < sum(len(data) for data in files.files.values()) / 4
    assert program.main([str(tmp_path / "a"), "--base", base, "--header-only"]) == 0
    assert "values were not checked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "status", "severity"),
    [
        pytest.param([], 1, "error", id="refused unless told otherwise"),
        pytest.param(["--unknown-shapes", "refuse"], 1, "error", id="refused"),
        pytest.param(["--unknown-shapes", "allow"], 0, "warning", id="allowed"),
    ],
)
def test_shapes_that_cannot_be_compared_are(
    options: list[str], status: int, severity: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, report = answer(capsys, make_adapter().write(tmp_path / "a"), *options)
    assert found == status
    assert "BaseNotReadable" in codes(report, severity)
    assert not report.shapes_checked


def test_allowing_unknown_shapes_allows_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_adapter(config={"use_dora": True}).write(tmp_path / "a")
    status, report = answer(capsys, folder, "--unknown-shapes", "allow")
    assert (status, codes(report)) == (1, {"DoRANotSupported"})


@pytest.mark.parametrize(
    ("named", "outcome"),
    [
        pytest.param("acme/other", (1, "error"), id="another base is refused though the shapes fit"),
        pytest.param("/home/me/llama", (0, "warning"), id="a path of the training machine is a warning"),
        pytest.param("acme/llama", (0, None), id="the same name is right"),
        pytest.param("gpt2", (1, "error"), id="a model without an owner is another base too"),
    ],
)
def test_the_base_s_name(
    named: str, outcome: tuple[int, str | None], tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, severity = outcome
    folder = make_adapter(config={"base_model_name_or_path": named}).write(tmp_path / "a")
    found, report = answer(capsys, folder, "--base", base, "--base-name", "acme/llama")
    assert found == status
    assert ("BaseMismatch" in codes(report, severity or "warning")) is (severity is not None)


@pytest.mark.parametrize(
    ("options", "case"),
    [
        pytest.param(["--max-lora-rank", "4"], ("RankTooHigh", make_adapter), id="rank"),
        pytest.param(
            ["--device", "cpu"], ("LmHeadNotSupported", lambda: make_adapter(targets=["lm_head"])), id="device"
        ),
        pytest.param(
            ["--dtype", "float16"],
            ("ValueTooLarge", lambda: make_adapter(targets=["q_proj"]).spoilt(value=1e5)),
            id="dtype",
        ),
    ],
)
def test_what_the_engine_allows_comes_from_the_options(
    options: list[str],
    case: tuple[str, Callable[[], AdapterFiles]],
    tmp_path: Path,
    base: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, make = case
    status, report = answer(capsys, make().write(tmp_path / "a"), "--base", base, *options)
    assert status == 1
    assert code in codes(report)


def test_a_newer_engine_is_a_warning_never_silence(
    tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_adapter().write(tmp_path / "a")
    status, report = answer(capsys, folder, "--base", base, "--engine-version", "0.99.0")
    assert status == 0
    assert "UnknownEngine" in codes(report, "warning")


@pytest.mark.parametrize("where", ["headers", "config"])
def test_a_base_is_a_directory_or_its_config(where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY_LLAMA.config()))
    if where == "headers":
        (folder / "config.json").write_text(json.dumps({"model_type": "mystery"}))
        (folder / "model.safetensors").write_bytes(base_weights())
        (folder / "consolidated.safetensors").write_bytes(b"another layout")
    good, bad = make_adapter().write(tmp_path / "a"), make_adapter(base=other_base()).write(tmp_path / "b")
    assert answer(capsys, good, "--base", folder)[0] == 0
    status, report = answer(capsys, bad, "--base", folder)
    assert (status, codes(report)) == (1, {"ShapeMismatch"})


def base_weights() -> bytes:
    entries, position = {}, 0
    for name, shape in TINY_LLAMA.weights().items():
        size = 2
        for length in shape:
            size *= length
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + b"\0" * position


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([], id="no adapter"),
        pytest.param(["{good}", "--no-such-option"], id="an unknown option"),
        pytest.param(["{good}", "--max-lora-rank", "0"], id="a rank that is none"),
        pytest.param(["{good}", "--dtype", "int4"], id="a dtype that vLLM does not take"),
        pytest.param(["{good}", "--format", "yaml"], id="a format that is not there"),
        pytest.param(["{tmp}/nothing"], id="no such path"),
        pytest.param(["{good}/adapter_config.json"], id="a file"),
        pytest.param(["{tmp}/pipe"], id="a pipe"),
        pytest.param(["hf://"], id="no repository"),
        pytest.param(["hf://a/b/c"], id="no name of a repository"),
        pytest.param(["hf://acme/../etc"], id="a name that climbs"),
        pytest.param(["{good}", "--base", "{tmp}/nothing"], id="no such base"),
        pytest.param(["{good}", "--base", "{good}/adapter_model.safetensors"], id="a base that is no config"),
        pytest.param(["{good}", "--base", "{tmp}"], id="a base without a config"),
        pytest.param(["{good}", "--base", "{tmp}/pipe"], id="a base that is a pipe"),
        pytest.param(["{good}", "--base", "{tmp}/piped"], id="a base whose config is a pipe"),
        pytest.param(["{good}", "--base", "{tmp}/weightless"], id="a base whose weights are a pipe"),
        pytest.param(["{good}", "--base", "{tmp}/long.json"], id="a base's config of 5 MB"),
        pytest.param(["{good}", "--base", "{tmp}/deep.json"], id="a base's config that is nested too deeply"),
        pytest.param(["{good}", "--base-name", "/models/llama"], id="a base's name that is a path"),
        pytest.param(["{good}", "--base-name", "a/b/c"], id="a base's name that is none on a Hub"),
    ],
)
def test_what_cannot_be_told_is_2(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = make_adapter().write(tmp_path / "good")
    for folder, name in (("", "pipe"), ("piped", "config.json"), ("weightless", "model.safetensors")):
        (tmp_path / folder).mkdir(exist_ok=True)
        os.mkfifo(tmp_path / folder / name)
    (tmp_path / "weightless" / "config.json").write_text(json.dumps(TINY_LLAMA.config()))
    (tmp_path / "long.json").write_bytes(b"{" + b" " * (5 << 20) + b"}")
    (tmp_path / "deep.json").write_bytes(b"[" * 100_000)
    assert program.main([word.format(good=good, tmp=tmp_path) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip()


def test_a_directory_that_is_no_base_says_what_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, empty = make_adapter().write(tmp_path / "good"), tmp_path / "empty"
    empty.mkdir()
    assert program.main([str(good), "--base", str(empty)]) == 2
    told = capsys.readouterr().err
    assert f"--base {empty}: no config.json in it" in told
    assert "hf://org/name" in told


def test_no_token_is_read_where_no_hub_is_asked(tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_token() -> str:
        raise AssertionError("the token was read")

    monkeypatch.setattr(reading, "get_token", no_token)
    assert program.main([str(make_adapter().write(tmp_path / "a")), "--base", base]) == 0


@pytest.mark.parametrize("name", ["gpt2", "acme/llama", "meta-llama/Llama-3.1-8B-Instruct", "_x/y"])
def test_what_may_be_a_name_on_a_hub_is_taken_for_one(name: str) -> None:
    assert parse_base_name(name) == name


def test_a_crash_is_2_for_it_is_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(program, "judge", crash)
    assert program.main([str(make_adapter().write(tmp_path / "a"))]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_installed_command_tells_its_verdict_by_its_exit_status(tmp_path: Path, base: str) -> None:
    command = Path(sys.executable).parent / "lora-inspect"
    good, bad = make_adapter().write(tmp_path / "a"), make_adapter().truncated().write(tmp_path / "b")
    for path, status in ((good, 0), (bad, 1), (tmp_path / "c", 2)):
        assert subprocess.run([command, path, "--base", base], capture_output=True, check=False).returncode == status


def test_junit_has_a_failure_for_each_error_and_passes_warnings(
    tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_adapter(config={"use_dora": True, "base_model_name_or_path": "/home/me/x"}).write(tmp_path / "a")
    status = program.main([str(folder), "--base", base, "--base-name", "acme/llama", "--format", "junit"])
    root = ET.fromstring(capsys.readouterr().out)  # noqa: S314 - our own
    assert status == 1
    assert root.attrib == {"tests": "3", "failures": "1", "errors": "0"}
    assert [failure.get("type") for failure in root.iter("failure")] == ["DoRANotSupported"]
    assert len(list(root.iter("system-out"))) == 2


def test_junit_tells_a_question_without_an_answer_from_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([str(tmp_path / "nothing"), "--format", "junit"]) == 2
    root = ET.fromstring(capsys.readouterr().out)  # noqa: S314 - our own
    assert root.attrib == {"tests": "1", "failures": "0", "errors": "1"}
    assert len(list(root.iter("error"))) == 1


def test_the_screen_says_the_verdict_then_why_then_what_to_do(
    tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_adapter(rank=32, base=other_base()).write(tmp_path / "a")
    program.main([str(folder), "--base", base, "--max-lora-rank", "16"])
    text = capsys.readouterr().out
    places = [text.index(word) for word in ("NOT SERVABLE", "Why", "RankTooHigh", "What to do", "--max-lora-rank 32")]
    assert places == sorted(places)
    assert "7 more like this" in text
    assert "\x1b" not in text, "colours belong on a terminal"


def test_hostile_names_reach_no_terminal_and_break_no_xml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_adapter(config={"target_modules": ["\x1b[2Jgone", "a\u202eb"], "task_type": "\x07"}).write(
        tmp_path / "a"
    )
    (folder / "adapter_model.safetensors").unlink()
    program.main([str(folder)])
    assert not any(sign in capsys.readouterr().out for sign in ("\x1b", "\u202e", "\x07"))
    program.main([str(folder), "--format", "junit"])
    ET.fromstring(capsys.readouterr().out)  # noqa: S314 - our own


@pytest.mark.parametrize(
    ("text", "source"),
    [
        pytest.param("hf://acme/bot", HubRepo("acme/bot"), id="a repository"),
        pytest.param("hf://acme/bot@v1.2", HubRepo("acme/bot", "v1.2"), id="at a tag"),
        pytest.param("hf://acme/bot@refs/pr/1", HubRepo("acme/bot", "refs/pr/1"), id="at a reference"),
        pytest.param("hf://gpt2", HubRepo("gpt2"), id="a model without an owner"),
        pytest.param("./hf", Path("hf"), id="a path"),
    ],
)
def test_a_source_is_a_path_or_a_repository(text: str, source: object) -> None:
    assert parse_source(text) == source
    assert isinstance(source, Path) or str(source) == text


def test_a_long_read_shows_how_far_it_is_and_a_short_one_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.bar(1 << 20) as bar:
        assert bar is None
    with progress.bar(1 << 30) as bar:
        assert bar is not None
        bar(1 << 20)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with progress.bar(1 << 30) as bar:
        assert bar is None


def test_progress_hears_of_the_weights(tmp_path: Path) -> None:
    files = make_adapter()
    heard: list[int] = []
    read = open_directory(files.write(tmp_path / "a"), progress=heard.append)
    assert sum(heard) == sum(
        tensor.end - tensor.begin for tensor in read.headers["adapter_model.safetensors"].tensors.values()
    )


def test_the_shapes_of_a_wider_base_are_seen_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(replace(TINY_LLAMA, hidden=256).config()))
    status, report = answer(capsys, make_adapter().write(tmp_path / "a"), "--base", config)
    assert (status, codes(report)) == (1, {"ShapeMismatch"})

"""The command line: the spec by position or by --spec, and the ways that train nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lora_operator.protocol.training import SPEC_PATH, ExitCode, Reason, read_result
from lora_trainer import command as program
from lora_trainer.looking import Look
from lora_trainer.preemption import Preemptions


@pytest.mark.parametrize(
    ("arguments", "spec"),
    [(["a.yaml"], "a.yaml"), (["--spec", "a.yaml"], "a.yaml"), ([], SPEC_PATH), (["a.yaml", "--check"], "a.yaml")],
)
def test_the_spec_is_named_by_position_or_by_option(arguments: list[str], spec: str) -> None:
    assert program._options(arguments).spec == Path(spec)


@pytest.mark.parametrize("look", list(Look))
def test_what_is_only_looked_at_is_one_of_three(look: Look) -> None:
    assert program._options(["a.yaml", f"--{look}"]).look is look
    assert program._options(["a.yaml"]).look is None


def test_two_ways_of_looking_at_once_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program._options(["a.yaml", "--check", "--dry-run"])
    assert "not allowed with" in capsys.readouterr().err


def test_the_check_of_a_bad_spec_ends_like_its_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yaml").write_text("baseModel: {name: acme/tiny}\nmethod: PPO\n")
    arguments = [str(tmp_path / "spec.yaml"), "--check", "--termination-message", str(tmp_path / "none")]
    code = program.main(arguments, Preemptions())
    found = read_result(capsys.readouterr().out.splitlines()[-1])
    assert found is not None
    assert (code, found.reason) == (ExitCode.CONFIG_INVALID, Reason.CONFIG_INVALID)
    assert found.message.startswith("dataset: this field is needed; method: Input should be 'SFT' or 'DPO'")


def test_every_default_is_printed_under_its_field(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--print-defaults"], Preemptions()) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["method"], shown["lora"]["r"], shown["training"]["optim"]) == ("SFT", 16, "AdamwTorchFused")
    assert shown["quantization"] == {
        "bnb4bitQuantType": "NF4",
        "bnb4bitUseDoubleQuant": False,
        "bnb4bitComputeDtype": "Auto",
    }

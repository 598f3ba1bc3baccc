"""The pins of all programs agree with one another and with pyproject.toml."""

import tomllib

import pytest

from imagebuild import constraints, engine, requirements

FILES = [target.name for target in constraints.TARGETS]


def pins(name: str) -> dict[str, str]:
    return requirements.read(engine.REPOSITORY / f"constraints/{name}.txt")


@pytest.mark.parametrize("name", FILES)
def test_every_pin_has_a_hash(name: str) -> None:
    blocks = pins(name)
    assert blocks
    assert [package for package, block in blocks.items() if "--hash=sha256:" not in block] == []


def test_huggingface_hub_has_one_version_everywhere() -> None:
    versions = {
        name: requirements.version(pins(name), "huggingface-hub") for name in FILES if "huggingface-hub" in pins(name)
    }
    assert {"dev", "operator", "agent", "merger", "cli", "engine", "trainer"} <= versions.keys()
    assert len(set(versions.values())) == 1, versions


def test_what_is_tested_with_the_heavy_environment_is_what_the_trainer_ships() -> None:
    tested, shipped = pins("engine"), pins("trainer")
    common = tested.keys() & shipped.keys()
    assert {"torch", "transformers", "peft", "trl", "datasets", "accelerate", "bitsandbytes"} <= common
    assert [name for name in common if requirements.version(tested, name) != requirements.version(shipped, name)] == []


def test_operator_agent_and_merger_need_no_torch() -> None:
    assert "torch" not in pins("operator").keys() | pins("agent").keys() | pins("merger").keys()


def test_the_wheel_is_built_with_what_pyproject_asks_for() -> None:
    project = tomllib.loads((engine.REPOSITORY / "pyproject.toml").read_text())
    listed = (engine.REPOSITORY / "constraints/build.in").read_text().splitlines()
    assert [line for line in listed if not line.startswith("#")] == project["build-system"]["requires"]


def test_an_upgrade_is_only_made_when_asked_for() -> None:
    target = constraints.TARGETS[0]
    assert "--upgrade" not in constraints.command(target, upgrade=False)
    assert "--upgrade" in constraints.command(target, upgrade=True)

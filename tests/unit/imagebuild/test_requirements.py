"""Requirement files are read block by block, and torch's CUDA libraries can be left out."""

from pathlib import Path

import pytest

from imagebuild import requirements

TEXT = """\
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via torch
nvidia-cublas==13.1.1.3 ; sys_platform == 'linux' \\
    --hash=sha256:bb
torch==2.13.0 \\
    --hash=sha256:cc
triton==3.7.1 \\
    --hash=sha256:dd
"""


@pytest.fixture
def pins(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "x.txt").write_text(TEXT)
    return requirements.read(tmp_path / "x.txt")


def test_a_block_holds_its_marker_and_all_its_hashes(pins: dict[str, str]) -> None:
    assert pins["numpy"].count("--hash") == 2
    assert "python_full_version" in pins["numpy"]
    assert requirements.version(pins, "numpy") == "2.4.6"


def test_without_cuda_leaves_out_torch_and_what_only_its_cuda_build_needs(pins: dict[str, str]) -> None:
    kept = requirements.without_cuda(pins)
    assert "numpy" in kept
    assert "triton" in kept
    assert "torch==" not in kept
    assert "nvidia" not in kept

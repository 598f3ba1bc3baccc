"""The loss curve is a picture that an XML parser takes, whatever the losses were."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

import pytest

from lora_trainer import curve

SVG = "{http://www.w3.org/2000/svg}"


def tags(history: list[dict[str, float]]) -> list[str]:
    return [one.tag.removeprefix(SVG) for one in ET.fromstring(curve.svg(history))]  # noqa: S314 - our own


def test_loss_and_evaluation_are_two_lines() -> None:
    history = [{"step": step, "loss": 3.0 / step, "eval_loss": 4.0 / step} for step in (1, 2, 3)]
    assert tags(history).count("polyline") == 2
    assert "eval_loss" in curve.svg(history)


def test_one_reading_is_a_point() -> None:
    assert "circle" in tags([{"step": 1, "loss": 2.0}])


@pytest.mark.parametrize("history", [[], [{"step": 1, "loss": math.nan}], [{"loss": 1.0}]], ids=str)
def test_without_a_loss_it_says_so(history: list[dict[str, float]]) -> None:
    assert "no loss was read" in curve.svg(history)


def test_no_point_lies_outside_of_the_picture() -> None:
    history = [{"step": 1, "loss": -2.0}, {"step": 2, "loss": 50.0}, {"step": 3, "loss": math.inf}]
    [line] = [one for one in ET.fromstring(curve.svg(history)) if one.tag == f"{SVG}polyline"]  # noqa: S314
    for point in line.attrib["points"].split():
        x, y = map(float, point.split(","))
        assert 0 <= x <= curve.WIDTH
        assert 0 <= y <= curve.HEIGHT

"""The picture is well-formed, and its bars are as long as the figures are large."""

from __future__ import annotations

import math
from typing import Final
from xml.etree import ElementTree

import pytest

from benchmarks.peers.picture import draw
from tests.benchmarks.peers.reports import REPORT

SVG: Final = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def picture() -> ElementTree.Element:
    return ElementTree.fromstring(draw(REPORT))


def test_texts_are_escaped_and_all_figures_are_there(picture: ElementTree.Element) -> None:
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert texts.count("ours") == texts.count("theirs") == 2
    assert {"5.0", "60", "0.50", "0.20"} <= set(texts)


def test_bars_are_ordered_and_logarithmic(picture: ElementTree.Element) -> None:
    ground, *bars = picture.iter(f"{SVG}rect")
    assert float(ground.attrib["width"]) == float(picture.attrib["width"]) - 1
    (ours, theirs, *_) = [float(bar.attrib["width"]) for bar in bars]
    assert bars[0].attrib["fill"] != bars[1].attrib["fill"]
    # From 1: 5 and 60 CPU-seconds.
    assert theirs / ours == pytest.approx(math.log10(60) / math.log10(5), rel=0.01)


def test_everything_is_inside(picture: ElementTree.Element) -> None:
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    for element in picture.iter():
        if "x" in element.attrib:
            end = float(element.attrib["x"]) + float(element.attrib.get("width", 0))
            assert 0 < end <= width
            assert 0 < float(element.attrib["y"]) < height

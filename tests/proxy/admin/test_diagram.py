"""A state machine's drawing shows all of it, and keeps to itself."""

from __future__ import annotations

from xml.etree import ElementTree

from proxy.admin import diagram

MACHINE = """stateDiagram-v2
    [*] --> HELD
    HELD --> OPEN: PACKET
    HELD --> ENDED: FINISH
    OPEN --> OPEN: PACKET
    OPEN --> ENDED: FINISH
    OPEN --> ENDED: FAULT
    ENDED --> [*]
"""


def texts(drawing: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(drawing).iter("text")]


def test_every_state_stands_once_in_the_order_of_its_first_arrow() -> None:
    assert texts(diagram.svg(MACHINE, "tip"))[:3] == ["HELD", "OPEN", "ENDED"]


def test_every_event_is_said_those_of_one_way_together() -> None:
    assert sorted(texts(diagram.svg(MACHINE, "tip"))[3:]) == ["finish", "finish, fault", "packet", "packet"]


def test_nothing_stands_outside_of_the_picture() -> None:
    drawing = ElementTree.fromstring(diagram.svg(MACHINE, "tip"))
    width, height = map(float, drawing.attrib["viewBox"].split()[2:])
    for text in drawing.iter("text"):
        half = len(text.text or "") * diagram.LETTER / 2
        assert half <= float(text.attrib["x"]) <= width - half
        assert 0 < float(text.attrib["y"]) < height


def test_the_heads_of_its_arrows_are_its_own() -> None:
    """A browser draws no head whose definition stands in a drawing that is hidden."""
    drawing = diagram.svg(MACHINE, "one")
    assert 'id="one"' in drawing
    assert drawing.count("url(#one)") == drawing.count("url(#") == drawing.count('class="arrow"')

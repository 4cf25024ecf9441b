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


# As it was looked at: boxes in a row, a dot before them and a ring behind; arrows end a unit before what they point at,
# an arc sinks by as much as it is long, and words stand above the middle of their line.
DRAWN = """\
<svg class="machine" viewBox="0 0 614 184" width="614" role="img" aria-label="HELD, OPEN, ENDED">
<defs>
<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 8 4 0 8z"/>
</marker>
</defs>
<rect x="40" y="66" width="104" height="34" rx="8"/>
<text class="state" x="92" y="87">HELD</text>
<rect x="255" y="66" width="104" height="34" rx="8"/>
<text class="state" x="307" y="87">OPEN</text>
<rect x="470" y="66" width="104" height="34" rx="8"/>
<text class="state" x="522" y="87">ENDED</text>
<circle cx="12" cy="83" r="5"/>
<path class="arrow" d="M18 83H39" marker-end="url(#tip)"/>
<path class="arrow" d="M144 83H254" marker-end="url(#tip)"/>
<text x="199.5" y="76">packet</text>
<path class="arrow" d="M106 100C136 188.4 478 188.4 508 101" marker-end="url(#tip)"/>
<text x="307" y="160.64">finish</text>
<path class="arrow" d="M291 66C281 32 333 32 323 65" marker-end="url(#tip)"/>
<text x="307" y="34">packet</text>
<path class="arrow" d="M359 83H469" marker-end="url(#tip)"/>
<text x="414.5" y="76">finish, fault</text>
<path class="arrow" d="M574 83H594" marker-end="url(#tip)"/>
<circle class="end" cx="602" cy="83" r="7"/>
<circle cx="602" cy="83" r="4"/>
</svg>"""


def test_a_machine_is_drawn_as_it_was_looked_at() -> None:
    assert diagram.svg(MACHINE, "tip").replace("><", ">\n<") == DRAWN


def test_where_no_arc_sinks_the_picture_ends_below_the_row() -> None:
    row = """stateDiagram-v2
    [*] --> A
    A --> B: GO
    B --> [*]
"""
    assert ElementTree.fromstring(diagram.svg(row, "tip")).attrib["viewBox"] == "0 0 322 120"


def test_arcs_of_the_same_length_sink_by_the_same() -> None:
    row = """stateDiagram-v2
    [*] --> A
    A --> B: ONE
    B --> C: TWO
    C --> D: THREE
    A --> C: FIRST
    B --> D: SECOND
    A --> D: LONGER
    D --> [*]
"""
    drawing = ElementTree.fromstring(diagram.svg(row, "tip"))
    depth = {text.text: float(text.attrib["y"]) for text in drawing.iter("text")}
    assert depth["first"] == depth["second"] < depth["longer"]

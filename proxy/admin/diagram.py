"""A state machine as Mermaid writes it -> the same as an SVG drawing, for a page that loads nothing from elsewhere.

The states stand in one row in the order they first appear; events lead from one to the next, arcs to one further on.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Final

ARROW: Final = re.compile(r"^\s*(\S+) --> (\S+?)(?:: (\w+))?$", re.MULTILINE)
OUTSIDE: Final = "[*]"
# In user units: how large a state is, where the row is, how far an arc of one step sinks, how wide a letter is.
WIDTH, HEIGHT, LEFT, TOP, SINK, LETTER = 104, 34, 40, 66, 34, 7


def svg(machine: str, tip: str) -> str:
    """The drawing of a `stateDiagram-v2`; its colours are the page's.

    tip: an id for the heads of its arrows: none other of the page, or hiding one drawing would hide those of another
    """
    arrows = ARROW.findall(machine)
    states = list(dict.fromkeys(state for pair in arrows for state in pair[:2] if state != OUTSIDE))
    place = {state: number for number, state in enumerate(states)}
    events: dict[tuple[str, str], list[str]] = defaultdict(list)
    for before, after, event in arrows:
        events[before, after].append(event.lower())
    said = {pair: ", ".join(words) for pair, words in events.items()}
    far = {pair: place[pair[1]] - place[pair[0]] for pair in said if OUTSIDE not in pair}
    step = WIDTH + max(len(said[pair]) * LETTER + 20 for pair, steps in far.items() if steps == 1)
    longest = max(far.values())
    row = _Row({state: LEFT + number * step for state, number in place.items()}, step, tip)
    width = 2 * LEFT + (len(states) - 1) * step + WIDTH
    height = TOP + HEIGHT + (longest * SINK + 16 if longest > 1 else 20)
    drawn = [*map(row.state, states), *(row.arrow(before, after, words) for (before, after), words in said.items())]
    return (
        f'<svg class="machine" viewBox="0 0 {width} {height}" width="{width}" role="img"'
        f' aria-label="{escape(", ".join(states))}"><defs><marker id="{tip}" viewBox="0 0 8 8" refX="7" refY="4"'
        ' markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>'
        f"{''.join(drawn)}</svg>"
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """The states where they stand.

    lefts: the left edge of each
    step:  from one left edge to the next
    tip:   the id of an arrow's head
    """

    lefts: Mapping[str, int]
    step: int
    tip: str

    def state(self, name: str) -> str:
        left = self.lefts[name]
        return (
            f'<rect x="{left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
            f'<text class="state" x="{left + WIDTH / 2:g}" y="{TOP + HEIGHT / 2 + 4:g}">{escape(name)}</text>'
        )

    def arrow(self, before: str, after: str, words: str) -> str:
        middle = TOP + HEIGHT / 2
        if before == OUTSIDE:
            left = self.lefts[after]
            return f'<circle cx="{left - 28}" cy="{middle:g}" r="5"/>' + self._line(
                f"M{left - 22} {middle:g}H{left - 1}"
            )
        if after == OUTSIDE:
            dot = self.lefts[before] + WIDTH + 28
            rings = f'<circle class="end" cx="{dot}" cy="{middle:g}" r="7"/><circle cx="{dot}" cy="{middle:g}" r="4"/>'
            return self._line(f"M{dot - 28} {middle:g}H{dot - 8}") + rings
        start, end = self.lefts[before], self.lefts[after]
        if start == end:
            x, rise = start + WIDTH / 2, TOP - 34
            loop = f"M{x - 16:g} {TOP}C{x - 26:g} {rise} {x + 26:g} {rise} {x + 16:g} {TOP - 1}"
            return self._line(loop) + _words(words, x, TOP - 32)
        if end - start == self.step:
            straight = f"M{start + WIDTH} {middle:g}H{end - 1}"
            return self._line(straight) + _words(words, (start + WIDTH + end) / 2, middle - 7)
        bottom, depth = TOP + HEIGHT, (end - start) // self.step * SINK
        x1, x2, low = start + WIDTH / 2 + 14, end + WIDTH / 2 - 14, bottom + depth * 1.3
        arc = f"M{x1:g} {bottom}C{x1 + 30:g} {low:g} {x2 - 30:g} {low:g} {x2:g} {bottom + 1}"
        return self._line(arc) + _words(words, (x1 + x2) / 2, bottom + depth * 0.98 - 6)

    def _line(self, path: str) -> str:
        return f'<path class="arrow" d="{path}" marker-end="url(#{self.tip})"/>'


def _words(text: str, x: float, y: float) -> str:
    return f'<text x="{x:g}" y="{y:g}">{escape(text)}</text>'

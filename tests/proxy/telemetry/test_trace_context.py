"""Claims about a caller's trace context, by section of W3C Trace Context."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict

from proxy.telemetry import trace_context

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    "parent",
    [GOOD, f"00-{TRACE}-{PARENT}-00", f"cc-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be"],
)
def test_a_well_formed_parent_is_passed_on_as_it_is(parent: str) -> None:
    """2.2, and 4 for versions to come."""
    assert trace_context.passed_on(CIMultiDict({"TraceParent": parent})) == {"traceparent": parent}


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "a",
        GOOD.upper(),
        f" {GOOD}",
        f"{GOOD}\n",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01x",
        f"cc-{TRACE}-{PARENT}-01-\udcff",
    ],
)
def test_a_parent_that_breaks_a_rule_is_taken_for_absent_and_its_state_with_it(parent: str) -> None:
    """2.2.2, 3.3."""
    assert trace_context.passed_on(CIMultiDict({"traceparent": parent, "tracestate": "a=b"})) == {}


def test_two_parents_are_none() -> None:
    assert trace_context.passed_on(CIMultiDict([("traceparent", GOOD), ("traceparent", GOOD)])) == {}


def test_a_state_of_several_lines_is_one_list() -> None:
    """2.3.1: vendors' entries keep their order."""
    headers = CIMultiDict([("traceparent", GOOD), ("tracestate", "a=1"), ("tracestate", "b=2")])
    assert trace_context.passed_on(headers) == {"traceparent": GOOD, "tracestate": "a=1,b=2"}


@pytest.mark.parametrize("state", ["", "a=\udcff", "a=é", "a=b\x00", "a" * 2_049])
def test_a_state_that_is_no_text_or_too_long_is_left_out_alone(state: str) -> None:
    assert trace_context.passed_on(CIMultiDict({"traceparent": GOOD, "tracestate": state})) == {"traceparent": GOOD}

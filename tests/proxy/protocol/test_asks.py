"""What a gateway is asked is what was written down, to the last byte and token."""

from __future__ import annotations

import pytest

from proxy.protocol.asks import Api
from tests.proxy.protocol import asked


@pytest.mark.parametrize("api", asked.APIS)
def test_what_is_asked_of_a_gateway_is_what_was_written_down(api: Api) -> None:
    """Requests, what they may cost, and the checks that they are for, by how a model thinks and how it is reached."""
    written = asked.path(api).read_text("utf-8")
    assert asked.written(api).splitlines() == written.splitlines(), (
        "if it is meant: python -m tests.proxy.protocol.asked"
    )

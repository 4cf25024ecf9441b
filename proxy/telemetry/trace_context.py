"""A caller's trace context into what is passed on of it: well-formed or not at all.

A `traceparent` that breaks its rules is to be taken for absent, and `tracestate` means nothing without it.
Source: W3C Trace Context 2.2, 3.2, 3.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from multidict import CIMultiDict, CIMultiDictProxy

Headers = CIMultiDict[str] | CIMultiDictProxy[str]

PARENT: Final = "traceparent"
STATE: Final = "tracestate"

# Version ff and ids of zeros are forbidden; what follows the flags is for versions to come, 00 has nothing there.
_PARENT: Final = re.compile(
    r"(?!ff)(?:00|(?P<later>(?!00)[0-9a-f]{2}))-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?(later)(?:-[!-~]*)?)"
)
_STATE: Final = re.compile(r"[\t -~]{1,2048}")


def passed_on(headers: Headers) -> Mapping[str, str]:
    """The headers that carry the caller's trace on; none where there is no such trace."""
    parents = headers.getall(PARENT, ())
    if len(parents) != 1 or not _PARENT.fullmatch(parents[0]):
        return {}
    # Several lines of it are one list (RFC 9110, 5.3).
    state = ",".join(headers.getall(STATE, ()))
    return {PARENT: parents[0], STATE: state} if _STATE.fullmatch(state) else {PARENT: parents[0]}

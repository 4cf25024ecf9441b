"""A fault of the one catalogue in the words of the compatible surface: type, code and text (spec COM-25, COM-27).

The journal, the log and the metrics keep DashScope's code. Source: the pairs `A/b` of the service's error page, and
error bodies recorded on the real endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

import orjson

from translators import faults
from translators.compatible.shapes import Failure
from translators.faults import Fault


class Spelling(NamedTuple):
    """How a fault is told.

    type: its class
    code: what clients tell it by; None: null
    text: where it is another than DashScope's
    """

    type: str
    code: str | None
    text: str | None = None


REFUSED: Final = "invalid_request_error"

NO_KEY: Final = Spelling(
    REFUSED,
    None,
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    "(i.e. Authorization: Bearer YOUR_KEY).",
)

# By DashScope's code; one that is not here stands as type and code itself.
SPELLINGS: Final[Mapping[str, Spelling]] = {
    "InvalidParameter": Spelling(REFUSED, "invalid_parameter_error"),
    "InvalidParameter.NotSupportEnableThinking": Spelling(REFUSED, "invalid_parameter_error"),
    "BadRequest.TooLarge": Spelling(REFUSED, "invalid_parameter_error"),
    "BadRequest.EmptyModel": Spelling(REFUSED, None, "you must provide a model parameter."),
    "InvalidApiKey": Spelling(REFUSED, "invalid_api_key", "Incorrect API key provided."),
    "ModelNotFound": Spelling(REFUSED, "model_not_found"),
    "AccessDenied": Spelling("access_denied", "access_denied"),
    "DataInspectionFailed": Spelling("data_inspection_failed", "data_inspection_failed"),
    "Throttling.RateQuota": Spelling("limit_requests", "limit_requests", "You exceeded your current requests list."),
    "Throttling.BurstRate": Spelling("limit_burst_rate", "limit_burst_rate"),
    "Throttling.AllocationQuota": Spelling(
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "InternalError": Spelling("internal_error", "internal_error"),
    "InternalError.Algo": Spelling("internal_error", "internal_error"),
}

# Kinds of refusal that have a code of their own.
KINDS: Final[Mapping[faults.Kind, Spelling]] = {
    "invalid_type": Spelling(REFUSED, "invalid_type"),
    "invalid_value": Spelling(REFUSED, "invalid_value"),
    "unnamed": Spelling(REFUSED, None),
}

# The OpenAI SDKs send a call that failed with 429 or 5xx again, twice. What the operator must mend fails again; what is
# used up until tomorrow is not to be waited for: openai-node sleeps for as long as `Retry-After` says, without a word,
# and openai-python gives up beyond this (spec COM-27).
LONGEST_WAIT_S: Final = 120
LONGEST_DIGITS: Final = 9
NO_RETRY: Final[Mapping[str, str]] = {"x-should-retry": "false"}
RETRY: Final[Mapping[str, str]] = {}


def spelling(fault: Fault) -> Spelling:
    """How a fault is told here."""
    if fault.kind is not None:
        return KINDS[fault.kind]
    if fault.message == faults.NO_KEY.message:
        return NO_KEY
    return SPELLINGS.get(fault.code) or Spelling(fault.code, fault.code)


def failure(fault: Fault, request_id: str) -> bytes:
    """The body of an answer that is a failure; the same is the data of an event (spec COM-25, COM-26)."""
    told = spelling(fault)
    # The prefix is the native surface's alone (spec REQ-8).
    text = told.text or fault.message.removeprefix(faults.PARAMETER_PREFIX)
    shown: Failure = {
        "error": {"message": text, "type": told.type, "param": None, "code": told.code},
        "id": f"chatcmpl-{request_id}",
        "request_id": request_id,
    }
    return orjson.dumps(shown)


def failure_headers(fault: Fault, now_s: float) -> Mapping[str, str]:
    """What its head says beside `Retry-After`; now_s: the time of day, in seconds since 1970."""
    return NO_RETRY if fault.blame == "operator" or _is_far(fault.retry_after, now_s) else RETRY


def _is_far(retry_after: str | None, now_s: float) -> bool:
    """Whether it names so many seconds, or a date so late, that no caller waits; what is neither, SDKs pass over."""
    if retry_after is None:
        return False
    if retry_after.isascii() and retry_after.isdigit():
        return len(retry_after) > LONGEST_DIGITS or int(retry_after) > LONGEST_WAIT_S
    try:
        return parsedate_to_datetime(retry_after).timestamp() - now_s > LONGEST_WAIT_S
    # No date, or one of a year that there is no number for.
    except (ValueError, OverflowError):
        return False

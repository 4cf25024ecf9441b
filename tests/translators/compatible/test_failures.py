"""Every fault of the catalogue in the words of the compatible surface (spec COM-25, COM-27)."""

from __future__ import annotations

from dataclasses import fields

import orjson
import pytest

from translators import faults
from translators.compatible import failures
from translators.faults import Fault

CATALOGUE = {name: fault for name, fault in vars(faults).items() if isinstance(fault, Fault)}
REFUSED = "invalid_request_error"

# Spec COM-27, row by row.
TOLD: dict[str, tuple[str, str | None, str | None]] = {
    "BODY_INVALID": (REFUSED, "invalid_parameter_error", None),
    "MODEL_MISSING": (REFUSED, None, "you must provide a model parameter."),
    "BODY_TOO_LARGE": (REFUSED, "invalid_parameter_error", None),
    "ENCRYPTED_BODY": (REFUSED, "invalid_parameter_error", None),
    "NOT_FOUND": ("NotFound", "NotFound", None),
    "NO_ASYNC": ("access_denied", "access_denied", None),
    "NO_KEY": (
        REFUSED,
        None,
        (
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY)."
        ),
    ),
    "BAD_KEY": (REFUSED, "invalid_api_key", "Incorrect API key provided."),
    "ACCESS_DENIED": ("access_denied", "access_denied", None),
    "ARREARAGE": ("Arrearage", "Arrearage", None),
    "INPUT_MODERATED": ("data_inspection_failed", "data_inspection_failed", None),
    "OUTPUT_MODERATED": ("data_inspection_failed", "data_inspection_failed", None),
    "MODEL_NOT_FOUND": (REFUSED, "model_not_found", None),
    "RATE_LIMITED": ("limit_requests", "limit_requests", "You exceeded your current requests list."),
    "BURST_LIMITED": ("limit_burst_rate", "limit_burst_rate", None),
    "QUOTA_EXCEEDED": (
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "INTERNAL": ("internal_error", "internal_error", None),
    "UPSTREAM_BROKEN": ("internal_error", "internal_error", None),
    "UPSTREAM_KEY_REFUSED": ("internal_error", "internal_error", None),
    "INFERENCE": ("internal_error", "internal_error", None),
    "TIMED_OUT": ("RequestTimeOut", "RequestTimeOut", None),
    "OVERLOADED": ("ModelServingError", "ModelServingError", None),
    "UNAVAILABLE": ("ModelUnavailable", "ModelUnavailable", None),
    "ACCOUNT_OVERDUE": ("ModelUnavailable", "ModelUnavailable", None),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_fault_has_a_type_a_code_and_a_text(name: str) -> None:
    fault = CATALOGUE[name].after("7")
    kind, code, text = TOLD[name]
    assert orjson.loads(failures.failure(fault, "the-id")) == {
        "error": {"message": text or fault.message, "type": kind, "param": None, "code": code},
        "id": "chatcmpl-the-id",
        "request_id": "the-id",
    }


def test_all_of_the_catalogue_is_here_but_what_only_the_native_surface_says() -> None:
    native = {"INPUT_MISSING", "MODEL_UNKNOWN", "WRONG_ENDPOINT"}
    assert {fault.code for fault in CATALOGUE.values()} == {CATALOGUE[name].code for name in TOLD} | {
        CATALOGUE[name].code for name in native
    }


def test_the_keys_stand_in_this_order() -> None:
    assert failures.failure(faults.TIMED_OUT, "r") == (
        b'{"error":{"message":"Request timed out, please try again later.","type":"RequestTimeOut","param":null,'
        b'"code":"RequestTimeOut"},"id":"chatcmpl-r","request_id":"r"}'
    )


def test_the_prefix_of_the_native_surface_is_left_out() -> None:
    """REQ-8 is not for this surface."""
    told = orjson.loads(failures.failure(faults.invalid("Range of n should be [1, 4]"), "r"))
    assert told["error"]["message"] == "Range of n should be [1, 4]"


@pytest.mark.parametrize(("kind", "code"), [("invalid_type", "invalid_type"), ("unnamed", None)])
def test_a_kind_has_a_code_of_its_own(kind: faults.Kind, code: str | None) -> None:
    assert failures.spelling(faults.invalid("x", kind)) == failures.Spelling(REFUSED, code)


# Sunday, 29 November 2026, at midnight.
NOW_S = 1_795_910_400.0


@pytest.mark.parametrize("name", TOLD)
def test_a_call_that_the_operator_must_mend_is_not_to_be_sent_again(name: str) -> None:
    expected = {"x-should-retry": "false"} if CATALOGUE[name].blame == "operator" else {}
    assert failures.failure_headers(CATALOGUE[name], NOW_S) == expected


@pytest.mark.parametrize(
    ("retry_after", "is_far"),
    [
        ("1", False),
        ("120", False),
        ("121", True),
        ("4870", True),
        ("9" * 400, True),
        ("Sun, 29 Nov 2026 00:02:00 GMT", False),
        ("Sun, 29 Nov 2026 00:02:01 GMT", True),
        ("Sat, 28 Nov 2026 00:00:00 GMT", False),
        ("Fri, 31 Dec 9999 23:59:59 GMT", True),
        ("Sun, 99 Nov 2026 00:00:00 GMT", False),
        ("Sun, 29 Nov 99999999999 00:00:00 GMT", False),
        ("Sun, 29 Nov 2026 00:00:00 +99999999999", False),
        ("tomorrow", False),
        ("-121", False),
        ("²²²", False),
    ],
)
def test_a_call_that_may_succeed_much_later_is_not_to_be_waited_with(retry_after: str, *, is_far: bool) -> None:
    """COM-27: a budget of the day is used up; openai-node would sleep until midnight, without a word."""
    expected = {"x-should-retry": "false"} if is_far else {}
    assert failures.failure_headers(faults.QUOTA_EXCEEDED.after(retry_after), NOW_S) == expected


def test_a_fault_is_the_same_in_the_books_whatever_tongue_tells_it() -> None:
    """COM-27: its code is DashScope's; a kind is no part of it."""
    assert faults.invalid("x", "invalid_type").code == faults.invalid("x").code
    assert [field.name for field in fields(Fault)][-1] == "kind"

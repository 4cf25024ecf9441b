"""Every error a caller can read is one of DashScope's own (spec ERR-1, ERR-2)."""

from __future__ import annotations

import pytest

from translators import faults

# The part of the service's error page that concerns text generation (partner spec, error page).
PUBLISHED = {
    "AccessDenied": 403,
    "Arrearage": 400,
    "BadRequest.EmptyInput": 400,
    "BadRequest.EmptyModel": 400,
    "BadRequest.TooLarge": 400,
    "DataInspectionFailed": 400,
    "InternalError": 500,
    "InternalError.Algo": 500,
    "InvalidApiKey": 401,
    "InvalidParameter": 400,
    "InvalidParameter.NotSupportEnableThinking": 400,
    "ModelNotFound": 404,
    "ModelServingError": 503,
    "ModelUnavailable": 503,
    "NotFound": 404,
    "RequestTimeOut": 500,
    "Throttling.AllocationQuota": 429,
    "Throttling.BurstRate": 429,
    "Throttling.RateQuota": 429,
}
MADE = [faults.invalid("x"), faults.wrong_method("GET"), faults.no_thinking("deepseek-v3"), faults.input_length(9)]
CATALOGUE = [fault for fault in vars(faults).values() if isinstance(fault, faults.Fault)] + MADE


@pytest.mark.parametrize("fault", CATALOGUE, ids=lambda fault: f"{fault.code} {fault.message[:24]}")
def test_every_code_is_published_and_has_its_status(fault: faults.Fault) -> None:
    """ERR-2: a closed subset, none invented."""
    assert PUBLISHED[fault.code] == fault.status
    assert fault.message


def test_a_wrong_method_is_named_in_the_services_words() -> None:
    """HTTP-4"""
    assert faults.wrong_method("GET").message == "Request method 'GET' is not supported."


def test_parameter_texts_carry_the_prefix_of_the_algorithm_layer() -> None:
    """REQ-8"""
    assert faults.input_length(9).message == (
        "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 9]"
    )


def test_a_refusal_tells_the_log_its_cause_and_the_caller_only_the_fault() -> None:
    refusal = faults.Refusal(faults.UNAVAILABLE.after("7"), "no upstream could be reached")
    assert refusal.fault.retry_after == "7"
    assert refusal.fault.message == faults.UNAVAILABLE.message
    assert "no upstream could be reached" in str(refusal)

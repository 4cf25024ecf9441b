"""Claims about who may call (spec HTTP-10, KEY-1)."""

from __future__ import annotations

import hashlib

import pytest
from multidict import CIMultiDict

from config import settings, sources
from proxy.admission import authentication
from translators import faults

KEY = "sk-0123456789abcdef"


def chosen(**said: object) -> settings.Settings:
    return sources.load({"upstream": ("http://127.0.0.1:1",), **said}, None, {})


def with_own_key(**said: object) -> settings.Settings:
    return sources.load({"upstream": ("http://127.0.0.1:1",), **said}, None, {"DASHSEEK_UPSTREAM_API_KEY": "sk-own"})


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer {KEY}"},
        {"AUTHORIZATION": f"  BEARER   {KEY}  "},
        {"x-api-key": KEY},
        {"X-Api-Key": f" {KEY} "},
        {"Authorization": "Basic dTpw", "x-api-key": KEY},
        {"Authorization": f"Bearer {KEY}", "x-api-key": "another"},
    ],
)
def test_a_key_comes_by_either_header_and_bearer_wins(headers: dict[str, str]) -> None:
    assert authentication.key_in(CIMultiDict(headers)) == KEY


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer   "},
        {"x-api-key": ""},
        {"Authorization": "Basic dTpw"},
    ],
)
@pytest.mark.parametrize("auth", ["passthrough", "any"])
def test_no_key_or_an_empty_one_is_refused(headers: dict[str, str], auth: str) -> None:
    with pytest.raises(faults.Refusal) as refusal:
        authentication.admit(CIMultiDict(headers), chosen(auth=auth))
    assert refusal.value.fault == faults.NO_KEY


@pytest.mark.parametrize("auth", ["passthrough", "any"])
def test_a_key_without_bearer_before_it_is_no_missing_one(auth: str) -> None:
    """Spec HTTP-10: one was told, and it is refused; the log says what is missing."""
    with pytest.raises(faults.Refusal) as refusal:
        authentication.admit(CIMultiDict({"Authorization": KEY}), chosen(auth=auth))
    assert (refusal.value.fault, refusal.value.cause) == (
        faults.BAD_KEY,
        "the key stands in Authorization without Bearer before it",
    )


@pytest.mark.parametrize("name", ["Authorization", "x-api-key"])
@pytest.mark.parametrize("auth", ["passthrough", "any", "none"])
def test_two_lines_of_one_key_header_are_refused_whatever_they_say(name: str, auth: str) -> None:
    """Spec HTTP-14: a checker before us may have read the other one."""
    headers = CIMultiDict([(name, f"Bearer {KEY}"), (name.upper(), f"Bearer {KEY}")])
    with pytest.raises(faults.Refusal) as refusal:
        authentication.admit(headers, chosen(auth=auth))
    assert refusal.value.fault == faults.BAD_KEY


def test_one_line_of_each_are_two_headers() -> None:
    headers = CIMultiDict({"Authorization": f"Bearer {KEY}", "x-api-key": "another"})
    assert authentication.admit(headers, chosen()).upstream_key == KEY


def test_passthrough_sends_the_callers_key_on_and_leaves_the_blame_with_it() -> None:
    let_in = authentication.admit(CIMultiDict({"x-api-key": KEY}), chosen())
    assert let_in.upstream_key == KEY
    assert not let_in.own_key


@pytest.mark.parametrize("key", ["sk-ключ", "sk\x7f", "sk-\udcff"])
def test_passthrough_refuses_what_no_header_could_carry_on(key: str) -> None:
    with pytest.raises(faults.Refusal) as refusal:
        authentication.admit(CIMultiDict({"x-api-key": key}), chosen())
    assert refusal.value.fault == faults.BAD_KEY
    assert key not in refusal.value.cause


def test_with_a_key_of_our_own_the_callers_stays_here() -> None:
    let_in = authentication.admit(CIMultiDict({"x-api-key": KEY}), with_own_key())
    assert let_in.upstream_key is None
    assert let_in.own_key


def test_with_none_needed_and_none_to_send_a_caller_without_one_is_let_in() -> None:
    assert authentication.admit(CIMultiDict(), chosen(auth="none")) == authentication.Admission(
        None, None, own_key=True
    )


def test_a_fingerprint_names_a_key_and_does_not_give_it_away() -> None:
    let_in = authentication.admit(CIMultiDict({"x-api-key": KEY}), chosen())
    assert let_in.fingerprint == hashlib.sha256(KEY.encode()).hexdigest()[:12]

"""Headers into who may call: the caller's key, judged by the mode the operator chose (spec HTTP-10, KEY-1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from multidict import MultiMapping

from config.settings import Settings
from proxy.admission.keyring import FINGERPRINT_DIGITS, Key, Keyring, digest_of
from translators import faults

AUTHORIZATION: Final = "Authorization"
API_KEY: Final = "x-api-key"
# A key that was told, though not as one: one word of credentials, and none that names a scheme (RFC 9110, 11.4).
WITHOUT_SCHEME: Final = re.compile(r"(?!(?:bearer|basic|digest|negotiate)\Z)\S+", re.IGNORECASE)


# Frozen, each field would be set by a call of its own.
@dataclass(slots=True)
class Admission:
    """One caller let in.

    fingerprint:  names the key in logs and records without giving it away; None where the caller brought none
    upstream_key: the caller's own, where that goes upstream; None where the operator's does, if any
    own_key:      whether it is the operator's, so that the caller is not to blame for it
    known:        who it is, where there is a keys file
    """

    fingerprint: str | None
    upstream_key: str | None
    own_key: bool
    known: Key | None = None


def admit(headers: MultiMapping[str], settings: Settings, keyring: Keyring | None = None) -> Admission:
    """Let a caller in, or refuse with DashScope's own 401.

    keyring: the keys that are let in, for `auth = keys`
    """
    if len(headers.getall(AUTHORIZATION, ())) > 1 or len(headers.getall(API_KEY, ())) > 1:
        # A checker before us may have read the other one (spec HTTP-14).
        raise faults.Refusal(faults.BAD_KEY, "a key header came twice")
    key = key_in(headers)
    if not key and settings.auth != "none":
        if WITHOUT_SCHEME.fullmatch(headers.get(AUTHORIZATION, "").strip()):
            raise faults.Refusal(faults.BAD_KEY, "the key stands in Authorization without Bearer before it")
        raise faults.Refusal(faults.NO_KEY)
    fingerprint = digest_of(key).hex()[:FINGERPRINT_DIGITS] if key else None
    if settings.auth == "passthrough":
        if not (key.isascii() and key.isprintable()):
            raise faults.Refusal(faults.BAD_KEY, "the key holds characters no key has")
        return Admission(fingerprint, key, False)
    known = keyring.find(key) if keyring is not None else None
    return Admission(fingerprint, None, True, known)


def key_in(headers: MultiMapping[str]) -> str:
    """The key a caller sent, by either header; empty where there is none."""
    scheme, _, credentials = headers.get(AUTHORIZATION, "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return headers.get(API_KEY, "").strip()

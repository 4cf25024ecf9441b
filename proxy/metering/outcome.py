"""How calls end: the words of the journal, the log and the metrics (spec MET-1)."""

from __future__ import annotations

from enum import Enum


class Outcome(Enum):
    """How a call ended (spec MET-1)."""

    __hash__ = object.__hash__  # in C; an `Enum` hashes its name, in Python

    OK = "ok"
    REJECTED = "rejected"
    THROTTLED = "throttled"
    MODERATED_INPUT = "moderated_input"
    MODERATED_OUTPUT = "moderated_output"
    CLIENT_GONE_BEFORE_FIRST_PACKET = "client_gone_before_first_packet"
    CLIENT_GONE_MID_STREAM = "client_gone_mid_stream"
    CLIENT_STALLED = "client_stalled"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_CUT = "upstream_cut"
    TIMEOUT_BODY = "timeout_body"
    TIMEOUT_CONNECT = "timeout_connect"
    TIMEOUT_FIRST_TOKEN = "timeout_first_token"  # noqa: S105 - a token of text
    TIMEOUT_IDLE = "timeout_idle"
    TIMEOUT_TOTAL = "timeout_total"
    SHUTDOWN_CUT = "shutdown_cut"
    INTERNAL_ERROR = "internal_error"

"""What kept an upstream from answering, into one sentence that mends it: the log, `doctor` and `check` say the same.

A row for each kind of failure, the narrow before the wide. No row repeats what upstream said, and none has a colon
before a space: whatever stands behind one is upstream's to the log, which leaves it out (spec MET-4).
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Collection
from typing import Final, NamedTuple

# What the first bytes of an answer are where they are those of TLS: an alert, or a handshake (RFC 8446, 5.1).
TLS_RECORDS: Final = (b"\x15\x03", b"\x16\x03")

NUMBER: Final = re.compile(r"\[Errno (\d+)\]")


class Reason(NamedTuple):
    """Why there is no answer.

    found: what is the case
    to_do: what mends it
    """

    found: str
    to_do: str

    def __str__(self) -> str:
        return f"{self.found}; {self.to_do}"


class Row(NamedTuple):
    """One kind of failure: this exception, with one of these numbers or words of the library (any if empty)."""

    kind: type[BaseException]
    marks: Collection[object]
    reason: Reason


SPEAKS_TLS: Final = Reason("it speaks TLS", "say https:// instead of http://")
SPEAKS_NO_TLS: Final = Reason("it speaks no TLS", "say http:// instead of https://")
ANSWERS_NO_TLS: Final = Reason(
    "it takes connections and does not answer in TLS", "if it speaks none, say http:// instead of https://"
)
_NO_WAY: Final = Reason("there is no way to it", "does a firewall or a network policy let us out?")

ROWS: Final = (
    Row(socket.gaierror, (), Reason("nobody has that name", "check the URL, and the DNS of this machine")),
    Row(
        ssl.SSLCertVerificationError,
        (),
        Reason("its certificate is not believed", "if it has a CA of its own, name that with --upstream-ca-file"),
    ),
    Row(ssl.SSLError, ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"), SPEAKS_NO_TLS),
    Row(ssl.SSLError, (), Reason("TLS was not agreed on", "does it speak TLS 1.2 or newer on that port?")),
    Row(
        ConnectionRefusedError,
        (),
        Reason("connection refused, nobody listens on that port", "is it up, and is that its port?"),
    ),
    Row(ConnectionError, (), Reason("it hung up before a connection was made", "does it speak TLS on that port?")),
    Row(TimeoutError, (), Reason("it does not answer", "is it up, and does a firewall let us out?")),
    Row(OSError, (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EACCES, errno.EPERM), _NO_WAY),
    Row(OSError, (errno.EMFILE, errno.ENFILE), Reason("too many files are open", "raise the limit: ulimit -n 65536")),
)


def reason_of(error: BaseException) -> Reason:
    """Why a connection could not be made, and what mends it."""
    error = _one_of(error)
    number, word = getattr(error, "errno", None), getattr(error, "reason", None)
    row = next(
        (row for row in ROWS if isinstance(error, row.kind) and (not row.marks or {number, word} & {*row.marks})), None
    )
    if row is None:
        name = os.strerror(number) if isinstance(number, int) and number > 0 else type(error).__name__
        return Reason(f"no connection was made, {name}", "try dashseek doctor on this machine")
    if isinstance(error, ssl.SSLCertVerificationError):
        return row.reason._replace(found=f"{row.reason.found}, {error.verify_message.replace(': ', ', ')}")
    return row.reason


def _one_of(error: BaseException) -> BaseException:
    """The first of several failures: a name of many addresses fails with all their texts in one, without a number."""
    found = NUMBER.search(str(error)) if type(error) is OSError and error.errno is None else None
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else error


def is_tls(wire: bytes) -> bool:
    """Whether bytes that should be HTTP are those of a server that waits for a TLS handshake."""
    return wire.startswith(TLS_RECORDS)

"""TLS before a connection: bytes of a socket into those of HTTP, and back; and the certificate, followed.

The event loops' own TLS keeps what it has encrypted where nobody can ask how much of it has left, and the record of a
call lives by that (spec MET-3). Here what is encrypted goes to the kernel at once, and what it does not take to the
transport of the socket, as without TLS. A handshake is a part of the connection: it has its place among the others, and
its clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import structlog

from config import values
from config.file_version import Version, version_of

log = structlog.get_logger()

# As much of a body as is decrypted at once.
READ_BYTES: Final = 64 << 10
# A file that was replaced is seen after so long at most.
LOOK_EVERY_S: Final = 1.0
# What Python calls it when the first bytes are those of HTTP.
SPEAKS_HTTP: Final = "HTTP_REQUEST"


class Certificate:
    """The certificate we show, and its key; read again when one of the files changes.

    context: for the next handshake; open connections keep theirs
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._files = (cert, key)
        self._versions = self._look()
        self.context = values.certificate(cert, key)

    async def keep_fresh(self) -> None:
        """Follow the files; a pair that does not fit, as halfway through a change, is kept out."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.refresh()

    def refresh(self) -> None:
        """Read the files again if they have changed."""
        try:
            versions = self._look()
            if versions == self._versions:
                return
            self.context = values.certificate(*self._files)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            # Said once for each state of the files.
            if not isinstance(error, OSError):
                self._versions = versions
            log.error("certificate_kept", reason=reason)
        else:
            self._versions = versions
            log.info("certificate_read")

    def _look(self) -> tuple[Version, ...]:
        return tuple(map(version_of, self._files))


class Secured(asyncio.Transport, asyncio.Protocol):
    """One connection's TLS: a protocol to the socket's transport, a transport to the connection above it.

    connection: what speaks HTTP
    refused:    is told why a handshake has failed, in the library's own word
    """

    def __init__(
        self, context: ssl.SSLContext, connection: asyncio.Protocol, refused: Callable[[str], None] = lambda _: None
    ) -> None:
        self._context = context
        self._above = connection
        self._refused = refused
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_agreed = False
        self._is_over = False
        self._socket: asyncio.Transport
        self._file: int

    # Towards the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there; the connection above begins its clock."""
        # uvloop's are no subclass of it.
        self._socket = cast(asyncio.Transport, transport)
        self._file = transport.get_extra_info("socket").fileno()
        self._above.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Go on with the handshake, then hand up what is decrypted."""
        if self._is_over:
            return
        self._incoming.write(data)
        try:
            if not self._is_agreed:
                self._session.do_handshake()
                self._is_agreed = True
            while not self._is_over and (text := self._session.read(READ_BYTES)):
                self._above.data_received(text)
            if not self._is_over:
                self._above.eof_received()
                self.close()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            self._is_over = True
            self._flush()
            self._socket.close()
            if not self._is_agreed:
                self._refused(error.reason or type(error).__name__)

    def eof_received(self) -> bool | None:
        """The socket's end is the connection's, said farewell to or not."""
        return self._above.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed, and with it the connection above."""
        self._is_over = True
        self._above.connection_lost(exc)

    def pause_writing(self) -> None:
        """The kernel takes no more."""
        self._above.pause_writing()

    def resume_writing(self) -> None:
        """It takes more."""
        self._above.resume_writing()

    # Towards the connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt, and hand to the kernel now what it takes; before the handshake there is nobody."""
        if not self._is_agreed or self._is_over or not data:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._session.write(view) :]
        except ssl.SSLError:
            self.abort()
        else:
            self._flush()

    def close(self) -> None:
        """Say farewell, and close once what was written has left."""
        if not self._is_over:
            self._is_over = True
            if self._is_agreed:
                # Its farewell is not waited for.
                with contextlib.suppress(ssl.SSLError):
                    self._session.unwrap()
                self._flush()
        self._socket.close()

    def abort(self) -> None:
        """Close at once."""
        self._is_over = True
        self._socket.abort()

    def is_closing(self) -> bool:
        """Whether it is closed or closing."""
        return self._is_over or self._socket.is_closing()

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken yet, as they were encrypted."""
        return self._socket.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.WriteTransport`."""
        self._socket.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`."""
        own = {"sslcontext": self._context, "ssl_object": self._session}
        return own[name] if name in own else self._socket.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._socket.resume_reading()

    def is_reading(self) -> bool:
        """See `asyncio.ReadTransport`."""
        return self._socket.is_reading()

    def can_write_eof(self) -> bool:
        """TLS has no half-closed end that clients of HTTP know."""
        return False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See `asyncio.BaseTransport`."""
        self._above = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """See `asyncio.BaseTransport`."""
        return self._above

    def _flush(self) -> None:
        wire = self._outgoing.read()
        if not wire or self._socket.is_closing():
            return
        taken = 0
        if not self._socket.get_write_buffer_size():
            # The transport meets an error, too, and tells who must know.
            with contextlib.suppress(OSError):
                taken = os.write(self._file, wire)
        if taken < len(wire):
            self._socket.write(wire[taken:])


def trusting(cert: Path) -> ssl.SSLContext:
    """For a client of our own port on this machine: believes this certificate and no other, by whatever name it is."""
    context = ssl.create_default_context(cafile=str(cert))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context

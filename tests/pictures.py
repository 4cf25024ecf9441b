"""Pictures of 37 × 21 pixels as `data:` URLs, by a common image library; of a JPEG what comes before its size.

None of them is ever decoded, but `whole` ones: what follows the header is left out, or what a test puts there.
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Final

WIDTH, HEIGHT = 37, 21
# What the vendor's renderer makes of them.
TOKENS: Final = 192

PNG: Final = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
GIF: Final = b"GIF89a" + struct.pack("<HH", WIDTH, HEIGHT) + b"\x81\x00\x00"
WEBP_LOSSY: Final = base64.b64decode("UklGRkwAAABXRUJQVlA4IEAAAABQAwCdASolABUAPm02l0ikIyIhJWgAgA2JZwB2AABYzxq0AAD+8iJf")
WEBP_LOSSLESS: Final = base64.b64decode("UklGRh4AAABXRUJQVlA4TBEAAAAvJAAFAAdQhSJXof+BiOh/AAA=")
WEBP_EXTENDED: Final = base64.b64decode("UklGRoIAAABXRUJQVlA4WAoAAAAYAAAAJAAAFAAAQUxQSAoAAAABB9CCiAhE")


def segment(marker: int, body: bytes) -> bytes:
    """A part of a JPEG, with its length."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def jpeg(*before: bytes, frame: int = 0xC0, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """A JPEG as far as its size, with these parts before that."""
    size = segment(frame, struct.pack(">BHHB", 8, height, width, 3) + b"\x01\x22\x00")
    return b"\xff\xd8" + b"".join(before) + size


JPEG: Final = jpeg(segment(0xE0, b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"), segment(0xDB, bytes(65)))


def png(width: int, height: int) -> bytes:
    """The header of a PNG of this size."""
    return PNG[:16] + struct.pack(">II", width, height) + PNG[24:]


def whole(width: int, height: int) -> bytes:
    """A PNG that can be decoded: grey, all of it."""
    rows = zlib.compress((b"\0" + b"\x80" * (3 * width)) * height)
    parts = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b""))
    return PNG[:8] + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def url(picture: bytes, kind: str = "image/png") -> str:
    """A picture as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(picture).decode()}"

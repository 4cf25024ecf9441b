"""The address of an image -> what its own first bytes say: kind and size; nothing is fetched, and no pixel decoded.

Of a `data:` URL only the characters that hold its header are decoded, wherever in it they stand.
Source: PNG (RFC 2083), JPEG (ITU T.81), GIF89a, WebP (RFC 9649); SOURCES#images.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, NamedTuple

# What begins a picture that is given in place. Parameters beside the media type are allowed, and mean nothing here.
_INLINE: Final = re.compile(r"data:image/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,", re.ASCII | re.IGNORECASE)
_ADDRESS: Final = re.compile(r"https?://[^\s/]", re.ASCII | re.IGNORECASE)
# The longest address that upstream fetches (SOURCES#images).
LONGEST_ADDRESS: Final = 8_192
# A photograph has some twenty parts before its size; more than this only costs time, and a call may have 600 of them.
MOST_SEGMENTS: Final = 64
# Frames of a JPEG that say its size: all but those that define tables (T.81, table B.1).
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers that stand alone, without a length: they may be repeated.
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_FILL: Final = 0xFF
# How pictures begin that no upstream takes: BMP, TIFF, icons, SVG; HEIC and AVIF say it behind a length.
OTHER_KINDS: Final = (b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0", b"<svg", b"<?xml")
_HEADER_BYTES: Final = 32
# As far as a frame's height and width.
_SEGMENT_BYTES: Final = 9


class Header(NamedTuple):
    """What a picture says of itself.

    kind:   `png`, `jpeg`, `gif` or `webp`
    width:  in pixels; height: likewise
    """

    kind: str
    width: int
    height: int


class UnreadableError(ValueError):
    """No picture of a kind that is known here, or none at all."""


class UnknownKindError(UnreadableError):
    """A picture, but of a kind that no upstream takes."""


def is_inline(url: str) -> bool:
    """Whether the address is the picture itself."""
    return url[:5].lower() == "data:"


def is_address(url: str) -> bool:
    """Whether it is one that an upstream could fetch."""
    return len(url) <= LONGEST_ADDRESS and _ADDRESS.match(url) is not None


def header(url: str) -> Header:
    """Read the header of a picture in a `data:` URL; raises `UnreadableError`."""
    found = _INLINE.match(url, 0, 256)
    if found is None:
        raise UnreadableError("no image in base64")
    picture = _Bytes(url, found.end())
    first = picture.at(0, _HEADER_BYTES)
    for kind, begins, size in (("png", _is_png, _png), ("gif", _is_gif, _gif), ("webp", _is_webp, _webp)):
        if begins(first):
            return Header(kind, *size(first))
    if first[:2] == b"\xff\xd8":
        return Header("jpeg", *_jpeg(picture))
    if first.startswith(OTHER_KINDS) or first[4:8] == b"ftyp":
        raise UnknownKindError("of a kind that is not taken")
    raise UnreadableError("of no known kind")


class _Bytes:
    """Bytes in base64 that are decoded where they are asked for."""

    def __init__(self, url: str, start: int) -> None:
        self._url = url
        self._start = start

    def at(self, offset: int, count: int) -> bytes:
        """Bytes from there on; fewer at the end."""
        block = offset // 3
        begin = self._start + 4 * block
        encoded = self._url[begin : begin + 4 * (count // 3 + 2)]
        try:
            decoded = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise UnreadableError("broken base64") from None
        return decoded[offset - 3 * block :][:count]


def _is_png(first: bytes) -> bool:
    return first[:8] == b"\x89PNG\r\n\x1a\n" and first[12:16] == b"IHDR"


def _png(first: bytes) -> tuple[int, int]:
    return _big(first, 16, 4), _big(first, 20, 4)


def _is_gif(first: bytes) -> bool:
    return first[:6] in (b"GIF87a", b"GIF89a")


def _gif(first: bytes) -> tuple[int, int]:
    return _little(first, 6, 2), _little(first, 8, 2)


def _is_webp(first: bytes) -> bool:
    return first[:4] == b"RIFF" and first[8:12] == b"WEBP"


def _webp(first: bytes) -> tuple[int, int]:
    match first[12:16]:
        case b"VP8X":
            return 1 + _little(first, 24, 3), 1 + _little(first, 27, 3)
        case b"VP8L":
            bits = _little(first, 21, 4)
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            return _little(first, 26, 2) & 0x3FFF, _little(first, 28, 2) & 0x3FFF
    raise UnreadableError("a WebP without a picture")


def _jpeg(picture: _Bytes) -> tuple[int, int]:
    offset = 2
    for _ in range(MOST_SEGMENTS):
        segment = picture.at(offset, _SEGMENT_BYTES)
        begin, marker = _big(segment, 0, 1), _big(segment, 1, 1)
        if begin != _FILL:
            break
        if marker == _FILL:
            offset += 1
        elif marker in _ALONE:
            offset += 2
        elif marker in _FRAMES:
            return _big(segment, 7, 2), _big(segment, 5, 2)
        else:
            offset += 2 + max(2, _big(segment, 2, 2))
    raise UnreadableError("a JPEG without a size")


def _big(held: bytes, start: int, count: int) -> int:
    return _number(held, start, count, "big")


def _little(held: bytes, start: int, count: int) -> int:
    return _number(held, start, count, "little")


def _number(held: bytes, start: int, count: int, order: str) -> int:
    part = held[start : start + count]
    if len(part) < count:
        raise UnreadableError("cut off in its header")
    return int.from_bytes(part, "big" if order == "big" else "little")

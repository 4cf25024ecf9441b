"""The size of a picture is read from its header, wherever that is, and nothing else of it (spec REQ-4)."""

from __future__ import annotations

import base64
import struct
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import pictures
from tests.pictures import HEIGHT, WIDTH, jpeg, segment, url
from translators import images

EXIF = segment(0xE1, b"Exif" + bytes(60_000))
PICTURES = {
    "png": ("png", pictures.PNG),
    "gif": ("gif", pictures.GIF),
    "gif of 1987": ("gif", b"GIF87a" + pictures.GIF[6:]),
    "webp, lossy": ("webp", pictures.WEBP_LOSSY),
    "webp, lossless": ("webp", pictures.WEBP_LOSSLESS),
    "webp, extended": ("webp", pictures.WEBP_EXTENDED),
    "jpeg": ("jpeg", pictures.JPEG),
    "jpeg, progressive": ("jpeg", jpeg(frame=0xC2)),
    "jpeg behind a preview and other large parts": ("jpeg", jpeg(EXIF, EXIF, segment(0xC4, bytes(30)))),
    "jpeg with lone markers": ("jpeg", jpeg(b"\xff\x01", b"\xff\xd0\xff\xd7", segment(0xFE, b"x"))),
    "jpeg with tables of every kind": ("jpeg", jpeg(*(segment(kind, bytes(9)) for kind in (0xC4, 0xC8, 0xCC, 0xDB)))),
    "jpeg with a part that says less than its own length": ("jpeg", jpeg(b"\xff\xfe\x00\x00", b"\xff\xfe\x00\x01")),
    "jpeg with as many parts as are read": ("jpeg", jpeg(*[segment(0xFE, b"")] * (images.MOST_SEGMENTS - 1))),
    "jpeg with filling before a marker, and a lone one": ("jpeg", jpeg(b"\xff\xff\xff\xd0", b"\xff\xff\xfe\x00\x03x")),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("tail", [b"", b"\x00" * 40_000], ids=["the header alone", "with pixels"])
def test_kind_and_size_are_what_the_picture_says(name: str, tail: bytes) -> None:
    kind, picture = PICTURES[name]
    assert images.header(url(picture + tail)) == (kind, WIDTH, HEIGHT)


def test_the_label_is_not_believed() -> None:
    assert images.header(url(pictures.PNG, "image/jpeg")).kind == "png"
    assert images.header(url(pictures.PNG, "IMAGE/x-icon;charset=utf-8;name=a.png")).kind == "png"


BROKEN = {
    "not base64": "data:image/png,%89PNG",
    "not an image": url(pictures.PNG, "text/plain"),
    "nothing in it": "data:image/png;base64,",
    "no base64 behind the comma": "data:image/png;base64,iVBO Rw0KG",
    "other letters": "data:image/png;base64,\u00e9\u00e9\u00e9\u00e9",
    "cut off in its header": url(pictures.PNG[:20]),
    "cut off in its size": url(pictures.JPEG[:-9]),
    "a document": url(b"%PDF and so on and on and on"),
    "a bitmap": url(b"BM" + bytes(60)),
    "half of what begins a png": url(pictures.PNG[:12] + b"IDAT" + pictures.PNG[16:] + bytes(20)),
    "the other half": url(b"\x89PNG\r\n\x1a\0" + pictures.PNG[8:] + bytes(20)),
    "half of what begins a webp": url(pictures.WEBP_EXTENDED[:8] + b"WAVE" + pictures.WEBP_EXTENDED[12:]),
    "the other half of that": url(b"RIFX" + pictures.WEBP_EXTENDED[4:]),
    "a webp without a picture": url(b"RIFF\x00\x00\x00\x00WEBPICCP" + bytes(20)),
    "a jpeg that ends": url(b"\xff\xd8\xff\xd9"),
    "a jpeg with something between its parts": url(b"\xff\xd8\x00\x00" + bytes(30)),
    "a jpeg of nothing but parts": url(jpeg(*[segment(0xFE, b"")] * images.MOST_SEGMENTS)),
}


@given(st.integers(1, 16_383), st.integers(1, 16_383))
def test_every_size_that_a_kind_can_say_is_read(width: int, height: int) -> None:
    """PNG, GIF and JPEG say more; a WebP has fourteen bits for a side, beside others that are no size."""
    less = width - 1, height - 1
    lossless = struct.pack("<I", less[0] | less[1] << 14 | 1 << 28)
    lossy = struct.pack("<HH", width | 1 << 14, height | 2 << 14)
    extended = b"".join(struct.pack("<I", side)[:3] for side in less)
    for kind, picture in (
        ("png", pictures.png(width, height)),
        ("gif", b"GIF89a" + struct.pack("<HH", width, height)),
        ("jpeg", jpeg(width=width, height=height)),
        ("webp", pictures.WEBP_LOSSLESS[:21] + lossless),
        ("webp", pictures.WEBP_LOSSY[:26] + lossy),
        ("webp", pictures.WEBP_EXTENDED[:24] + extended),
    ):
        # As its first bytes alone, and with something behind them.
        assert images.header(url(picture)) == images.header(url(picture + b"\xff\xd8")) == (kind, width, height)


@pytest.mark.parametrize("frame", sorted({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}))
def test_a_jpeg_says_its_size_in_a_frame_of_any_kind(frame: int) -> None:
    assert images.header(url(jpeg(frame=frame))) == ("jpeg", WIDTH, HEIGHT)


@pytest.mark.parametrize("marker", [0x01, *range(0xD0, 0xD8)])
def test_a_marker_of_a_jpeg_that_has_no_length_is_stepped_over(marker: int) -> None:
    # A length would be that of what follows, and lead far away.
    assert images.header(url(jpeg(bytes([0xFF, marker])))) == ("jpeg", WIDTH, HEIGHT)


@pytest.mark.parametrize(("head_chars", "is_read"), [(256, True), (257, False)])
def test_what_stands_before_a_picture_is_no_longer_than_a_media_type(head_chars: int, *, is_read: bool) -> None:
    kind = "image/png;name="
    address = url(pictures.PNG, kind + "x" * (head_chars - len("data:;base64,") - len(kind)))
    if is_read:
        assert images.header(address).kind == "png"
    else:
        with pytest.raises(images.UnreadableError):
            images.header(address)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_picture_is_named_as_such(name: str) -> None:
    with pytest.raises(images.UnreadableError):
        images.header(BROKEN[name])


@pytest.mark.parametrize(
    "first",
    [b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0", b"<svg xmlns=", b'<?xml version="1.0"?><svg', b"\0\0\0\x18ftypheic"],
)
def test_a_picture_of_another_kind_is_told_from_what_is_none(first: bytes) -> None:
    with pytest.raises(images.UnknownKindError):
        images.header(url(first + bytes(60)))


@given(
    st.binary(max_size=200), st.sampled_from([b"", *(picture for _, picture in PICTURES.values())]), st.integers(0, 40)
)
def test_no_bytes_are_more_than_unreadable(noise: bytes, picture: bytes, kept: int) -> None:
    try:
        found = images.header(url(picture[:kept] + noise))
    except images.UnreadableError:
        return
    assert found.kind in {"png", "jpeg", "gif", "webp"}


def test_a_picture_costs_no_more_than_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 60 kB are stepped over, and 10 MB behind the size never looked at."""
    decoded = 0

    def decode(encoded: str, *, validate: bool) -> bytes:
        nonlocal decoded
        decoded += len(encoded)
        return base64.b64decode(encoded, validate=validate)

    large = url(jpeg(*[EXIF] * 50) + bytes(10 << 20))
    monkeypatch.setattr(images, "base64", SimpleNamespace(b64decode=decode))
    assert images.header(large) == ("jpeg", WIDTH, HEIGHT)
    assert decoded < 2_000


@pytest.mark.parametrize(
    ("address", "is_one"),
    [
        ("https://example.org/a.png?x=1", True),
        ("HTTP://127.0.0.1/a", True),
        ("https://", False),
        ("https:///a.png", False),
        ("http:// a/b", False),
        ("oss://dashscope-instant/a.png", False),
        ("file:///etc/passwd", False),
        ("a.png", False),
        ("", False),
        ("https://a/" + "b" * (images.LONGEST_ADDRESS - len("https://a/")), True),
        ("https://a/" + "b" * (images.LONGEST_ADDRESS - len("https://a/") + 1), False),
        ("data:image/png;base64,AAAA", False),
    ],
)
def test_an_address_is_one_that_upstream_could_fetch(address: str, *, is_one: bool) -> None:
    assert images.is_address(address) is is_one


def test_a_picture_in_place_begins_so_in_any_case() -> None:
    assert images.is_inline("DATA:image/png;base64,AAAA")
    assert not images.is_inline("https://a/data:")


def test_sizes_of_every_number_of_bytes_are_read() -> None:
    assert images.header(url(pictures.png(8_192, 1))) == ("png", 8_192, 1)
    wide = pictures.WEBP_EXTENDED[:24] + struct.pack("<I", 8_191)[:3] + struct.pack("<I", 0)[:3] + bytes(8)
    assert images.header(url(wide)) == ("webp", 8_192, 1)

"""An image is as many tokens as the vendor's own preprocessing makes of it (SOURCES#images)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import pictures
from translators.deepseek import image_tokens

# `MultiModalData.image_token_adjustment` of deepseek-recipe 0.2.0, and one for the placeholder.
SIZES = [
    *[(1, 1, 184), (10, 10, 184), (224, 224, 184), (512, 512, 184), (543, 545, 184), (544, 544, 184)],
    *[(640, 480, 206), (800, 600, 317), (1024, 768, 496), (768, 1024, 502), (1280, 720, 578), (1920, 1080, 968)],
    *[(1080, 1920, 986), (2048, 2048, 994), (8192, 8192, 994), (4000, 3000, 1001)],
    # Shrunk with a scale of their own shape, not of whole patches.
    *[(1050, 2612, 942), (702, 4936, 938), (7131, 1590, 898), (5518, 470, 965)],
    # Blown up, once or step by step, or as far as it goes.
    *[(30, 899, 286), (13, 768, 305), (436, 196, 191), (706, 12, 206), (5, 6731, 1010), (14, 5230, 506)],
    *[(20, 8000, 522), (8000, 20, 263), (1, 8192, 1024), (8192, 1, 1024)],
]
# The same behind the preprocessing for `detail: "low"`.
LOW = [
    *[(300, 200, 189), (512, 512, 184), (513, 100, 188), (850, 2631, 209), (2141, 2234, 198)],
    *[(2968, 1854, 200), (782, 2329, 209), (404, 2960, 218), (1, 600, 590)],
]


@pytest.mark.parametrize(("width", "height", "tokens"), SIZES)
def test_a_size_counts_as_the_vendors_renderer_counts_it(width: int, height: int, tokens: int) -> None:
    assert image_tokens.count(width, height) == tokens
    assert image_tokens.count(width, height, "high") == tokens


@pytest.mark.parametrize(("width", "height", "tokens"), LOW)
def test_an_image_that_is_only_glanced_at_is_made_to_fit_first(width: int, height: int, tokens: int) -> None:
    assert image_tokens.count(width, height, "low") == tokens


@pytest.mark.parametrize(
    ("size", "fitted"), [((1, 8_192), (1, 512)), ((8_192, 5), (512, 1)), ((600, 450), (512, 384)), ((3, 513), (3, 512))]
)
def test_what_an_image_is_made_to_fit_in_has_a_pixel_at_the_least(
    size: tuple[int, int], fitted: tuple[int, int]
) -> None:
    assert image_tokens.count(*size, "low") == image_tokens.count(*fitted)


def test_the_pictures_of_the_tests_count_as_they_say() -> None:
    assert image_tokens.count(pictures.WIDTH, pictures.HEIGHT) == pictures.TOKENS


@given(st.integers(1, 8_192), st.integers(1, 8_192), st.sampled_from([None, "low"]))
def test_every_size_has_a_count_within_its_bounds(width: int, height: int, detail: str | None) -> None:
    assert 100 < image_tokens.count(width, height, detail) <= image_tokens.MOST_TOKENS

"""What is answered beside the calls: the models there are, a page at a time, and the tokens of a prompt (spec HTTP-12).

As the SDK's `Models`, `Tokenization` and v2 `client.models` read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from translators import faults
from translators.dashscope import kinds
from translators.dialogue import Json

PAGE_SIZE: Final = 20
LARGEST_PAGE: Final = 100
# So that no page is beyond what a client can count.
LAST_PAGE: Final = 1_000_000


def models(names: Sequence[str], query: Mapping[str, str], request_id: str) -> bytes:
    """One page of the models.

    names: those of this key, filtered by the query's `model` already
    """
    number = _within(query, "page_no", 1, LAST_PAGE)
    size = _within(query, "page_size", PAGE_SIZE, LARGEST_PAGE)
    shown = names[(number - 1) * size : number * size]
    page = {
        "total": len(names),
        "page_no": number,
        "page_size": size,
        "models": [{"model": name, "provider": "deepseek"} for name in shown],
    }
    return orjson.dumps({"output": page, "request_id": request_id})


def tokens(ids: Sequence[int], texts: Sequence[str], input_tokens: int, request_id: str) -> bytes:
    """The tokens of a text.

    texts:        what each of them stands for
    input_tokens: of the whole prompt the text is in
    """
    shown: Json = {
        "output": {"token_ids": ids, "tokens": texts},
        "usage": {"input_tokens": input_tokens},
        "request_id": request_id,
    }
    return orjson.dumps(shown)


def _within(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    if not query.get(name):
        return default
    value = kinds.integer(query[name], name)
    if not 1 <= value <= most:
        raise faults.Refusal(faults.invalid(f"Range of {name} should be [1, {most}]"))
    return value

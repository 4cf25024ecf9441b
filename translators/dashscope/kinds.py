"""A raw JSON value -> a value of the type its field wants, or the service's sentence about the wrong type.

Every reader takes the value and the dotted path its refusal names (spec "Parameters", the paragraph above the table).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence, Set
from typing import Any

from translators import faults
from translators.dialogue import Json

# Plain decimals only: Python's own parsers also take "nan", "inf", "1_000" and other scripts' digits.
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# Python refuses to parse longer integers than this (it may be set as low as 640 digits); no range comes near.
INTEGER = re.compile(r"[+-]?\d{1,640}", re.ASCII)


def unread(given: Json, read: Set[str]) -> Sequence[str]:
    """The names in an object that nobody reads; null counts as not given (spec HTTP-8)."""
    if given.keys() <= read:
        # As in nearly every call.
        return ()
    names = []
    for name, value in given.items():
        if name not in read and value is not None:
            names.append(name)  # a comprehension is one call more for every call
    return names


def number(value: Any, path: str) -> float:
    """A float; a numeric string counts as one, a bool does not."""
    if isinstance(value, str):
        if NUMBER.fullmatch(value) and math.isfinite(parsed := float(value)):
            return parsed
        raise wrong(f"number, unable to parse string as a number: {path}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(f"number: {path}")
    return float(value)


def integer(value: Any, path: str) -> int:
    """An int; a string of digits counts as one, so does a float without a fraction, a bool does not."""
    if isinstance(value, str):
        if INTEGER.fullmatch(value):
            return int(value)
        raise wrong(f"integer, unable to parse string as an integer: {path}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(f"integer: {path}")
    if isinstance(value, float) and not value.is_integer():
        raise wrong(f"integer, got a number with a fractional part: {path}")
    return int(value)


def boolean(value: Any, path: str) -> bool:
    """True or false; no word and no number stands for them."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str | int | float):
        raise wrong(f"boolean, unable to interpret input: {path}")
    raise wrong(f"boolean: {path}")


def string(value: Any, path: str) -> str:
    """A string."""
    if not isinstance(value, str):
        raise wrong(f"string: {path}")
    return value


def sequence(value: Any, path: str) -> list[Any]:
    """A list, its items unseen."""
    if not isinstance(value, list):
        raise wrong(f"list: {path}")
    return value


def bounded(value: Any, path: str, most: int) -> list[Any]:
    """A list of at most `most` items: each costs work that its few bytes do not pay for."""
    if len(listed := sequence(value, path)) > most:
        raise faults.Refusal(faults.invalid(f"List should have at most {most} items: {path}"))
    return listed


def dictionary(value: Any, path: str) -> Json:
    """A JSON object, its fields unseen."""
    if not isinstance(value, dict):
        raise wrong(f"dictionary: {path}")
    return value


def anything(value: Any, path: str) -> Any:  # noqa: ARG001 - the shape every reader has
    """The value as it is, for a field whose own rule has a text for the wrong type too."""
    return value


def required(holder: Json, field: str, path: str) -> Any:
    """A field of the object at `path`, its type unseen; refuses an object without it, null and empty text alike."""
    value = holder.get(field)
    if value is None or value == "":
        raise faults.Refusal(faults.invalid(f"Field required: {path}.{field}"))
    return value


def wrong(what: str) -> faults.Refusal:
    """The refusal of a value of the wrong type, in the service's words."""
    return faults.Refusal(faults.invalid(f"Input should be a valid {what}"))

"""The docstring of a shape -> a sentence for each field, for the command line's help and for the OpenAPI document."""

from __future__ import annotations

import inspect
import re


def of(shape: type) -> dict[str, str]:
    """What the docstring's lines `field: sentence` say, by field; a sentence may go on in indented lines."""
    lines = re.findall(r"^(\w+):[ ]+(.+(?:\n[ ]+.+)*)", inspect.cleandoc(shape.__doc__ or ""), re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in lines}

"""Claims about published clients: what their users see of us, before the simulator and before a real llama.cpp.

Each client lives in an environment of its own (`prepare`), where a script makes all calls of a table and prints what
its user saw. What upstream said to each call is composed once more here, from the body that reached it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import aiohttp
import pytest

from proxy import imitation, local
from translators import faults, tokens

Json = dict[str, Any]

ROOT = Path(local.__file__).parents[1]
HERE = Path(__file__).parent
CALLS_TIMEOUT_S = 60.0
KEY = "sk-right"

# Several bytes to a character, several tokens to a character, white space on both sides and twice in a row.
TEXT = " Grüße,  世界 🧑‍🚀:\n\n1 < 2 && \"x\"\t\\n done.\n"
CHAIN = "First 我想想…\n\nthen 🤔 this. "
TOOLS = ('get_weather {"city": "杭州 Hangzhou", "days": 2}', 'get_time {"zone": "Asia/Shanghai"}')
OFFERED = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Tell the {of}.",
            "parameters": {"type": "object", "properties": {of: {"type": "string"}}, "required": [of]},
        },
    }
    for name, of in (("get_weather", "city"), ("get_time", "zone"))
]

Shown = Literal["reply", "deltas", "snapshots"]


@dataclass(frozen=True, slots=True)
class Case:
    """One call, in the words of `Generation.call`.

    shown:     how the answer comes: whole, in deltas, or as all of it so far again and again
    arguments: of the call; the model is deepseek-v3 unless they name another
    switches:  what the simulator is to do, the text left out
    """

    shown: Shown
    arguments: Json
    switches: Json = field(default_factory=dict)


REPLY: Json = {"stream": False}
DELTAS: Json = {"stream": True, "incremental_output": True}
# What a stream is if nobody says anything (spec PAR-13).
SNAPSHOTS: Json = {"stream": True}
# Said explicitly, newer SDKs ask for deltas and put them together themselves (wire.md D).
MERGED: Json = {"stream": True, "incremental_output": False}
R1: Json = {"model": "deepseek-r1"}
BOTH: Json = {"tools": OFFERED, "parallel_tool_calls": True}
TWICE: Json = {"n": 2}
PROBABLE: Json = {"logprobs": True, "top_logprobs": 2}

CASES: Mapping[str, Case] = {
    "reply": Case("reply", REPLY),
    "deltas": Case("deltas", DELTAS),
    "snapshots": Case("snapshots", SNAPSHOTS),
    "merged": Case("snapshots", MERGED),
    "cut reply": Case("reply", REPLY | {"max_tokens": 5}),
    "cut deltas": Case("deltas", DELTAS | {"max_tokens": 5}),
    "thinking deltas": Case(
        "deltas", DELTAS | {"model": "deepseek-v3.2", "enable_thinking": True}, {"reasoning": CHAIN}
    ),
    "r1 reply": Case("reply", REPLY | R1, {"reasoning": CHAIN}),
    "r1 deltas": Case("deltas", DELTAS | R1, {"reasoning": CHAIN}),
    "r1 snapshots": Case("snapshots", SNAPSHOTS | R1, {"reasoning": CHAIN}),
    "r1 merged": Case("snapshots", MERGED | R1, {"reasoning": CHAIN}),
    "tools reply": Case("reply", REPLY | BOTH, {"tools": TOOLS}),
    "tools deltas": Case("deltas", DELTAS | BOTH, {"tools": TOOLS}),
    "tools snapshots": Case("snapshots", SNAPSHOTS | BOTH, {"tools": TOOLS}),
    "tools merged": Case("snapshots", MERGED | BOTH, {"tools": TOOLS}),
    "n reply": Case("reply", REPLY | TWICE),
    "n deltas": Case("deltas", DELTAS | TWICE),
    "n snapshots": Case("snapshots", SNAPSHOTS | TWICE),
    "n merged": Case("snapshots", MERGED | TWICE),
    "logprobs reply": Case("reply", REPLY | PROBABLE),
    "logprobs deltas": Case("deltas", DELTAS | PROBABLE),
}

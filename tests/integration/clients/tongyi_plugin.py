"""The calls of Dify's Tongyi plugin, by the SDK that it uses, into what it reads of the answers.

`python tongyi_plugin.py` reads from standard input `{"base_address": URL or null, "calls": [arguments of
Generation.call, …]}`. Null is what plugins say that leave the address to the SDK, and so to its environment.
"""

from __future__ import annotations

import json
import sys
from http import HTTPStatus
from typing import Any

from dashscope import Generation


def answered(arguments: dict[str, Any], base_address: str | None) -> dict[str, Any]:
    """One call, and what its user is shown: the text or the first failure, the tools, the figures."""
    got = Generation.call(**arguments, result_format="message", base_address=base_address)
    text, tools, finish, usage = "", [], "", {}
    for packet in got if arguments["stream"] else [got]:
        if packet.status_code != HTTPStatus.OK:
            return {"status": int(packet.status_code), "message": packet.message}
        choice = packet.output.choices[0]
        said = choice.message.content
        text = text + said if arguments["incremental_output"] else said
        if "tool_calls" in choice.message:
            tools = [made["function"] for made in choice.message["tool_calls"]]
        finish, usage = choice.finish_reason, dict(packet.usage)
    return {"status": int(HTTPStatus.OK), "text": text, "tools": tools, "finish": finish, "usage": usage}


asked = json.load(sys.stdin)
json.dump([answered(call, asked["base_address"]) for call in asked["calls"]], sys.stdout)

"""What each check of a gateway claims, whom it hurts where it does not hold, and the sentence it stands on; in words.

The checks are rows of `proxy.protocol.conformance`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxy.protocol.phrases import Words

SENTENCES: Final[Mapping[str, Words]] = {
    "": (
        "Inputs, outputs and fields of the DashScope protocol must be implemented as the documents say.",
        "dashscope协议具体的输入输出格式、各字段都需要按照文档进行实现，以确保用户的使用",
    ),
    "HTTP-5": (
        "X-DashScope-SSE or Accept: text/event-stream, either one.",
        "跟Accept: text/event-stream 二选一即可启用SSE响应",
    ),
    "ERR": (
        "Error codes must be mapped to DashScope's; a vendor's are a subset of them.",
        "错误码需要与dashscope进行映射，确保三方模型厂商的错误码是dashscope的子集",
    ),
    "USE": ("Every packet of a stream shows usage.", "保证sse每包都透出usage信息"),
    "SSE-9": (
        "Every packet of a stream needs input_tokens, output_tokens and total_tokens.",
        "流式返回的usage每一个包都需要包含：input_tokens/output_tokens/total_tokens",
    ),
    "OUT-1": ("The output is the message form throughout.", "出参统一都是message版本"),
    "OUT-2": (
        "null while generating, stop at a stop token, length at the length limit.",
        "正在生成时为null，生成结束时如果由于停止token导致则为stop，生成结束时如果因为生成长度过长导致则为length。",
    ),
    "OUT-4": (
        "total_tokens is the sum of input_tokens and output_tokens.",
        "当输入为纯文本时返回该字段，为input_tokens与output_tokens之和。",
    ),
    "REQ-2": (
        "prompt is old and messages new; both must be supported.",
        "prompt是老协议，message新协议，但是都需要支持协议的兼容。",
    ),
    "PAR-1": ("Range: [0, 2).", "取值范围： [0, 2)"),
    "PAR-5": (
        "Where more would be generated, generation stops and finish_reason is length.",
        "若生成内容超过此值，生成将提前停止，且返回的finish_reason为length。",
    ),
    "PAR-8": ("The number of answers, 1 to 4.", "生成响应的个数，取值范围是1-4。"),
    "PAR-9": (
        "Generation ends at once where a stop appears.",
        "当模型生成的文本中出现stop 指定的字符串或token_id时，生成将立即终止。",
    ),
    "PAR-10": ("Range: [0, 5].", "取值范围：[0,5]"),
    "PAR-13": ("Whether a stream's output is incremental.", "在流式输出模式下是否开启增量输出。"),
    "PAR-14": ("Whether to think before answering.", "生成时是否进行思考。"),
    "PAR-17": (
        "Without thinking auto, required and none, and JSON; with thinking auto and none.",
        "非thinking时候支持auto\\required\\none\\还有json。thinking时候支持auto和none",
    ),
    "PAR-18": (
        "parallel_tool_calls: all the functions to call come back.",
        "可设置请求参数parallel_tool_calls为true，这样返回对象中将包含所有需要调用的工具函数与入参信息。",
    ),
}

# Rules that no request from outside can show, each with the reason.
UNCHECKED: Final[Mapping[str, str]] = {
    "HTTP-13": "a log line and a metric: seen by the operator alone",
    "HTTP-14": "framing that a plain client cannot send",
    "HTTP-15": "a door for browsers that a gateway need not have",
    "REQ-7": "what goes to the model's server, which a caller does not see",
    "REQ-8": "no check of its own: the prefix is part of each text of the group texts",
    "REQ-10": "what goes to the model's server, which a caller does not see",
    "REQ-9": "a history of our own making; answers to a broken one differ between versions of the service",
    "REQ-11": "a limit of memory: to show it costs what it forbids",
    "MOD-1": "a table of models; each is a target of its own",
    "MOD-3": "a setting of the operator",
    "MOD-4": "an input too long costs as many tokens as the window has",
    "MOD-5": "a setting of the operator",
    "MOD-6": "a name with a date is a model of its own elsewhere",
    "OUT-3": "a fault of the model's server, which cannot be provoked from outside",
    "OUT-9": "a chain is not as long as one would like it to be",
    "OUT-10": "a setting of the operator",
    "SSE-8": "the order in which a model's server says it; its effect is USE-1",
    "USE-3": "what a model's server reports",
    "USE-4": "what a model's server reports",
    "USE-5": "what is learned over many calls",
    "USE-6": "the vocabulary; its effect is USE-2",
    "USE-7": "markup of tools: not to be counted without knowing which template the server runs",
    "USE-8": "a bound of memory and time",
    "ERR-3": "a fault of the model's server, which cannot be provoked from outside",
    "ERR-4": "a fault of the model's server, which cannot be provoked from outside",
    "ERR-5": "waits of minutes",
    "ERR-6": "framing that a plain client cannot send",
    "COM-1": "the path; every check of this tongue asks it",
    "COM-4": "the order of faults, which no caller relies on",
    "COM-5": "the service answers a body that is no JSON in another form than it answers all else",
    "COM-9": "names of other services for thinking, which the service itself need not read",
    "COM-11": "what goes to the model's server, which a caller does not see",
    "COM-24": "waits of seconds in which a model may well speak",
    "COM-27": "a table of faults; its rows that a caller can earn are COM-3, COM-6 and COM-8",
    "COM-28": "a setting of the operator",
    "COM-31": "books of the operator",
    "COM-32": "what both tongues share is checked in the other",
    "COM-33": "documents",
    "COM-34": "speed, which is no form",
}

BILLED: Final = "Callers and the platform bill by the last packet they saw; a cancelled call has no other figure."
SDK: Final = "The official SDKs read exactly this form; what differs is lost or read as an error."
BRANCH: Final = "Callers branch on status and code: a wrong one is retried, or not retried, wrongly."
STRINGS: Final = "Clients compare strings and index lists without looking twice."
SEARCHED: Final = "Users search for the sentence; some clients match on it."
LOOPS: Final = "Agents act on the calls they are told of; a broken one ends the loop."

# What a gateway that keeps the rule does, and who is hurt by one that does not.
CLAIMS: Final[Mapping[str, tuple[str, str]]] = {
    "endpoint": ("a JSON call is answered in one document", SDK),
    "reply-shape": ("output, usage and request_id alone; content a string", SDK),
    "reply-finish": ("a reply ends with stop or length", STRINGS),
    "request-id": ("every body has a request_id, a lower-case UUID", "Support asks for it first."),
    "request-id-header": (
        "x-request-id is the body's request_id",
        "Gateways before it log the header, users report the body.",
    ),
    "request-id-kept": ("a UUID the caller brings is kept", "Traces across services meet by it."),
    "json-type": ("a reply is application/json", SDK),
    "stream-type": ("a stream is text/event-stream", SDK),
    "stream-charset": ("a stream names UTF-8", "Old HTTP clients guess Latin-1."),
    "stream-cache": ("a stream is not to be cached", "Caches on the way hold a stream back."),
    "stream-buffering": ("x-accel-buffering: no", "nginx collects a stream without it."),
    "call-gateway": ("x-dashscope-call-gateway: true", "The service says it; nobody is known to read it."),
    "sse-accept": ("Accept: text/event-stream asks for a stream", "dashscopego and recorded calls ask by it alone."),
    "sse-content-type": (
        "Content-Type: text/event-stream asks for a stream",
        "The specification's own table allows it.",
    ),
    "sse-case": ("header names and values in any case", "HTTP/2 hops write names in lower case."),
    "sse-disable": ("X-DashScope-SSE: disable wins over Accept", "dashscope4j says disable with every JSON call."),
    "sse-body": ("stream in the body selects nothing", "Releases of the Python SDK leak it into JSON calls."),
    "unknown-path": ("an unknown path is 404 NotFound", BRANCH),
    "wrong-method": ("a wrong method is 400 InvalidParameter", BRANCH),
    "multimodal": ("the multimodal route refuses a text model: 400 InvalidParameter", BRANCH),
    "async": ("X-DashScope-Async is 403 AccessDenied", "A caller who waits for a task would wait for ever."),
    "encrypted": ("X-DashScope-EncryptionKey is 400 InvalidParameter", BRANCH),
    "ignored": (
        "headers, fields and parameters nobody knows are ignored",
        "Every SDK sends some; dashscope4j X-DashScope-Async: disable.",
    ),
    "stream-plain": ("a stream is not compressed, though it is offered", "Compressors hold packets back."),
    "gzip": ("a body in gzip is read", "Some HTTP clients compress long prompts."),
    "models": ("GET /models lists the models", "The SDK's Models.list reads it."),
    "tokenizer": ("POST /tokenizer tells tokens", "The SDK's Tokenization reads it."),
    "no-key": ("no key is 401 InvalidApiKey", BRANCH),
    "wrong-key": ("a wrong key is 401 InvalidApiKey", BRANCH),
    "x-api-key": ("x-api-key carries the key as well", "Some gateways pass keys on so."),
    "keep-alive": ("a connection serves a second call", "A TLS handshake for each call costs more than the call."),
    "http-1.0": ("HTTP/1.0 is answered", "nginx long spoke 1.0 to its upstreams unless told not to."),
    "expect": ("Expect: 100-continue is answered", "curl sends it before long bodies, and waits."),
    "hang-up": ("after a caller has left, the next call is unharmed", "Users press stop."),
    "frame": (
        "id:, event:, :HTTP_STATUS/, data:, no space behind colons, ids from 1, compact raw UTF-8",
        "The Python SDK recognises only event:error, without a space; others split at the colon.",
    ),
    "whole-frames": ("what is written ends with a frame", "Some clients parse chunk by chunk."),
    "error-frame": (
        "an error frame, if one comes, has its keys and an error status, and is the last",
        "An error with status 200 is read as an answer.",
    ),
    "one-end": ("exactly one packet ends a stream", "A stream that just ends looks complete."),
    "no-empty-packets": ("no packet says nothing", "Clients print a line per packet."),
    "heartbeats": ("a heartbeat is no event", "Clients dispatch an empty event, and parse it."),
    "packet-shape": ("a packet is output, usage and request_id; both sides strings", SDK),
    "packet-id": ("one request_id for a whole stream", "Support asks for it first."),
    "finish-word": ("finish_reason is the string null until the last packet", STRINGS),
    "incremental": ("incremental_output tells the text in pieces", "A user waits for all of it else."),
    "cumulative": ("without it, every packet has the text so far", "The default: the SDKs hand it on as it is."),
    "cumulative-whole": (
        "a packet begins with the one before it, both sides",
        "The Python SDK hands the last one on as the answer.",
    ),
    "usage-every-packet": ("input_tokens, output_tokens and total_tokens on every packet", BILLED),
    "usage-first": ("input_tokens is right from the first packet on", BILLED),
    "usage-running": ("output_tokens grows with the text", BILLED),
    "usage-falls": ("output_tokens never falls on the way", BILLED),
    "usage-sum": ("total_tokens is the sum, on every packet", BILLED),
    "usage-reply": ("a reply's figures are there and add up", BILLED),
    "usage-exact": ("the last output_tokens is the text's, within 2 tokens or 2 %", BILLED),
    "usage-exact-running": ("so is every packet's, within 4 tokens or 10 %", BILLED),
    "usage-prompt": ("input_tokens is the prompt's, within 128 tokens", BILLED),
    "no-tool": ("tool_choice none calls nothing", LOOPS),
    "auto-tool": ("a call has id, index, type, name and arguments in JSON", LOOPS),
    "one-tool": ("one call unless parallel_tool_calls is set", LOOPS),
    "parallel-tools": ("with it, calls have indices from 0", LOOPS),
    "tool-stream": ("fragments in order, the first with id and name", "Clients put fragments together by index."),
    "tool-cumulative": ("cumulative calls come once, complete", "Half of a call is not JSON."),
    "tool-stream-shape": ("a streamed call has its fields", LOOPS),
    "tool-loop": ("a tool's result is answered", LOOPS),
    "length": ("max_tokens cuts the answer, and says length", "Callers ask for the rest when they read it."),
    "stop": ("a stop ends the text before it", "Prompts of chains end at marks."),
    "logprobs": ("log probabilities beside the message", "Classifiers read them."),
    "json": ("json_object answers with one", "It is parsed without a look."),
    "schema": ("json_schema answers with an object", "It is parsed without a look."),
    "prompt": ("prompt is answered in the form of messages", "The oldest SDKs ask so."),
    "history": ("history is read beside a prompt", "The oldest SDKs ask so."),
    "parts": ("content as a list of texts is read", "LangChain and Dify send lists."),
    "prefix": ("a partial message is continued, with new text alone", "Editors put the two together."),
    "error-shape": ("an error is code, message and request_id", BRANCH),
    "error-codes": ("codes are the service's own", BRANCH),
    "body-invalid": ("a body that is no JSON is 400 InvalidParameter", BRANCH),
    "error-status": ("an SSE call refused has its true status and JSON", "SDKs raise by the status alone."),
    "model-name": ("a name's case and vendor do not matter", "Platforms put their own prefix before names."),
    "thinks": ("a call that thinks shows reasoning_content", "It is billed; users pay for what they cannot see."),
    "thinking-order": ("all reasoning precedes all content", "Clients close the box of the chain once."),
    "thinking-frames": ("frames of a thinking stream are frames", SDK),
    "thinking-details": ("reasoning_tokens, and text_tokens on hybrid models alone", BILLED),
    "thinks-not": ("enable_thinking false shows no reasoning", "It is off by default, for it costs."),
    "named-tool": ("a named function is called", LOOPS),
    "required-tool": ("tool_choice required calls one", LOOPS),
    "n": ("n answers, 0 to n - 1; the prompt counted once", STRINGS),
    "n-stream": ("in a stream one choice a packet, with its index", "The SDK sums packets by index."),
    "route-model": ("the path's model wins over the body's", "Partner routes name the model once."),
}


def sentence(rule: str) -> Words:
    """What the partner specification says of a rule, in English and in its own Chinese."""
    return SENTENCES.get(rule) or SENTENCES.get(rule.partition("-")[0]) or SENTENCES[""]

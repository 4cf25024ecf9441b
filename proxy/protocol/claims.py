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

SERVER_SIDE: Final[Words] = (
    "what goes to the model's server, which a caller does not see",
    "发往模型服务的内容，调用方看不到",
)
SERVER_FAULT: Final[Words] = (
    "a fault of the model's server, which cannot be provoked from outside",
    "模型服务的故障，无法从外部引发",
)
OPERATORS: Final[Words] = ("a setting of the operator", "运营方的设置")
REPORTED: Final[Words] = ("what a model's server reports", "模型服务报告的内容")
BOOKS: Final[Words] = ("the operator's own books, ports and processes", "运营方自己的账目、端口与进程")

# Rules that no request from outside can show, each with the reason.
UNCHECKED: Final[Mapping[str, Words]] = {
    "HTTP-13": ("a log line and a metric: seen by the operator alone", "日志行与指标：只有运营方看得到"),
    "HTTP-14": ("framing that a plain client cannot send", "普通客户端发不出的报文格式"),
    "HTTP-15": ("a door for browsers that a gateway need not have", "面向浏览器的入口，网关不必提供"),
    "REQ-7": SERVER_SIDE,
    "REQ-8": (
        "no check of its own: the prefix is part of each text of the group texts",
        "没有单独的检查：texts 组的每条文本都包含该前缀",
    ),
    "REQ-10": SERVER_SIDE,
    "REQ-9": (
        "a history of our own making; answers to a broken one differ between versions of the service",
        "自造的历史；对残缺历史的回答因服务版本而异",
    ),
    "REQ-11": ("a limit of memory: to show it costs what it forbids", "内存上限：验证它就要付出它所禁止的代价"),
    "MOD-1": ("a table of models; each is a target of its own", "模型表；每个模型各是一个检查目标"),
    "MOD-3": OPERATORS,
    "MOD-4": (
        "an input too long costs as many tokens as the window has",
        "过长的输入要花掉整个窗口的 token",
    ),
    "MOD-5": OPERATORS,
    "MOD-6": ("a name with a date is a model of its own elsewhere", "带日期的名称在别处是另一个模型"),
    "OUT-3": SERVER_FAULT,
    "OUT-9": ("a chain is not as long as one would like it to be", "思维链的长度无法随意指定"),
    "OUT-10": OPERATORS,
    "SSE-8": (
        "the order in which a model's server says it; its effect is USE-1",
        "模型服务给出的先后；其效果见 USE-1",
    ),
    "USE-3": REPORTED,
    "USE-4": REPORTED,
    "USE-5": ("what is learned over many calls", "在许多次调用中学到的内容"),
    "USE-6": ("the vocabulary; its effect is USE-2", "词表；其效果见 USE-2"),
    "USE-7": (
        "markup of tools: not to be counted without knowing which template the server runs",
        "工具标记：不知道服务端模板就无从计数",
    ),
    "USE-8": ("a bound of memory and time", "内存与时间的上限"),
    "ERR-3": SERVER_FAULT,
    "ERR-4": SERVER_FAULT,
    "ERR-5": ("waits of minutes", "要等若干分钟"),
    "ERR-6": ("framing that a plain client cannot send", "普通客户端发不出的报文格式"),
    "MET-1": BOOKS,
    "MET-2": BOOKS,
    "MET-3": BOOKS,
    "MET-4": BOOKS,
    "MET-6": BOOKS,
    "LIM-1": OPERATORS,
    "KEY-1": OPERATORS,
    "OPS-1": BOOKS,
    "OPS-2": BOOKS,
    "OPS-3": BOOKS,
    "COM-1": ("the path; every check of this tongue asks it", "路径；兼容接口的每项检查都会用到"),
    "COM-4": ("the order of faults, which no caller relies on", "错误的先后，没有调用方依赖它"),
    "COM-5": (
        "the service answers a body that is no JSON in another form than it answers all else",
        "对非 JSON 请求体，该服务的回答与其他错误形式不同",
    ),
    "COM-9": (
        "names of other services for thinking, which the service itself need not read",
        "其他服务的思考开关名，该服务不必识别",
    ),
    "COM-11": SERVER_SIDE,
    "COM-24": ("waits of seconds in which a model may well speak", "要等数秒，其间模型可能已经开口"),
    "COM-27": (
        "a table of faults; its rows that a caller can earn are COM-3, COM-6 and COM-8",
        "错误表；调用方能引发的各行见 COM-3、COM-6 与 COM-8",
    ),
    "COM-28": OPERATORS,
    "COM-31": BOOKS,
    "COM-32": ("what both tongues share is checked in the other", "两种协议共有的部分由另一种协议检查"),
    "COM-33": ("documents", "文档"),
    "COM-34": ("speed, which is no form", "速度，不属于格式"),
}

# Families of rules, none of which a request can show.
UNCHECKED_FAMILIES: Final[Mapping[str, Words]] = {"POOL": OPERATORS}


def why_unchecked(rule: str) -> Words | None:
    """Why no check holds a rule from outside; None where nothing is said of it."""
    return UNCHECKED.get(rule) or UNCHECKED_FAMILIES.get(rule.partition("-")[0])


BILLED: Final = "Callers and the platform bill by the last packet they saw; a cancelled call has no other figure."
SDK: Final = "The official SDKs read exactly this form; what differs is lost or read as an error."
BRANCH: Final = "Callers branch on status and code: a wrong one is retried, or not retried, wrongly."
STRINGS: Final = "Clients compare strings and index lists without looking twice."
SEARCHED: Final = "Users search for the sentence; some clients match on it."
LOOPS: Final = "Agents act on the calls they are told of; a broken one ends the loop."
ALIASES: Final = "A limit that is not heard is paid for."

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
    "multimodal": ("the multimodal route answers in parts, or refuses a text model: 400 InvalidParameter", BRANCH),
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
    "hang-up-time": (
        "after a caller has left, the next call is answered as soon as any",
        "A gateway that generates on for nobody makes others wait.",
    ),
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
    "length-max_length": ("max_length is max_tokens", ALIASES),
    "length-max_completion_tokens": ("max_completion_tokens is max_tokens", ALIASES),
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

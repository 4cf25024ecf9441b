"""The words of the protocol document's tables, in both its languages.

The prose stands in the documents themselves; here is what the tables say beside what the code says
(`proxy.protocol.documents`).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from translators import faults


class Language(IntEnum):
    """A language of the document, as the position of its words in `Words`."""

    EN = 0
    ZH = 1


Words = tuple[str, str]

# The same of a parameter that is otherwise on the compatible surface.
TAKES_HERE: Final[Mapping[str, tuple[Words, Words]]] = {
    "seed": (("integer, [0, 2³¹−1]", "整数，[0, 2³¹−1]"), ("none", "无")),
}

# Type and range, and the value without the parameter; a test holds each range to the refusal of what is outside of it.
TAKES: Final[Mapping[str, tuple[Words, Words]]] = {
    "temperature": (("number, [0, 2)", "数值，[0, 2)"), ("the upstream's", "上游的默认值")),
    "top_p": (("number, (0, 1]", "数值，(0, 1]"), ("the upstream's", "上游的默认值")),
    "top_k": (("integer ≥ 0; 0 and > 100 are off", "整数 ≥ 0；0 与 > 100 为关闭"), ("off", "关闭")),
    "seed": (("integer, [0, 2⁶³−1]", "整数，[0, 2⁶³−1]"), ("none", "无")),
    "max_tokens": (
        ("integer, [1, answer limit]", "整数，[1, 回答上限]"),
        ("the model's answer limit", "模型的回答上限"),
    ),
    "repetition_penalty": (("number > 0", "数值 > 0"), ("the upstream's", "上游的默认值")),
    "presence_penalty": (("number, [−2, 2]", "数值，[−2, 2]"), ("the upstream's", "上游的默认值")),
    "frequency_penalty": (("number, [−2, 2]", "数值，[−2, 2]"), ("the upstream's", "上游的默认值")),
    "n": (
        ("integer, [1, 4]; 1 with tools or thinking", "整数，[1, 4]；有 tools 或思考时只能为 1"),
        ("1", "1"),
    ),
    "stop": (
        (
            "str, list[str], list[int], list[list[int]]; 512 characters each, 16,384 in all",
            "str、list[str]、list[int]、list[list[int]]；每个至多 512 字符，合计至多 16,384",
        ),
        ("none", "无"),
    ),
    "logprobs": (("boolean", "布尔"), ("false", "false")),
    "top_logprobs": (("integer, [0, 5]; needs logprobs", "整数，[0, 5]；需 logprobs"), ("none", "无")),
    "response_format": (
        ("object: text, json_object, json_schema", "对象：text、json_object、json_schema"),
        ("text", "text"),
    ),
    "result_format": (("`message` or `text`", "`message` 或 `text`"), ("message",) * 2),
    "incremental_output": (("boolean", "布尔"), ("false", "false")),
    "enable_thinking": (("boolean", "布尔"), ("false; true on r1", "false；r1 恒为 true")),
    "thinking_budget": (
        ("integer, [1, chain limit]", "整数，[1, 思维链上限]"),
        ("none", "无"),
    ),
    "tools": (("list of functions, at most 1,024", "函数列表，最多 1,024 个"), ("none", "无")),
    "tool_choice": (
        ("`auto`, `none`, `required`, or a named function", "`auto`、`none`、`required` 或指定函数"),
        ("auto", "auto"),
    ),
    "parallel_tool_calls": (("boolean", "布尔"), ("false", "false")),
    "tool_stream": (("boolean", "布尔"), ("false; true on the partner's route", "false；合作方路由为 true")),
    "enable_search": (("boolean; only false", "布尔；只能为 false"), ("false", "false")),
}

FACTS: Final[Mapping[str, Words]] = {
    "thinking": ("thinking switched off / on by", "关 / 开思考的字段"),
    "budget": ("who holds a thinking budget", "谁来执行思考预算"),
    "sampling": ("sampling fields it has", "支持的采样字段"),
    "efforts": ("words for an effort (low, high, max)", "思考强度用词（low、high、max）"),
    "efforts_v4": ("those words for V4 and later, where others", "V4 及以后的思考强度用词（若不同）"),
    "counts_chain": ("its `max_tokens` includes the chain", "其 `max_tokens` 含思维链"),
    "most_tokens": ("largest `max_tokens`", "`max_tokens` 最大值"),
    "most_choices": ("largest native `n`", "原生 `n` 最大值"),
    "most_stops": ("most stops", "停止串个数上限"),
    "stops_in_chain": ("a stop also ends the chain", "停止串会截断思维链"),
    "most_logprobs": ("largest `top_logprobs`", "`top_logprobs` 最大值"),
    "logprobs_beside_tools": ("logprobs beside tools in a stream", "流中 logprobs 可与 tools 并用"),
    "seeds": ("seed is taken modulo", "seed 取模"),
    "json_schema": ("json_schema native", "原生 json_schema"),
    "named_tool": ("tool_choice may name a function", "tool_choice 可指定函数"),
    "parallel_tools": ("knows parallel_tool_calls", "支持 parallel_tool_calls"),
    "stream_options": ("stream_options sent", "发送的 stream_options"),
    "continuation": ("prefix completion by", "前缀续写方式"),
    "repeats_prefix": ("JSON answer repeats the prefix", "JSON 回答重复前缀"),
    "keeps_reasoning": ("reads reasoning_content of the history", "读取历史中的 reasoning_content"),
    "counts_close": ("counts `</think>`", "计入 `</think>`"),
    "counts_end": ("counts the end-of-sentence token", "计入句末 token"),
    "tool_images": ("a tool's answer may hold images", "工具结果中可含图片"),
}

TRIGGERS: Final[Mapping[str, Words]] = {
    "BODY_INVALID": (
        "the body is not a JSON object, not plain or gzip, or came too slowly; the HTTP is malformed",
        "请求体不是 JSON 对象、编码不是原文或 gzip、到达过慢；HTTP 本身不合法",
    ),
    "MODEL_MISSING": ("no `model` in body or path", "请求体与路径里都没有 `model`"),
    "INPUT_MISSING": ("no `input`", "缺少 `input`"),
    "MODEL_UNKNOWN": ("no row and no alias of that name", "没有该名称的模型或别名"),
    "BODY_TOO_LARGE": (
        "the inflated body is over the limit, or upstream says so",
        "解压后的请求体超限，或上游如此答复",
    ),
    "WRONG_ENDPOINT": (
        "the model's row is bound to the other native path (section 8)",
        "该模型的行绑定在另一条原生路径上（第 8 节）",
    ),
    "NOT_TEXT": (
        "a part that is no text where no image is taken, here or upstream",
        "在不接受图片处给出了非文本片段（本端，或上游）",
    ),
    "IMAGES_TOO_LARGE": (
        "the images that come along are over `max_image_bytes`",
        "随请求附带的图片超过 `max_image_bytes`",
    ),
    "IMAGE_NOT_LOADED": (
        "an image's address is not http, https or `data:`, or upstream cannot fetch it",
        "图片地址不是 http、https 或 `data:`，或上游无法下载",
    ),
    "IMAGE_NOT_DECODED": ("an image that comes along has no header that can be read", "附带的图片没有可读的文件头"),
    "IMAGE_MISSHAPEN": ("an image has a side of 0 or of more than 8,192 pixels", "图片某一边为 0 或超过 8,192 像素"),
    "IMAGE_KIND": (
        "an image that comes along is none of `image_type`, or upstream does not know its kind",
        "附带的图片不属于 `image_type`，或上游不认识其格式",
    ),
    "ENCRYPTED_BODY": ("`X-DashScope-EncryptionKey` is given", "带有 `X-DashScope-EncryptionKey`"),
    "NOT_FOUND": ("unknown path", "未知路径"),
    "NO_ASYNC": ("`X-DashScope-Async: enable`", "`X-DashScope-Async: enable`"),
    "NO_KEY": ("no key, or an empty one", "没有密钥或密钥为空"),
    "BAD_KEY": ("the key is refused, here or upstream", "密钥被本端或上游拒绝"),
    "ACCESS_DENIED": ("the key may not do this, here or upstream (403)", "密钥无权限（本端，或上游 403）"),
    "ARREARAGE": ("upstream 402 or overdue, on the caller's own key", "调用方自己的密钥在上游欠费（402）"),
    "INPUT_MODERATED": ("upstream refuses the prompt", "上游拒绝输入内容"),
    "OUTPUT_MODERATED": ("upstream stops the answer (`content_filter`)", "上游中止回答（`content_filter`）"),
    "MODEL_NOT_FOUND": ("upstream does not know the model's id there", "上游不认识该模型的上游名"),
    "RATE_LIMITED": ("requests per minute, here or upstream (429)", "每分钟请求数超限（本端，或上游 429）"),
    "BURST_LIMITED": ("calls come in too steep a burst", "请求突增过快"),
    "QUOTA_EXCEEDED": ("tokens per minute, here or upstream", "每分钟 token 数超限（本端或上游）"),
    "INTERNAL": ("a bug of the proxy", "本代理的缺陷"),
    "UPSTREAM_BROKEN": (
        "upstream failed without a better word, said what cannot be read, or closed before the end",
        "上游无说明地失败、返回无法解析的内容，或提前关闭",
    ),
    "UPSTREAM_KEY_REFUSED": ("upstream refuses the operator's key", "上游拒绝运营方的密钥"),
    "INFERENCE": ("upstream's engine failed", "上游推理引擎失败"),
    "TIMED_OUT": (
        "a wait ended: head, connect, first token, idle, total",
        "某个等待超时：请求头、连接、首 token、空闲、总时长",
    ),
    "OVERLOADED": ("upstream 503 or 529; too many open calls here", "上游 503 或 529；本端并发调用过多"),
    "UNAVAILABLE": (
        "upstream cannot be connected to, the process is ending, or the limits' store is out of reach",
        "无法连接上游、进程正在退出，或限流存储不可达",
    ),
    "ACCOUNT_OVERDUE": (
        "upstream 402 or overdue, on the operator's key; the journal cannot be written",
        "运营方的密钥在上游欠费（402）；用量日志无法写入",
    ),
    "UPSTREAM_PATH_UNKNOWN": (
        "upstream 404 that names no model: the base URL is wrong",
        "上游 404 且未提及模型：基础 URL 有误",
    ),
    "PARAMETER_REFUSED": (
        "upstream 400 or 422 in words that are not for the caller",
        "上游 400 或 422，其措辞不宜转给调用方",
    ),
    "invalid": ("a message or parameter breaks its rule; upstream 400 or 422", "消息或参数违反规则；上游 400 或 422"),
    "wrong_method": ("a known path, another method", "路径正确，方法不对"),
    "no_thinking": (
        "`enable_thinking` where the model's row says `refuse`",
        "模型行写明 `refuse` 时传 `enable_thinking`",
    ),
    "too_many_images": ("more images than `max_images`", "图片数超过 `max_images`"),
    "input_length": ("the prompt is too long, by our count or upstream's word", "输入过长（按本端计数或上游答复）"),
}

BLAMED: Final[Mapping[faults.Blame, Words]] = {
    "caller": ("caller", "调用方"),
    "operator": ("operator", "运营方"),
    "upstream": ("upstream", "上游"),
    "proxy": ("proxy", "本代理"),
}
WAIT: Final[Words] = ("after `Retry-After`, else back-off", "按 `Retry-After`，否则退避")
# May the same call be sent again? By who can mend it, and sooner by status.
RETRY: Final[Mapping[faults.Blame, Words]] = {
    "caller": ("no: change the call", "否：先改请求"),
    "operator": ("no: not until it is mended", "否：待运营方修复"),
    "upstream": ("yes, with back-off", "是，退避重试"),
    "proxy": ("once; then report its `request_id`", "一次；之后请附 `request_id` 报告"),
}
YES_NO: Final[Mapping[bool, Words]] = {True: ("yes", "是"), False: ("–", "–")}
ANY: Final[Words] = ("any", "任意")

PATHS: Final[Mapping[str, Words]] = {
    "text": ("text", "文本"),
    "multimodal": ("multimodal", "多模态"),
    "both": ("both", "两者"),
}

THINKS: Final[Mapping[str, Words]] = {
    "never": ("never", "从不"),
    "hybrid": ("when asked", "按需"),
    "always": ("always", "总是"),
}

# Settings that are waits, in the order a call meets them: what is waited for, and what the caller reads at its end.
WAITS: Final[Mapping[str, tuple[Words, Words]]] = {
    "header_timeout": (
        ("the head of a call, from the caller", "调用方发来请求头"),
        ("500 `RequestTimeOut`; silence just ends", "500 `RequestTimeOut`；一言不发则直接关闭"),
    ),
    "body_timeout": (("its body, from the caller", "调用方发来请求体"), ("400 `InvalidParameter`",) * 2),
    "connect_timeout": (
        ("a connection to upstream, TLS included", "连接上游（含 TLS）"),
        ("500 `RequestTimeOut`",) * 2,
    ),
    "first_token_timeout": (
        ("the first token, from the call upstream", "自调用上游起的首个 token"),
        ("500 `RequestTimeOut`",) * 2,
    ),
    "head_hold": (
        ("the first packet, before the head goes out alone", "首个数据包；到时先单独发出响应头"),
        ("200, then the stream", "200，随后是流"),
    ),
    "heartbeat": (("anything to say, between two comments", "有内容可发；到时发一条注释"), ("`:heartbeat`",) * 2),
    "idle_timeout": (
        ("the next token; upstream's comments do not count", "下一个 token；上游的注释不算"),
        ("500 `RequestTimeOut`",) * 2,
    ),
    "write_timeout": (("a caller who does not read", "不读取的调用方"), ("the connection ends", "连接关闭")),
    "usage_timeout": (
        ("upstream's usage, once the answer is complete", "回答完成后上游的用量"),
        ("a finish with our own figure", "以本端数字结束"),
    ),
    "total_timeout": (("the whole call", "整个调用"), ("500 `RequestTimeOut`",) * 2),
    "drain_delay": (
        ("a platform to notice that the process is not ready", "平台察觉进程未就绪"),
        ("served as ever", "照常服务"),
    ),
    "drain_timeout": (("open calls, when the process ends", "进程结束时未完成的调用"), ("503 `ModelUnavailable`",) * 2),
    "keepalive_timeout": (
        ("the next call on a connection", "同一连接上的下一次调用"),
        ("the connection ends", "连接关闭"),
    ),
    "upstream_keepalive_timeout": (
        ("the next upstream call on a connection to it", "同一上游连接上的下一次上游调用"),
        ("the connection ends", "连接关闭"),
    ),
    "cancel_drain_timeout": (
        (
            "the end of an answer whose caller has left, where `cancel_policy` is `drain`",
            "调用方已离开的回答结束（`cancel_policy` 为 `drain` 时）",
        ),
        ("upstream is stopped", "停止上游"),
    ),
}

# How a call ended, as its line in the journal says.
OUTCOMES: Final[Mapping[str, Words]] = {
    "ok": ("answered in full", "完整回答"),
    "rejected": ("refused by its content or its key", "因内容或密钥被拒绝"),
    "throttled": ("over a limit, here or upstream", "超出限额（本端或上游）"),
    "moderated_input": ("upstream refused the prompt", "上游拒绝输入"),
    "moderated_output": ("upstream stopped the answer", "上游中止输出"),
    "client_gone_before_first_packet": ("the caller left before the first packet", "调用方在首个数据包之前离开"),
    "client_gone_mid_stream": ("the caller left after it", "调用方在其后离开"),
    "client_stalled": ("the caller stopped reading", "调用方停止读取"),
    "upstream_error": ("upstream said that it failed", "上游报告失败"),
    "upstream_cut": ("upstream went away in the middle", "上游中途断开"),
    "timeout_body": ("a wait ended: the body", "等待超时：请求体"),
    "timeout_connect": ("a wait ended: the connection", "等待超时：连接"),
    "timeout_first_token": ("a wait ended: the first token", "等待超时：首个 token"),
    "timeout_idle": ("a wait ended: the next token", "等待超时：下一个 token"),
    "timeout_total": ("a wait ended: the whole call", "等待超时：整个调用"),
    "shutdown_cut": ("the process ended before the call did", "进程先于调用结束"),
    "internal_error": ("a bug of the proxy", "本代理的缺陷"),
}

# What a line of the journal holds.
RECORDED: Final[Mapping[str, Words]] = {
    "at": ("when the call came: UTC, to the millisecond", "收到调用的时间：UTC，精确到毫秒"),
    "request_id": ("as its caller read it", "调用方读到的 request_id"),
    "api": ("the tongue it came in: `dashscope`, or `openai`", "调用所用的协议：`dashscope` 或 `openai`"),
    "model": ("the row of the model table", "模型表中的行"),
    "upstream_model": ("its id upstream", "上游的模型 id"),
    "key_id": ("the beginning of the key's SHA-256, or null", "密钥 SHA-256 的开头，或 null"),
    "key_name": ("its name in the keys file, or null", "密钥文件中的名称，或 null"),
    "stream": ("whether it asked for packets", "是否请求流"),
    "thinking": ("whether it thinks", "是否思考"),
    "outcome": ("how it ended: the next table", "如何结束：见下表"),
    "status": ("the status the caller read; 499 where it had left", "调用方读到的状态；已离开则为 499"),
    "code": ("the code it read, or null", "读到的 code，或 null"),
    "usage": ("what the last packet handed over said: what is billed", "最后交付的数据包所示：计费依据"),
    "generated": ("what upstream produced, as far as is known", "上游实际生成的（已知部分）"),
    "basis": ("whose figure `generated` is", "`generated` 由谁给出"),
    "calls": (
        "each upstream call: prompt, cached, completion, reasoning, basis, end",
        "每次上游调用：prompt、cached、completion、reasoning、basis、end",
    ),
    "drift_tokens": ("upstream's prompt tokens less ours, or null", "上游与本端输入 token 之差，或 null"),
    "packets": ("packets handed over; a reply is one", "已交付的数据包数；JSON 回答算一个"),
    "bytes_out": ("bytes of the body handed over", "已交付的响应体字节数"),
    "attempts": (
        "each try upstream: target, result, whether its connection was reused; with pools pool and what upstream said",
        "每次上游尝试：目标、结果、连接是否复用；有池时还有池名与上游所报用量",
    ),
    "t": (
        "milliseconds to: sent upstream, first packet, last packet, closed",
        "各时刻毫秒数：发往上游、首包、末包、结束",
    ),
}

# Parameters that lay out our own answer, or ask for what nobody has: native, done here, left out or refused.
HERE: Final[Mapping[str, tuple[str, str, str]]] = {
    "result_format": ("–", "all", "–"),
    "incremental_output": ("–", "all", "–"),
    "enable_search": ("–", "–", "`true` is refused"),
}

# What DashScope has beside parameters: its name, native, done here, left out or refused, why.
FEATURES: Final[tuple[tuple[str, str, str, str, str], ...]] = (
    ("SSE packets, incremental and cumulative", "–", "all", "–", "every upstream streams deltas (SSE-1, SSE-5)"),
    ("usage on every packet", "–", "all", "–", "counted until upstream's own figure comes, which wins (USE-1, USE-3)"),
    ("`input.prompt` and `input.history`", "–", "all", "–", "short for messages (REQ-2)"),
    ("text parts of `content`", "–", "all", "–", "joined; beside images sent as they are (REQ-4)"),
    ("parts that are images", "models that see", "–", "refused by the others", "`deepseek-v4.1-flash` sees (REQ-4)"),
    (
        "images in a tool's answer",
        "as told in its section 8",
        "–",
        "refused elsewhere",
        "a fact of each dialect (REQ-4)",
    ),
    ("images in `oss://`, uploads", "–", "–", "refused", "nothing is stored or fetched here; send `data:` or a URL"),
    ("parts that are video, audio, files", "–", "–", "refused by name", "no model of DeepSeek's takes them (REQ-4)"),
    ("`min_pixels`, `max_pixels` and their like", "–", "–", "ignored", "DeepSeek's rule of sizes is its own"),
    ("`partial` (prefix completion)", "all", "–", "–", "by each dialect's own way (REQ-6)"),
    ("`reasoning_content` of earlier turns", "all but openai", "–", "openai", "thinking with tools needs it (REQ-7)"),
    ("multimodal endpoint", "–", "models bound to it", "refused for the others", "a fact of each row (HTTP-3)"),
    ("asynchronous calls", "–", "–", "refused", "nobody keeps results (HTTP-9)"),
    ("encrypted bodies", "–", "–", "refused", "the platform's own keys (HTTP-9)"),
    ("workspaces, data inspection, resources", "–", "–", "ignored", "the platform's own (HTTP-8)"),
)

"""The words of the protocol document's tables, in both its languages.

The prose stands in the documents themselves; here is what the tables say beside what the code says (`proxy.documents`).
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
    "stop": (("str, list[str], list[int], list[list[int]]",) * 2, ("none", "无")),
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
    "enable_search": (("boolean; only false", "布尔；只能为 false"), ("false", "false")),
}

FACTS: Final[Mapping[str, Words]] = {
    "thinking": ("thinking switched off / on by", "关 / 开思考的字段"),
    "budget": ("who holds a thinking budget", "谁来执行思考预算"),
    "sampling": ("sampling fields it has", "支持的采样字段"),
    "efforts": ("words for an effort (low, high, max)", "思考强度用词（low、high、max）"),
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
    "think_in_content": ("chain may come inside the content", "思维链可能混在正文里"),
    "counts_close": ("counts `</think>`", "计入 `</think>`"),
    "counts_end": ("counts the end-of-sentence token", "计入句末 token"),
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
    "WRONG_ENDPOINT": ("a call to the multimodal endpoint", "调用了多模态接口"),
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
    "invalid": ("a message or parameter breaks its rule; upstream 400 or 422", "消息或参数违反规则；上游 400 或 422"),
    "wrong_method": ("a known path, another method", "路径正确，方法不对"),
    "no_thinking": (
        "`enable_thinking` where the model's row says `refuse`",
        "模型行写明 `refuse` 时传 `enable_thinking`",
    ),
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

THINKS: Final[Mapping[str, Words]] = {
    "never": ("never", "从不"),
    "hybrid": ("when asked", "按需"),
    "always": ("always", "总是"),
}

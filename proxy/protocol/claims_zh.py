"""What the checks of a gateway claim, and whom a broken one hurts, in Chinese: each sentence by its English.

For the page that is handed over (`proxy.commands.conform_reports`), which shows both languages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

SENTENCES: Final[Mapping[str, str]] = {
    # Surface
    "a JSON call is answered in one document": "JSON 调用以一个文档作答",
    "The official SDKs read exactly this form; what differs is lost or read as an error.": (
        "官方 SDK 只认这一形式；不同之处会丢失，或被当作错误。"
    ),
    "output, usage and request_id alone; content a string": "只有 output、usage、request_id；content 为字符串",
    "a reply ends with stop or length": "回答以 stop 或 length 结束",
    "Clients compare strings and index lists without looking twice.": "客户端直接比较字符串、按下标取列表，不再检查。",
    "every body has a request_id, a lower-case UUID": "每个响应体都有 request_id，为小写 UUID",
    "Support asks for it first.": "技术支持首先要的就是它。",
    "x-request-id is the body's request_id": "x-request-id 等于响应体的 request_id",
    "Gateways before it log the header, users report the body.": "前置网关记录响应头，用户报告的是响应体。",
    "a UUID the caller brings is kept": "调用方带来的 UUID 得到保留",
    "Traces across services meet by it.": "跨服务的追踪靠它对上。",
    "a reply is application/json": "回答为 application/json",
    "a stream is text/event-stream": "流为 text/event-stream",
    "a stream names UTF-8": "流标明 UTF-8",
    "Old HTTP clients guess Latin-1.": "旧的 HTTP 客户端会猜成 Latin-1。",
    "a stream is not to be cached": "流不可缓存",
    "Caches on the way hold a stream back.": "途中的缓存会截住流。",
    "x-accel-buffering: no": "x-accel-buffering: no（关闭缓冲）",
    "nginx collects a stream without it.": "没有它，nginx 会攒住整个流。",
    "x-dashscope-call-gateway: true": "x-dashscope-call-gateway: true（服务自带的标记）",
    "The service says it; nobody is known to read it.": "该服务会带上它；未见有人读取。",
    "Accept: text/event-stream asks for a stream": "Accept: text/event-stream 请求流",
    "dashscopego and recorded calls ask by it alone.": "dashscopego 与录得的调用只靠它请求流。",
    "Content-Type: text/event-stream asks for a stream": "Content-Type: text/event-stream 请求流",
    "The specification's own table allows it.": "规范自己的表格允许它。",
    "header names and values in any case": "请求头的名称与值不分大小写",
    "HTTP/2 hops write names in lower case.": "经过 HTTP/2 后名称变为小写。",
    "X-DashScope-SSE: disable wins over Accept": "X-DashScope-SSE: disable 优先于 Accept",
    "dashscope4j says disable with every JSON call.": "dashscope4j 的每次 JSON 调用都带 disable。",
    "stream in the body selects nothing": "请求体中的 stream 不起选择作用",
    "Releases of the Python SDK leak it into JSON calls.": "某些版本的 Python SDK 会把它漏进 JSON 调用。",
    "an unknown path is 404 NotFound": "未知路径为 404 NotFound",
    "Callers branch on status and code: a wrong one is retried, or not retried, wrongly.": (
        "调用方按状态码与 code 分支处理：错了就会误重试，或该重试而不重试。"
    ),
    "a wrong method is 400 InvalidParameter": "方法不对为 400 InvalidParameter",
    "the multimodal route answers in parts, or refuses a text model: 400 InvalidParameter": (
        "多模态路由以内容列表作答，或拒绝文本模型：400 InvalidParameter"
    ),
    "X-DashScope-Async is 403 AccessDenied": "X-DashScope-Async 为 403 AccessDenied（不支持异步）",
    "A caller who waits for a task would wait for ever.": "等待任务的调用方会一直等下去。",
    "X-DashScope-EncryptionKey is 400 InvalidParameter": "X-DashScope-EncryptionKey 为 400 InvalidParameter（不加密）",
    "headers, fields and parameters nobody knows are ignored": "不认识的请求头、字段与参数被忽略",
    "Every SDK sends some; dashscope4j X-DashScope-Async: disable.": (
        "每个 SDK 都会发一些；dashscope4j 发 X-DashScope-Async: disable。"
    ),
    "a stream is not compressed, though it is offered": "即使客户端表示可以，流也不压缩",
    "Compressors hold packets back.": "压缩会把数据包攒住。",
    "a body in gzip is read": "能读 gzip 请求体",
    "Some HTTP clients compress long prompts.": "有些 HTTP 客户端会压缩长提示。",
    "GET /models lists the models": "GET /models 列出模型",
    "The SDK's Models.list reads it.": "SDK 的 Models.list 读取它。",
    "POST /tokenizer tells tokens": "POST /tokenizer 给出 token",
    "The SDK's Tokenization reads it.": "SDK 的 Tokenization 读取它。",
    # Keys and connections
    "no key is 401 InvalidApiKey": "没有密钥为 401 InvalidApiKey",
    "a wrong key is 401 InvalidApiKey": "密钥错误为 401 InvalidApiKey",
    "x-api-key carries the key as well": "x-api-key 也可携带密钥",
    "Some gateways pass keys on so.": "有些网关这样传递密钥。",
    "a connection serves a second call": "一个连接可服务第二次调用",
    "A TLS handshake for each call costs more than the call.": "每次调用都做 TLS 握手，比调用本身还贵。",
    "HTTP/1.0 is answered": "能应答 HTTP/1.0",
    "nginx long spoke 1.0 to its upstreams unless told not to.": "nginx 长期默认以 1.0 访问上游。",
    "Expect: 100-continue is answered": "能应答 Expect: 100-continue",
    "curl sends it before long bodies, and waits.": "curl 在长请求体之前发送它，并等待。",
    "after a caller has left, the next call is unharmed": "调用方离开后，下一次调用不受影响",
    "Users press stop.": "用户会按停止。",
    "after a caller has left, the next call is answered as soon as any": "调用方离开后，下一次调用照常及时得到应答",
    "A gateway that generates on for nobody makes others wait.": "为已离开的人继续生成的网关让别人等待。",
    # Frames
    "id:, event:, :HTTP_STATUS/, data:, no space behind colons, ids from 1, compact raw UTF-8": (
        "id:、event:、:HTTP_STATUS/、data:，冒号后无空格，id 从 1 起，紧凑的原样 UTF-8"
    ),
    "The Python SDK recognises only event:error, without a space; others split at the colon.": (
        "Python SDK 只认没有空格的 event:error；其他客户端按冒号切分。"
    ),
    "what is written ends with a frame": "每次写出都以完整的帧结束",
    "Some clients parse chunk by chunk.": "有些客户端逐块解析。",
    "an error frame, if one comes, has its keys and an error status, and is the last": (
        "若有错误帧，它含应有的键与错误状态，并且是最后一帧"
    ),
    "An error with status 200 is read as an answer.": "状态为 200 的错误会被当作回答。",
    "exactly one packet ends a stream": "恰有一个数据包结束流",
    "A stream that just ends looks complete.": "戛然而止的流看起来像是完整的。",
    "no packet says nothing": "没有空的数据包",
    "Clients print a line per packet.": "客户端每个数据包打印一行。",
    "a heartbeat is no event": "心跳不是事件",
    "Clients dispatch an empty event, and parse it.": "客户端会派发并解析空事件。",
    "a packet is output, usage and request_id; both sides strings": (
        "数据包为 output、usage、request_id；两侧文本均为字符串"
    ),
    "one request_id for a whole stream": "整个流只有一个 request_id",
    "finish_reason is the string null until the last packet": "最后一个数据包之前 finish_reason 为字符串 null",
    "incremental_output tells the text in pieces": "incremental_output 分段给出文本",
    "A user waits for all of it else.": "否则用户要等全文。",
    "without it, every packet has the text so far": "没有它时，每个数据包含至今的全文",
    "The default: the SDKs hand it on as it is.": "这是默认形式：SDK 原样交出。",
    "a packet begins with the one before it, both sides": "每个数据包以前一个为开头，两侧皆然",
    "The Python SDK hands the last one on as the answer.": "Python SDK 把最后一个当作回答交出。",
    # Usage
    "input_tokens, output_tokens and total_tokens on every packet": (
        "每个数据包都有 input_tokens、output_tokens、total_tokens"
    ),
    "Callers and the platform bill by the last packet they saw; a cancelled call has no other figure.": (
        "调用方与平台按看到的最后一个数据包计费；被取消的调用没有别的数字。"
    ),
    "input_tokens is right from the first packet on": "从第一个数据包起 input_tokens 就正确",
    "output_tokens grows with the text": "output_tokens 随文本增长",
    "output_tokens never falls on the way": "output_tokens 途中不下降",
    "total_tokens is the sum, on every packet": "每个数据包的 total_tokens 都是合计",
    "a reply's figures are there and add up": "回答的各项数字齐全且相符",
    "the last output_tokens is the text's, within 2 tokens or 2 %": (
        "最后的 output_tokens 与文本相符，相差 2 个 token 或 2 % 以内"
    ),
    "so is every packet's, within 4 tokens or 10 %": "每个数据包也相符，相差 4 个 token 或 10 % 以内",
    "input_tokens is the prompt's, within 128 tokens": "input_tokens 与提示相符，相差 128 个 token 以内",
    # Tools
    "tool_choice none calls nothing": "tool_choice 为 none 时不调用",
    "Agents act on the calls they are told of; a broken one ends the loop.": (
        "智能体按收到的工具调用行事；残缺的调用会中断循环。"
    ),
    "a call has id, index, type, name and arguments in JSON": "工具调用有 id、index、type、name 与 JSON 参数",
    "one call unless parallel_tool_calls is set": "未设置 parallel_tool_calls 时只有一个调用",
    "with it, calls have indices from 0": "设置后，调用的下标从 0 起",
    "fragments in order, the first with id and name": "片段依次到达，第一个带 id 与 name",
    "Clients put fragments together by index.": "客户端按下标拼接片段。",
    "cumulative calls come once, complete": "累积输出时工具调用一次给全",
    "Half of a call is not JSON.": "半个调用不是 JSON。",
    "a streamed call has its fields": "流式工具调用字段齐全",
    "a tool's result is answered": "工具结果得到回答",
    # Answers and prompts
    "max_tokens cuts the answer, and says length": "max_tokens 截断回答，并给出 length",
    "max_length is max_tokens": "max_length 即 max_tokens",
    "max_completion_tokens is max_tokens": "max_completion_tokens 即 max_tokens",
    "A limit that is not heard is paid for.": "没有生效的上限要照价付费。",
    "Callers ask for the rest when they read it.": "调用方看到它就会要余下部分。",
    "a stop ends the text before it": "文本在停止串之前结束",
    "Prompts of chains end at marks.": "链式提示以标记收尾。",
    "log probabilities beside the message": "对数概率在 message 旁",
    "Classifiers read them.": "分类器读取它们。",
    "json_object answers with one": "json_object 以 JSON 对象作答",
    "It is parsed without a look.": "会被直接解析。",
    "json_schema answers with an object": "json_schema 以对象作答",
    "prompt is answered in the form of messages": "prompt 以消息形式作答",
    "The oldest SDKs ask so.": "最早的 SDK 这样请求。",
    "history is read beside a prompt": "能读 prompt 旁的 history",
    "content as a list of texts is read": "能读文本列表形式的 content",
    "LangChain and Dify send lists.": "LangChain 与 Dify 发送列表。",
    "a partial message is continued, with new text alone": "续写 partial 消息，只给新文本",
    "Editors put the two together.": "编辑器会把两段拼接。",
    # Errors, models, thinking, choices
    "an error is code, message and request_id": "错误为 code、message、request_id",
    "codes are the service's own": "code 是该服务自己的",
    "a body that is no JSON is 400 InvalidParameter": "非 JSON 的请求体为 400 InvalidParameter",
    "an SSE call refused has its true status and JSON": "被拒绝的 SSE 调用返回真实状态码与 JSON",
    "SDKs raise by the status alone.": "SDK 只按状态码抛错。",
    "a name's case and vendor do not matter": "模型名的大小写与厂商前缀不影响",
    "Platforms put their own prefix before names.": "平台会在名称前加自己的前缀。",
    "the path's model wins over the body's": "路径中的模型优先于请求体",
    "Partner routes name the model once.": "伙伴路由只写一次模型名。",
    "a named function is called": "调用了指定的函数",
    "tool_choice required calls one": "tool_choice 为 required 时必有调用",
    "n answers, 0 to n - 1; the prompt counted once": "n 个回答，编号 0 至 n−1；提示只计一次",
    "in a stream one choice a packet, with its index": "流中每个数据包一个选项，带下标",
    "The SDK sums packets by index.": "SDK 按下标累加数据包。",
    "Users search for the sentence; some clients match on it.": "用户会搜索这句话；有些客户端靠它匹配。",
    "a call that thinks shows reasoning_content": "思考的调用给出 reasoning_content",
    "It is billed; users pay for what they cannot see.": "它计费；否则用户为看不到的内容付费。",
    "all reasoning precedes all content": "思维链全部先于正文",
    "Clients close the box of the chain once.": "客户端只收起一次思维链框。",
    "frames of a thinking stream are frames": "思考流的帧同样合规",
    "reasoning_tokens, and text_tokens on hybrid models alone": "有 reasoning_tokens；仅混合模型有 text_tokens",
    "enable_thinking false shows no reasoning": "enable_thinking 为 false 时没有思维链",
    "It is off by default, for it costs.": "默认关闭，因为它要花钱。",
    # The compatible surface
    "a reply is a chat.completion": "回答为 chat.completion 对象",
    "openai-python and -node read this form.": "openai-python 与 -node 读取这一形式。",
    "the model as the caller named it": "模型名与调用方所写一致",
    "Gateways flag a model that differs.": "网关会标记不一致的模型。",
    "chatcmpl- and x-request-id": "chatcmpl- 前缀与 x-request-id 一致",
    "Support asks for it.": "技术支持会要它。",
    "Accept alone is no stream": "仅有 Accept 不是流",
    "developer is a role": "developer 是合法角色",
    "unknown fields are ignored": "未知字段被忽略",
    "GET /models is a list": "GET /models 为列表",
    "Pickers read it.": "模型选择器读取它。",
    "no key is 401": "没有密钥为 401",
    "a wrong key is 401": "密钥错误为 401",
    "error has its four keys": "error 有四个键",
    "temperature 9 is 400 invalid_parameter_error": "temperature 为 9 时是 400 invalid_parameter_error",
    "an unknown model is 404 model_not_found": "未知模型为 404 model_not_found",
    "404 NotFound": "返回 404 NotFound",
    "streams are refused as JSON": "流式调用的拒绝为 JSON",
    "data:, a space, JSON": "data:、一个空格、JSON",
    "[DONE] ends a stream": "[DONE] 结束流",
    "Clients wait for it.": "客户端等待它。",
    "chunks of one id, one choice": "各块同一 id、一个选项",
    "the role comes once, first": "角色只出现一次，在最前",
    "Helpers join roles.": "辅助库会拼接角色。",
    "one finish, at the end": "一个 finish，在末尾",
    "text comes in pieces": "文本分段到达",
    "Users wait else.": "否则用户要等待。",
    "usage in a last chunk": "usage 在最后一块",
    "no usage unasked": "未请求则没有 usage",
    "LangChain adds up the usage of all chunks.": "LangChain 累加所有块的 usage。",
    "a reply's usage adds up": "回答的 usage 相符",
    "continuous_usage_stats puts it on every chunk": "continuous_usage_stats 使每块都有",
    "a call has its fields": "工具调用字段齐全",
    "fragments make a call": "片段可拼成调用",
    "max_tokens ends by length": "max_tokens 以 length 结束",
    "a stop ends by stop": "停止串以 stop 结束",
    "json_object is one": "json_object 得到 JSON 对象",
    "It is parsed unseen.": "会被直接解析。",
    "n choices": "n 个选项",
    "reasoning before content": "思维链先于正文",
}
# Of checks that are made of a table: what stands in the middle is a value, and the same in both languages.
_FORMS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"(.*) is taken"), r"接受 \1"),
    (re.compile(r"(.*) in the service's words"), r"\1 的报错文本与服务一致"),
    (re.compile(r"(.*) is (\d{3} \S+)"), r"\1 为 \2"),
)


def chinese(sentence: str) -> str:
    """A claim, or whom it hurts, in Chinese; as it is where nobody has said it so."""
    found = SENTENCES.get(sentence)
    if found is not None:
        return found
    for form, template in _FORMS:
        if form.fullmatch(sentence):
            render: Callable[[str, str], str] = form.sub
            return render(template, sentence)
    return sentence

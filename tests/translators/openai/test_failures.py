"""Everything upstreams are known to say when they fail, and what the caller reads.

Source: spec ERR-1…ERR-3; SOURCES#deepseek-errors, #engine-errors.
"""

from __future__ import annotations

import orjson
import pytest

from translators import faults
from translators.openai import failures

PASSED_ON = failures.Terms(98_304, own_key=False)
OURS = failures.Terms(98_304, own_key=True)


def nested(message: str, kind: str | None = None, code: object = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def flat(message: str, kind: str, code: int) -> bytes:
    return orjson.dumps({"object": "error", "message": message, "type": kind, "param": None, "code": code})


def deepseek(message: str) -> bytes:
    return nested(message, "invalid_request_error", "invalid_request_error")


def siliconflow(code: int, message: str) -> bytes:
    return orjson.dumps({"code": code, "message": message, "data": None})


BUSY = "Service is too busy. We advise users to temporarily switch to alternative LLM API service providers."
DEEPSEEK_LENGTH = (
    "This model's maximum context length is 131072 tokens. However, you requested 131134 tokens (122942 in the"
    " messages, 8192 in the completion). Please reduce the length of the messages or completion."
)
VLLM_LENGTH = (
    "This model's maximum context length is 1024 tokens. However, your prompt contains at least 1025 input tokens,"
    " which exceeds this limit even without any output tokens."
)
CONCURRENCY = (
    "Your current concurrency is 40, which exceeds your concurrency limit of 39 based on your remaining balance."
)
TOO_LONG = faults.input_length(98_304)

# who and what: status, body, what a caller with his own key reads
SAID: dict[str, tuple[int, bytes, faults.Fault]] = {
    "images, DeepSeek, a kind": (
        400,
        deepseek(
            "You have uploaded an unsupported image. Please make sure your image is valid and has one of the following"
            " formats: webp, png, jpeg, and gif."
        ),
        faults.IMAGE_KIND,
    ),
    "images, DeepSeek, an address": (400, deepseek("Failed to download image from URL"), faults.IMAGE_NOT_LOADED),
    "images, llama.cpp, an address": (500, nested("error: cannot make GET request"), faults.IMAGE_NOT_LOADED),
    "images, llama.cpp, broken": (400, nested("Failed to load image or audio file"), faults.IMAGE_NOT_DECODED),
    "images, DeepSeek, a text model of before August": (
        400,
        deepseek("Failed to deserialize the JSON body: messages[0]: unknown variant `image_url`, expected `text`"),
        faults.NOT_TEXT,
    ),
    "images, Ark": (400, nested("Model do not support image input."), faults.NOT_TEXT),
    "images, vLLM": (400, flat("m is not a multimodal model", "BadRequestError", 400), faults.NOT_TEXT),
    "images, vLLM, none allowed": (400, nested("At most 0 image(s) may be provided in one prompt."), faults.NOT_TEXT),
    "images, llama.cpp": (
        500,
        nested("image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"),
        faults.NOT_TEXT,
    ),
    "D.1 DeepSeek, a range": (
        400,
        deepseek("Invalid max_tokens value, the valid range of max_tokens is [1, 393216]"),
        faults.invalid("Invalid max_tokens value, the valid range of max_tokens is [1, 393216]"),
    ),
    "D.1 DeepSeek, n": (
        400,
        deepseek("Invalid n value (currently only n = 1 is supported)"),
        faults.invalid("Invalid n value (currently only n = 1 is supported)"),
    ),
    "D.1 DeepSeek, a body, older builds": (
        422,
        deepseek("Failed to deserialize the JSON body into the target type: messages[0]: missing field `content`"),
        faults.invalid(
            "Failed to deserialize the JSON body into the target type: messages[0]: missing field `content`"
        ),
    ),
    "D.1 DeepSeek, moderation": (400, deepseek("Content Exists Risk"), faults.INPUT_MODERATED),
    "D.1 DeepSeek, context": (400, deepseek(DEEPSEEK_LENGTH), TOO_LONG),
    "D.1 DeepSeek, context, another wording": (
        400,
        nested("Input token exceed the limit (request id 0217xyz)", "api_error", "quota_limit_reached"),
        TOO_LONG,
    ),
    "D.1 DeepSeek, key": (
        401,
        nested("Authentication Fails, Your api key: ****abcd is invalid", "authentication_error"),
        faults.BAD_KEY,
    ),
    "D.1 DeepSeek, no key, plain text": (401, b"Authentication Fails (governor)", faults.BAD_KEY),
    "D.1 DeepSeek, balance": (402, nested("Insufficient Balance", "unknown_error"), faults.ARREARAGE),
    "D.1 DeepSeek, a payment without words": (402, b"", faults.ARREARAGE),
    "D.1 DeepSeek, path": (404, b"", faults.UPSTREAM_PATH_UNKNOWN),
    "D.1 DeepSeek, rate": (429, nested("Rate limit reached for requests"), faults.RATE_LIMITED),
    "D.1 DeepSeek, concurrency by balance": (429, nested(CONCURRENCY), faults.QUOTA_EXCEEDED),
    "D.1 DeepSeek, 500": (500, nested("Internal error"), faults.UPSTREAM_BROKEN),
    "D.1 DeepSeek, busy": (503, nested(BUSY, "service_unavailable_error"), faults.OVERLOADED),
    "D.2 vLLM, model": (
        404,
        nested("The model `x` does not exist. Valid aliases: y", "NotFoundError", 404),
        faults.MODEL_NOT_FOUND,
    ),
    "D.2 vLLM, context": (400, nested(VLLM_LENGTH, "BadRequestError", 400), faults.input_length(1024)),
    "D.2 vLLM, max_tokens": (
        400,
        nested("max_tokens=2000 cannot be greater than max_model_len=1024.", "BadRequestError", 400),
        TOO_LONG,
    ),
    "D.2 vLLM, path": (404, b'{"detail":"Not Found"}', faults.UPSTREAM_PATH_UNKNOWN),
    "D.2 a path that says models": (404, b"Cannot POST /v1/models/chat/completions", faults.UPSTREAM_PATH_UNKNOWN),
    "D.2 a page about models": (404, b"<html>our model cars: not found</html>", faults.UPSTREAM_PATH_UNKNOWN),
    "D.2 Ark, model": (404, nested("…", "NotFound", "InvalidEndpointOrModel.NotFound"), faults.MODEL_NOT_FOUND),
    "D.2 vLLM, method": (405, b'{"detail":"Method Not Allowed"}', faults.UPSTREAM_BROKEN),
    "D.2 FastAPI, a list of details": (422, b'{"detail":[{"loc":["body"]}]}', faults.PARAMETER_REFUSED),
    "D.2 SGLang, context": (
        400,
        flat("The input (9 tokens) is longer than the model's context length (8 tokens).", "BadRequestError", 400),
        faults.input_length(8),
    ),
    "D.2 SGLang, context with the answer": (
        400,
        flat(
            "Requested token count exceeds the model's maximum context length of 4096 tokens. …", "BadRequestError", 400
        ),
        faults.input_length(4096),
    ),
    "D.2 llama.cpp, context": (
        400,
        nested(
            "request (6031 tokens) exceeds the available context size (512 tokens), try increasing it",
            "exceed_context_size_error",
            400,
        ),
        faults.input_length(512),
    ),
    "D.2 llama.cpp, a bad tool": (500, nested("Unknown tool", "server_error", 500), faults.UPSTREAM_BROKEN),
    "D.2 llama.cpp, loading": (503, nested("Loading model", "unavailable_error", 503), faults.OVERLOADED),
    "D.2 llama.cpp, not supported": (501, nested("no", "not_supported_error", 501), faults.UPSTREAM_BROKEN),
    "D.2 SiliconFlow, a model": (
        400,
        siliconflow(20012, "Model does not exist. Please check it carefully."),
        faults.PARAMETER_REFUSED,
    ),
    "D.2 SiliconFlow, balance": (
        403,
        siliconflow(30001, "Sorry, your account balance is insufficient"),
        faults.ARREARAGE,
    ),
    "D.2 SiliconFlow, permission": (403, siliconflow(30003, "insufficient permission"), faults.ACCESS_DENIED),
    "D.2 SiliconFlow, tokens per minute": (
        429,
        siliconflow(50602, "Request was rejected due to rate limiting. Details: TPM limit reached."),
        faults.QUOTA_EXCEEDED,
    ),
    "D.2 SiliconFlow, gateway time-out": (504, b'"Gateway Timeout"', faults.TIMED_OUT),
    "D.2 Ark, moderated input": (400, nested("…", None, "InputTextRiskDetection"), faults.INPUT_MODERATED),
    "D.2 Ark, moderated, another code": (400, nested("…", None, "SensitiveContentDetected"), faults.INPUT_MODERATED),
    "D.2 Ark, moderated output": (400, nested("…", None, "OutputTextRiskDetection"), faults.OUTPUT_MODERATED),
    "D.2 Ark, overdue": (403, nested("…", "Forbidden", "AccountOverdueError"), faults.ARREARAGE),
    "D.2 Ark, rights": (403, nested("…", "Forbidden", "AccessDenied"), faults.ACCESS_DENIED),
    "D.2 Ark, quota": (429, nested("…", "TooManyRequests", "QuotaExceeded"), faults.QUOTA_EXCEEDED),
    "D.2 Ark, overloaded": (503, nested("…", None, "ServerOverloaded"), faults.OVERLOADED),
    "D.2 an error that is a text": (400, b'{"error":"bad top_p"}', faults.invalid("bad top_p")),
    "D.3 too large": (413, b"<html>413</html>", faults.BODY_TOO_LARGE),
    "D.3 time-out": (408, b"", faults.TIMED_OUT),
    "D.3 overloaded": (529, b"", faults.OVERLOADED),
    "D.3 a load balancer's page": (502, b"<html><body>502 Bad Gateway</body></html>", faults.UPSTREAM_BROKEN),
    "D.3 a load balancer's page, refusing": (403, b"<html>the load balancer says no</html>", faults.ACCESS_DENIED),
    "D.3 a page for a bad request": (400, b"<html>Bad Request</html>", faults.PARAMETER_REFUSED),
    "D.3 JSON that is no object": (400, b'["no"]', faults.PARAMETER_REFUSED),
    "D.3 a redirect": (302, b"", faults.UPSTREAM_BROKEN),
    "D.4 an engine that died": (500, nested("EngineCore encountered an issue."), faults.INFERENCE),
    "D.4 a device out of memory": (500, nested("CUDA error: out of memory"), faults.INFERENCE),
}


@pytest.mark.parametrize("name", SAID)
def test_what_upstream_says_is_the_fault_the_caller_reads(name: str) -> None:
    status, raw, fault = SAID[name]
    assert failures.of_response(status, raw, PASSED_ON).fault == fault


OWN_KEY = {
    "D.1 DeepSeek, key": faults.UPSTREAM_KEY_REFUSED,
    "D.1 DeepSeek, no key, plain text": faults.UPSTREAM_KEY_REFUSED,
    "D.1 DeepSeek, balance": faults.ACCOUNT_OVERDUE,
    "D.1 DeepSeek, a payment without words": faults.ACCOUNT_OVERDUE,
    "D.2 SiliconFlow, balance": faults.ACCOUNT_OVERDUE,
    "D.2 Ark, overdue": faults.ACCOUNT_OVERDUE,
}


@pytest.mark.parametrize("name", SAID)
def test_where_the_key_is_ours_the_caller_is_not_to_blame_for_it(name: str) -> None:
    """ERR table: 401 and 402 are then the operator's; all else stays."""
    status, raw, fault = SAID[name]
    found = failures.of_response(status, raw, OURS).fault
    assert found == OWN_KEY.get(name, fault)
    assert found.code != "InvalidApiKey"
    assert found.code != "Arrearage"


# What a status means where nothing is said; any other that upstream has failed.
SILENT: dict[int, faults.Fault] = {
    400: faults.PARAMETER_REFUSED,
    401: faults.BAD_KEY,
    402: faults.ARREARAGE,
    403: faults.ACCESS_DENIED,
    404: faults.UPSTREAM_PATH_UNKNOWN,
    408: faults.TIMED_OUT,
    413: faults.BODY_TOO_LARGE,
    422: faults.PARAMETER_REFUSED,
    429: faults.RATE_LIMITED,
    503: faults.OVERLOADED,
    504: faults.TIMED_OUT,
    529: faults.OVERLOADED,
}
FAILED = range(300, 600)
# A sentence, what it means, and with which statuses; with any other it means what that means alone.
SENTENCES: dict[str, tuple[faults.Fault, set[int]]] = {
    "maximum context length is exceeded": (TOO_LONG, {*range(400, 501)}),
    "Content Exists Risk": (faults.INPUT_MODERATED, {*FAILED}),
    "OutputTextRiskDetection": (faults.OUTPUT_MODERATED, {*FAILED}),
    "insufficient funds": (faults.ARREARAGE, {402, 403}),
    "AccountOverdue": (faults.ARREARAGE, {*FAILED}),
    "image input is not supported": (faults.NOT_TEXT, {400, 422, 500}),
    "failed to download image": (faults.IMAGE_NOT_LOADED, {400, 422, 500}),
    "failed to load image": (faults.IMAGE_NOT_DECODED, {400, 422}),
    "unsupported image": (faults.IMAGE_KIND, {400, 422}),
    "no such model": (faults.MODEL_NOT_FOUND, {404}),
    "a quota": (faults.QUOTA_EXCEEDED, {429}),
    "out of memory": (faults.INFERENCE, {*range(500, 600)} - {503, 504, 529}),
}


@pytest.mark.parametrize("sentence", ["", *SENTENCES])
def test_every_status_has_its_fault_and_a_sentence_where_it_can_be_meant(sentence: str) -> None:
    """ERR table."""
    fault, statuses = SENTENCES.get(sentence, (faults.UPSTREAM_BROKEN, set()))
    for status in FAILED:
        expected = fault if status in statuses else SILENT.get(status, faults.UPSTREAM_BROKEN)
        assert failures.of_response(status, sentence.encode(), PASSED_ON).fault == expected, status


@pytest.mark.parametrize("code", [100, 399, 400, 599, 600])
def test_a_number_is_a_failure_from_400_on_and_a_status_below_600(code: int) -> None:
    """ERR-3, SSE-10: 1xx to 3xx are of progress."""
    assert failures.is_failure({"code": code, "message": "x"}) is (code >= 400)
    (cause,) = {failures.of_event({"code": number, "message": "x"}, PASSED_ON).cause for number in (code, str(code))}
    assert cause == f"upstream failed with {code if 400 <= code < 600 else 500}"


@pytest.mark.parametrize(("status", "passed"), [(429, "7"), (503, "7"), (500, None), (400, None)])
def test_retry_after_is_passed_on_where_it_helps(status: int, passed: str | None) -> None:
    """ERR-4."""
    assert failures.of_response(status, b"", PASSED_ON, "7").fault.retry_after == passed
    assert failures.of_response(status, b"", PASSED_ON).fault.retry_after is None


DATE = "Sat, 28 Nov 2026 13:00:00 GMT"


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        *((good, good.strip()) for good in ("0", "86400", " 30 ", DATE)),
        *((bad, None) for bad in ("86401", "-5", "1e9", "abc", "1.5", "", "٣", "9" * 40, DATE + "x", "Sat, 28 Nov")),
    ],
)
def test_a_retry_after_means_what_it_says_or_is_not_passed_on(said: str, passed: str | None) -> None:
    """ERR-3: seconds up to a day, or a date."""
    assert failures.of_response(429, b"", PASSED_ON, said).fault.retry_after == passed


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        ({"retry_after": 7}, "7"),
        ({"retry_after": 1.2}, "2"),
        ({"retryAfter": "30"}, "30"),
        ({"retry_after": None, "retryAfter": 5}, "5"),
        ({"retry_after": "soon"}, None),
        ({"retry_after": -1.5}, None),
        ({"retry_after": 86_401.0}, None),
        ({"retry_after": True}, None),
        ({}, None),
    ],
)
def test_a_failure_inside_a_success_says_when_to_come_back(said: dict[str, object], passed: str | None) -> None:
    """ERR-3, ERR-4: by a field of its own."""
    limited = failures.of_event({"error": {"code": "rate_limit_exceeded", **said}}, PASSED_ON)
    assert (limited.fault.status, limited.fault.retry_after) == (429, passed)
    wrong = failures.of_event({"error": {"code": "invalid_request_error", **said}}, PASSED_ON)
    assert (wrong.fault.status, wrong.fault.retry_after) == (400, None)


def test_what_a_failure_says_itself_wins_over_the_head_it_came_with() -> None:
    limited = failures.of_event({"error": {"code": 429, "retry_after": 7}}, PASSED_ON)
    assert failures.waiting(limited, "9").fault.retry_after == "7"
    limited = failures.of_event({"error": {"code": 429}}, PASSED_ON)
    assert failures.waiting(limited, "9").fault.retry_after == "9"


EVENTS: dict[str, tuple[object, faults.Fault]] = {
    "vLLM, a status": ({"message": "bad top_p", "code": 400}, faults.invalid("bad top_p")),
    "a number as text": ({"message": "no", "code": "429"}, faults.RATE_LIMITED),
    "words for a rate": ({"code": "rate_limit_exceeded"}, faults.RATE_LIMITED),
    "words for a rate, as a type": ({"type": "rate_limit_error"}, faults.RATE_LIMITED),
    "words for a quota": ({"type": "insufficient_quota"}, faults.QUOTA_EXCEEDED),
    "DeepSeek, busy": (
        {"message": BUSY, "type": "service_unavailable_error", "code": "service_unavailable_error"},
        faults.OVERLOADED,
    ),
    "words for a load": ({"type": "ServerOverloaded"}, faults.OVERLOADED),
    "words for a key": ({"type": "authentication_error", "code": "invalid_request_error"}, faults.BAD_KEY),
    "words for a bad call": ({"type": "invalid_request_error"}, faults.PARAMETER_REFUSED),
    "words for a wait": ({"type": "timeout_error"}, faults.TIMED_OUT),
    "a code of another service, and a word": ({"code": 20012, "type": "BadRequestError"}, faults.PARAMETER_REFUSED),
    "vLLM, the engine": ({"message": "EngineCore encountered an issue", "code": 500}, faults.INFERENCE),
    "a code that is no status": ({"message": "no", "code": 20012}, faults.UPSTREAM_BROKEN),
    "a code in words": ({"message": "no", "code": "server_error"}, faults.UPSTREAM_BROKEN),
    "a truth for a code": ({"message": "no", "code": True}, faults.UPSTREAM_BROKEN),
    "words alone": ("Content Exists Risk", faults.INPUT_MODERATED),
    "a filter's code": ({"code": "content_filter"}, faults.OUTPUT_MODERATED),
    "a number with a point": ({"message": "no", "code": 503.0}, faults.OVERLOADED),
    "the same as text": ({"message": "no", "code": "503.0"}, faults.OVERLOADED),
    "a fraction": ({"message": "no", "code": 503.5}, faults.UPSTREAM_BROKEN),
    "a status beside another code": ({"message": "no", "code": 1302, "status": 429}, faults.RATE_LIMITED),
    "a status in words": ({"message": "no", "code": 1302, "status": "UNAVAILABLE"}, faults.OVERLOADED),
    "a sentence alone, a rate": ("Rate limit exceeded", faults.RATE_LIMITED),
    "a sentence alone, a load": ("The service is temporarily unavailable", faults.OVERLOADED),
    "a sentence alone, a key": ("Not authenticated", faults.BAD_KEY),
    "a sentence alone, a wait": ("upstream request timed out", faults.TIMED_OUT),
    "a sentence of something else": ("a separate limit of the queue", faults.UPSTREAM_BROKEN),
    "nothing readable": ([], faults.UPSTREAM_BROKEN),
}


@pytest.mark.parametrize("name", EVENTS)
def test_an_error_inside_a_success_is_read_like_one_outside(name: str) -> None:
    """D.4: HTTP 200, then the error."""
    error, fault = EVENTS[name]
    assert failures.of_event({"error": error}, PASSED_ON).fault == fault
    if isinstance(error, dict):
        assert failures.of_event(error, PASSED_ON).fault == fault


FLAT: dict[str, tuple[bytes, faults.Fault]] = {
    "FastAPI": (b'{"detail":"Too many requests"}', faults.RATE_LIMITED),
    "FastAPI, an object": (b'{"detail":{"message":"no","code":"503"}}', faults.OVERLOADED),
    "FastAPI, a list": (b'{"detail":[{"loc":["body"]}]}', faults.UPSTREAM_BROKEN),
    "a status and a msg": (b'{"status":429,"msg":"no"}', faults.RATE_LIMITED),
    "a code and a msg": (b'{"code":"503.0","msg":""}', faults.OVERLOADED),
    "a code of its own and a msg": (b'{"error_code":336100,"error_msg":"the server is busy"}', faults.OVERLOADED),
    "a type and a message": (b'{"type":"rate_limit_error","message":"no"}', faults.RATE_LIMITED),
    "a status and a message": (b'{"status":401,"message":"no"}', faults.BAD_KEY),
    "a word for an error": (b'{"status":429,"error":"Too Many Requests","message":""}', faults.RATE_LIMITED),
    "an empty error object": (b'{"error":{}}', faults.UPSTREAM_BROKEN),
    "a type that is error": (b'{"type":"error","message":"x"}', faults.UPSTREAM_BROKEN),
    "an event that is error": (b'{"event":"error","message":"x"}', faults.UPSTREAM_BROKEN),
    "MiniMax": (b'{"base_resp":{"status_code":1002,"status_msg":"rate limit"}}', faults.RATE_LIMITED),
    "MiniMax, no words": (b'{"base_resp":{"status_code":1000}}', faults.UPSTREAM_BROKEN),
    "no success": (b'{"success":false,"code":500}', faults.UPSTREAM_BROKEN),
    "no success, a class": (b'{"success":false,"code":429}', faults.RATE_LIMITED),
    "an error's code alone": (b'{"error_code":500}', faults.UPSTREAM_BROKEN),
    "an error's code alone, Java": (b'{"errorCode":"429"}', faults.RATE_LIMITED),
    "errors, texts": (b'{"errors":["server busy"]}', faults.OVERLOADED),
    "errors, objects": (b'{"errors":[{"message":"x","code":503}]}', faults.OVERLOADED),
    "errors, a text": (b'{"errors":"x"}', faults.UPSTREAM_BROKEN),
    "errors, others": (b'{"errors":[1]}', faults.UPSTREAM_BROKEN),
    "a code below 0": (b'{"code":-1,"message":"x"}', faults.UPSTREAM_BROKEN),
    "a code of its own": (b'{"code":20012,"message":"x"}', faults.UPSTREAM_BROKEN),
    "a word for an error in a status": (b'{"status":"failed","message":"x"}', faults.UPSTREAM_BROKEN),
    "a sentence and no known kind": (b'{"code":"E7","message":"Too many requests"}', faults.RATE_LIMITED),
    "a class as a status": (b'{"status":"busy","message":"x"}', faults.OVERLOADED),
    "a class as a code": (b'{"code":"timeout","message":"x"}', faults.TIMED_OUT),
    "an error beside an answer": (b'{"error":{"code":429},"choices":[]}', faults.RATE_LIMITED),
}


@pytest.mark.parametrize("name", FLAT)
def test_a_failure_needs_no_error_object(name: str) -> None:
    """ERR-3: what is no answer and says what went wrong is no silence."""
    raw, fault = FLAT[name]
    chunk = orjson.loads(raw)
    assert failures.is_failure(chunk)
    assert failures.of_event(chunk, PASSED_ON).fault == fault


@pytest.mark.parametrize(
    "raw",
    [
        b'{"error":""}',
        b'{"error":false,"choices":null}',
        b'{"error":"","choices":[]}',
        b'{"error":{},"choices":[]}',
        b'{"error":{},"usage":{}}',
        b'{"message":"here","choices":[],"code":"x"}',
        b'{"type":"ping","message":"here"}',
        b'{"code":200,"msg":"success"}',
        b'{"code":null,"message":"here"}',
        b'{"code":429}',
        b'{"type":"keepalive","sequence_number":3}',
        b'{"detail":null}',
        b'{"type":"progress","message":"x"}',
        b'{"status":"queued","message":"waiting: the server is busy"}',
        b'{"status":202,"message":"queued"}',
        b'{"code":102,"message":"processing"}',
        b'{"code":"302","message":"x"}',
        b'{"type":"notice","message":"still here"}',
        b'{"code":7,"message":"seven ahead"}',
        b'{"success":true,"code":200,"message":"x"}',
        b'{"base_resp":{"status_code":0,"status_msg":"success"}}',
        b'{"base_resp":null}',
        b'{"error_code":0,"error_msg":"success"}',
        b'{"errorCode":null}',
        b'{"errors":[]}',
        b'{"event":"message","message":"x"}',
    ],
)
def test_what_says_nothing_is_no_failure(raw: bytes) -> None:
    """SSE-10"""
    assert not failures.is_failure(orjson.loads(raw))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b'{"message":"overloaded"}', faults.OVERLOADED),
        (b'{"error":{"code":429}}', faults.RATE_LIMITED),
        (b'"Too many requests"', faults.RATE_LIMITED),
        (b"Too many requests", faults.RATE_LIMITED),
        (b'{"choices":[{"delta":{"content":"x"}}]}', faults.UPSTREAM_BROKEN),
        (b"[]", faults.UPSTREAM_BROKEN),
        (b"\xff", faults.UPSTREAM_BROKEN),
        (b"", faults.UPSTREAM_BROKEN),
    ],
)
def test_an_event_that_is_an_error_by_its_name_is_one_whatever_its_data(data: bytes, fault: faults.Fault) -> None:
    assert failures.of_event(failures.document(data), PASSED_ON).fault == fault


CLEANED = {
    "a key": ("bad key sk-0123456789abcdef here", "bad key here"),
    "a masked key, its end": ("Your api key: ****abcd is invalid", "Your api key: is invalid"),
    "a masked key, its start": ("key sk-ab****cd and abcd**** are bad", "key and are bad"),
    "an address": ("see https://api.example.com/x?key=1 now", "see now"),
    "a host": ("failed at llm-7.prod.svc.cluster.local:8000 twice", "failed at twice"),
    "a plain host": ("mail deepseek.com or a@b.example", "mail or"),
    "an address in numbers": ("to 10.0.0.7:8000 refused, localhost:80 too", "to refused, too"),
    "a path": ('File "/usr/lib/python3/x.py" is bad', 'File "" is bad'),
    "a request id": ("limit (request id: 0217-ab) reached", "limit reached"),
    "a long id": ("call 5354a793-a130-4b36-b1dc-2610c5f49071 failed", "call failed"),
    "who stands behind us": ("DeepSeek and vLLM say no to deepseek-v3", None),
    "several lines": ("a\n  b\tc", "a b c"),
    "too long": ("word " * 200, ("word " * 60).strip()),
    "a comparison is no page": ("n must be < 4", "n must be < 4"),
    "a page": ("<html>no</html>", ""),
    "a stack trace": ("Traceback (most recent call last): x", ""),
    "an address of the newer kind": ("to fe80::1:8000 refused", "to refused"),
    "a bearer": ("with Bearer abc123def at all", "with at all"),
    "a key by its mixture": ("AKIAIOSFODNN7EXAMPLE is bad", "is bad"),
    "an organization": ("of org-AbC here", "of here"),
    "a path of Windows": (r"at C:\Users\a now", "at now"),
}


@pytest.mark.parametrize("name", CLEANED)
def test_no_key_host_path_or_id_leaves(name: str) -> None:
    """ERR-2, MET-4: neither to the caller nor to the log."""
    said, left = CLEANED[name]
    left = "the model service and the model service say no to deepseek-v3" if left is None else left
    refusal = failures.of_response(400, nested(said), PASSED_ON)
    assert (refusal.cause, refusal.said) == ("upstream failed with 400", left)
    assert refusal.fault in (faults.PARAMETER_REFUSED, faults.invalid(left))


@pytest.mark.parametrize(
    "sentence",
    [
        "Invalid max_tokens value, the valid range of max_tokens is [1, 393216]",
        "Invalid n value (currently only n = 1 is supported)",
        "Failed to deserialize the JSON body into the target type: messages[0]: missing field `content`",
        "messages[12].tool_calls[0].function.arguments: expected a string",
        "n must be < 4",
        "top_p=1.5 is not in (0.0, 1.0]",
        "'tools' is too long; the seed isn't a number",
        "Thinking mode does not support this tool_choice",
        "max_tokens should be in [1, 8192], got 9000",
        "Invalid value for 'top_p': must be between 0 and 1",
        "Input should be less than or equal to 2: temperature",
        "`tools[0].function.parameters` is not a valid JSON schema",
        "n must be 1 when using greedy sampling, got 2.",
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
        "This response_format type is unavailable now",
    ],
)
def test_a_sentence_about_a_field_in_plain_words_is_for_the_caller(sentence: str) -> None:
    """ERR-3: field, range, type."""
    assert failures.of_response(400, nested(sentence), PASSED_ON).fault == faults.invalid(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "bad regex",
        "cannot reach fe80::1:8000 with Bearer abc123def and AKIAIOSFODNN7EXAMPLE for n",
        r"temperature: no such file C:\Users\a",
        "organization org-AbC123 has no right to tools",
        "Received Model Group=deepseek",
        'max_tokens: File "", line 5, in f2',
        "stop: connection to llm.internal refused",
        "the tools of /srv/app are bad",
        "seed: key sk-0123456789abcdef",
        "<b>n</b>",
        "messages: Traceback (most recent call last)",
        "n \ud83d",
        "temperature of my secret customer John Smith was bad",
        "stop: Alice is not allowed",
        "top_p=secret is not a valid number",
        "max_tokens of internal_cluster is too large",
    ],
)
def test_any_other_sentence_is_not(sentence: str) -> None:
    """ERR-2, ERR-3: the list of what may pass is the short one."""
    raw = (
        b'{"error":{"message":"%b"}}'
        % sentence.replace("\\", "\\\\").replace('"', r"\"").replace("\ud83d", r"\ud83d").encode()
    )
    assert failures.of_response(400, raw, PASSED_ON).fault == faults.PARAMETER_REFUSED


def test_what_is_known_to_be_a_secret_leaves_whatever_it_looks_like() -> None:
    """ERR-3: plain words as keys and hosts are still keys and hosts."""
    terms = PASSED_ON._replace(known=("secret", "", "Gateway"))
    refusal = failures.of_response(400, nested("the seed of SECRET at gateway is bad"), terms)
    assert refusal.fault == faults.invalid("the seed of at is bad")
    assert refusal.said == "the seed of at is bad"


def test_a_path_that_is_wrong_is_told_to_the_operator_in_our_words() -> None:
    """ERR table: what upstream says of it helps nobody by itself."""
    refusal = failures.of_response(404, b'{"detail":"Not Found"}', PASSED_ON)
    assert refusal.cause.startswith("upstream answered 404 and named no model (is the base URL right?")
    assert refusal.said == "Not Found"

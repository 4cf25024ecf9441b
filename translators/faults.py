"""Failures as data: every error a caller can read, and the one exception that carries it out of the translators."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

Blame = Literal["caller", "operator", "upstream", "proxy"]
# Kinds of `InvalidParameter` that another tongue tells apart by their codes; one that is unnamed has none there.
Kind = Literal["invalid_type", "invalid_value", "unnamed"]


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure as the caller reads it.

    status:      HTTP status; inside a stream, the number of the `:HTTP_STATUS/` line
    code:        one of DashScope's published codes, none is invented
    message:     the exact text
    blame:       who can mend it
    retry_after: seconds or an HTTP date, as upstream or a limit of ours said; sent as `Retry-After`
    kind:        where a tongue has words for it; None: the code says it all
    source:      partner spec, error page; spec ERR-1, ERR-2
    """

    status: int
    code: str
    message: str
    blame: Blame = "caller"
    retry_after: str | None = None
    kind: Kind | None = None

    def after(self, retry_after: str | None) -> Fault:
        """The same fault, naming when a retry may succeed."""
        return replace(self, retry_after=retry_after)


class Refusal(Exception):  # noqa: N818 - it refuses a call; it is not an error of the program
    """A call that ends in a fault.

    fault: what the caller is told
    cause: what the operator's log is told beside it; never a key, a prompt or an answer
    said:  what upstream said of it, in one line of at most 300 characters without keys, addresses, hosts, paths and
           ids; it may repeat what the call says. "" where upstream said nothing
    """

    def __init__(self, fault: Fault, cause: str = "", said: str = "") -> None:
        super().__init__(f"{fault.status} {fault.code}: {cause or fault.message}")
        self.fault = fault
        self.cause = cause
        self.said = said


# How a cause begins where it is upstream that failed.
UPSTREAM: Final = "upstream "
# How a cause begins where upstream had begun to answer and then went away.
CUT: Final = "upstream broke off"

# The algorithm layer of the service prefixes its parameter texts, the gateway layer does not (spec REQ-8).
PARAMETER_PREFIX = "<400> InternalError.Algo.InvalidParameter: "

BODY_INVALID = Fault(400, "InvalidParameter", "Required body invalid, please check the request body format.")
MODEL_MISSING = Fault(400, "BadRequest.EmptyModel", 'Required parameter "model" missing from request.')
INPUT_MISSING = Fault(400, "BadRequest.EmptyInput", "Required input parameter missing from request.")
MODEL_UNKNOWN = Fault(400, "InvalidParameter", "Model not exist.")
BODY_TOO_LARGE = Fault(400, "BadRequest.TooLarge", "Payload Too Large.")
WRONG_ENDPOINT = Fault(400, "InvalidParameter", "url error, please check url！")
ENCRYPTED_BODY = Fault(400, "InvalidParameter", "Encrypted request bodies are not supported.")
NOT_FOUND = Fault(404, "NotFound", "Not found!")
NO_ASYNC = Fault(403, "AccessDenied", "Current user api does not support asynchronous calls.")
NO_KEY = Fault(401, "InvalidApiKey", "No API-key provided.")
BAD_KEY = Fault(401, "InvalidApiKey", "Invalid API-key provided.")
ACCESS_DENIED = Fault(403, "AccessDenied", "Access denied.")
ARREARAGE = Fault(400, "Arrearage", "Access denied, please make sure your account is in good standing.")
INPUT_MODERATED = Fault(400, "DataInspectionFailed", "Input data may contain inappropriate content.")
OUTPUT_MODERATED = Fault(400, "DataInspectionFailed", "Output data may contain inappropriate content.")
MODEL_NOT_FOUND = Fault(404, "ModelNotFound", "Model can not be found.", "operator")
RATE_LIMITED = Fault(429, "Throttling.RateQuota", "Requests rate limit exceeded, please try again later.")
BURST_LIMITED = Fault(
    429,
    "Throttling.BurstRate",
    "Request rate increased too quickly. To ensure system stability, please adjust your client logic to scale requests "
    "more smoothly over time.",
)
QUOTA_EXCEEDED = Fault(429, "Throttling.AllocationQuota", "Allocated quota exceeded, please increase your quota limit.")
# "occured" is the service's own spelling; clients match on it.
INTERNAL = Fault(
    500,
    "InternalError",
    "An internal error has occured, please try again later or contact service support.",
    "proxy",
)
UPSTREAM_BROKEN = replace(INTERNAL, blame="upstream")
UPSTREAM_KEY_REFUSED = replace(INTERNAL, blame="operator")
INFERENCE = Fault(500, "InternalError.Algo", "inference internal error.", "upstream")
TIMED_OUT = Fault(500, "RequestTimeOut", "Request timed out, please try again later.", "upstream")
OVERLOADED = Fault(
    503,
    "ModelServingError",
    "Too many requests. Your requests are being throttled due to system capacity limits. Please try again later.",
    "upstream",
)
UNAVAILABLE = Fault(503, "ModelUnavailable", "Model is unavailable, please try again later.", "upstream")
ACCOUNT_OVERDUE = replace(UNAVAILABLE, blame="operator")
UPSTREAM_PATH_UNKNOWN = replace(UNAVAILABLE, blame="operator")


def invalid(text: str, kind: Kind | None = None) -> Fault:
    """A refused parameter or message, in the algorithm layer's words (spec REQ-8)."""
    return Fault(400, "InvalidParameter", PARAMETER_PREFIX + text, kind=kind)


NOT_TEXT = invalid("input content must be a string.")
IMAGES_TOO_LARGE = invalid("Multimodal file size is too large")
IMAGE_NOT_LOADED = invalid("Failed to download multimodal content.")
IMAGE_NOT_DECODED = invalid("Failed to decode the image during the data inspection.")
IMAGE_MISSHAPEN = invalid("The image length and width do not meet the model restrictions.")
IMAGE_KIND = invalid("The media format is not supported or incorrect for the data inspection.")


def too_many_images(most: int, got: int) -> Fault:
    """More images in one call than may be."""
    return invalid(f"Too many images: max {most} images per request, got {got}")


# In the algorithm layer's words too, for it is the caller who can mend it; what upstream said is not for him to read.
PARAMETER_REFUSED = invalid("The upstream refused a parameter of this call.")


def wrong_method(method: str) -> Fault:
    """A known path, asked with a method it does not take (spec HTTP-4)."""
    return Fault(400, "InvalidParameter", f"Request method '{method}' is not supported.")


def no_thinking(model: str) -> Fault:
    """`enable_thinking` on a model whose row refuses it (spec PAR-14)."""
    return Fault(
        400, "InvalidParameter.NotSupportEnableThinking", f"The model {model} does not support enable_thinking."
    )


def input_length(limit: int) -> Fault:
    """A prompt longer than the model takes, by our count or by upstream's word (spec MOD-4)."""
    return invalid(f"Range of input length should be [1, {limit}]")

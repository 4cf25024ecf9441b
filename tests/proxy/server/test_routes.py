"""Claims about which path leads where: which tongue it speaks, what it takes, and what is kept of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import orjson
import pytest
from aiohttp import web

from config import models, sources
from proxy.call import gateway
from proxy.downstream.request import Request
from proxy.inspector.recent_calls import RecentCalls
from proxy.metering.journal import Record
from proxy.server import lifecycle, routes
from proxy.server.routes import Doors
from tests import caller
from tests.conftest import StartSimulator
from tests.proxy.conftest import StartGateway
from translators.compatible import tongue as compatible
from translators.dashscope import multimodal
from translators.dashscope import tongue as dashscope
from translators.tongue import Tongue

COMPLETION = {"model": "deepseek-v3", "messages": [{"role": "user", "content": "Hello"}]}
Make = Callable[[gateway.Gateway], web.Application]


@asynccontextmanager
async def serving(upstream: str, make: Make, **said: object) -> AsyncIterator[str]:
    """An application before a gateway of its own, at a URL."""
    chosen = sources.load({"upstream": (upstream,), "port": 0, **said}, None, {})
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(gateway.open_gateway(chosen, models.load(chosen)))
        running = await lifecycle.start(make(house), chosen)
        stack.push_async_callback(running.stop)
        yield running.url


@pytest.mark.parametrize(
    ("path", "body", "tongue"),
    [
        (caller.GENERATION, caller.call(), dashscope),
        ("/partner/models/deepseek-v3", caller.call(), dashscope),
        ("/api/v1/services/aigc/multimodal-generation/generation", caller.call(), multimodal),
        ("/v1/chat/completions", COMPLETION, compatible),
        ("/compatible-mode/v1/chat/completions", COMPLETION, compatible),
    ],
)
@pytest.mark.parametrize("sees", [True, False])
async def test_calls_are_made_in_the_tongue_of_their_path_with_images_where_a_model_sees(
    simulator: StartSimulator, tmp_path: Path, path: str, body: caller.Json, tongue: Tongue, *, sees: bool
) -> None:
    made: list[tuple[Tongue, int]] = []

    def request(came: web.Request, spoken: Tongue, image_bytes: int) -> Request:
        made.append((spoken, image_bytes))
        return Request(came, spoken, image_bytes)

    file = tmp_path / "models.toml"
    blind = [row["id"] for row in models.load(sources.load({"upstream": ("http://a",)}, None, {})) if row["sees"]]
    file.write_text("".join(f'[[model]]\nid = "{name}"\nsees = false\n' for name in blind if not sees))
    said = {"max_image_bytes": "1MB", "models_file": str(file)}
    url = (await simulator()).url
    async with serving(url, lambda house: routes.application(house, doors=Doors(request)), **said) as front:
        answer = await caller.ask(front, body, path=path)
        # Of a model that is called on the other path.
        assert answer.status == (400 if tongue is multimodal else 200)
        assert "Server-Timing" in answer.headers
        assert "Server-Timing" not in (await caller.ask(front, b"", path="/healthz", method="GET")).headers
    assert made == [(tongue, 1_000_000 if sees else 0)]


MODELS = ("/v1/models", "/compatible-mode/v1/models")


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/healthz", 200, b""),
        *(("GET", path, 200, b'"object":"list"') for path in MODELS),
        *(("GET", f"{path}/deepseek-v3", 200, b'"id":"deepseek-v3"') for path in MODELS),
        *(("GET", f"{path}/no/such", 404, b"no/such") for path in MODELS),
        *(("GET", f"{path}/no%0Asuch", 404, b"no\\nsuch") for path in MODELS),
        *(("HEAD", path, 400, b"") for path in MODELS),
        *(("POST", f"{path}/deepseek-v3", 400, b"POST") for path in MODELS),
        ("GET", "/api/v1/models", 200, b'"models":['),
        ("GET", "/api/v1/models?model=deepseek-v3", 200, b'"total":1'),
        ("HEAD", "/api/v1/models", 400, b""),
        ("GET", caller.GENERATION, 400, b"GET"),
        ("GET", "/elsewhere", 404, b""),
    ],
)
async def test_what_is_asked_beside_calls_has_its_paths_and_methods(
    gateway_before: StartGateway, method: str, path: str, status: int, said: bytes
) -> None:
    """HTTP-12, COM-1, COM-29."""
    front = await gateway_before("http://127.0.0.1:1")
    answer = await caller.ask(front.url, b"", {"Authorization": "Bearer sk-a"}, path=path, method=method)
    assert (answer.status, said in answer.body) == (status, True), answer.body
    assert answer.headers["Content-Type"].startswith("application/json") or path == "/healthz"
    assert not front.ended


async def test_the_tokens_of_a_prompt_are_counted(gateway_before: StartGateway) -> None:
    """HTTP-12."""
    front = await gateway_before("http://127.0.0.1:1")
    answer = await caller.ask(front.url, caller.call("Hello"), path="/api/v1/tokenizer")
    assert answer.status == 200
    assert orjson.loads(answer.body)["usage"]["input_tokens"] > 0


async def test_what_is_inspected_is_kept_from_both_sides_and_so_is_what_is_refused(simulator: StartSimulator) -> None:
    recent, kept, strays = RecentCalls(), list[Record](), list[int]()
    upstream = await simulator()
    async with serving(
        upstream.url, lambda house: routes.inspected(house, kept.append, recent, strays.append)
    ) as front:
        assert (await caller.ask(front, caller.call())).status == 200
        assert (await caller.ask(front, b"[]")).status == 400
        assert (await caller.ask(front, b"", path="/elsewhere")).status == 404
    answered, refused, stray = recent
    assert orjson.loads(answered.body) == caller.call()
    assert [call.status for call in answered.upstream] == [200]
    assert len(answered.packets) == 1
    assert b"InvalidParameter" in (refused.refusal or b"")
    assert (stray.path, stray.status) == ("/elsewhere", 404)
    assert (len(kept), strays) == (2, [404])

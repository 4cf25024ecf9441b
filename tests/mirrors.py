"""Which test file a source file is met in: the one at the same place under tests/, or the one that is named here.

`proxy/call/relay.py` is tests/proxy/call/test_relay.py's. A file that is named here has no words of its own to claim
(a table, a shape, a list of names), or is proved better from outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("proxy", "translators", "config")

ELSEWHERE: Mapping[str, str] = {
    "proxy/__main__.py": "tests/proxy/commands/test_cli.py",
    "proxy/admission/memory_limiter.py": "tests/proxy/admission/test_limits.py",
    "proxy/admission/redis_limiter.py": "tests/integration/test_shared_limits.py",
    "proxy/call/exchange.py": "tests/proxy/call/test_record.py",
    "proxy/call/handler.py": "tests/proxy/server/test_process.py",
    "proxy/commands/exit_codes.py": "tests/proxy/commands/test_cli.py",
    "proxy/commands/export.py": "tests/proxy/metering/test_export.py",
    "proxy/commands/files.py": "tests/proxy/commands/test_mistakes.py",
    "proxy/commands/help_texts.py": "tests/proxy/commands/test_cli.py",
    "proxy/commands/keys.py": "tests/proxy/admission/test_key_file.py",
    "proxy/commands/known_models.py": "tests/proxy/commands/test_mistakes.py",
    "proxy/commands/options.py": "tests/proxy/commands/test_cli.py",
    "proxy/downstream/paths.py": "tests/integration/test_surface.py",
    "proxy/downstream/phase.py": "tests/proxy/server/test_lifecycle.py",
    "proxy/downstream/request_ids.py": "tests/proxy/server/test_process.py",
    "proxy/metering/tables.py": "tests/proxy/metering/test_export.py",
    "proxy/metering/outcome.py": "tests/proxy/metering/test_journal.py",
    "proxy/protocol/claims_zh.py": "tests/proxy/protocol/test_claims.py",
    "proxy/protocol/compatible.py": "tests/test_openapi.py",
    "proxy/protocol/documents.py": "tests/test_protocol.py",
    "proxy/protocol/field_docs.py": "tests/test_openapi.py",
    "proxy/protocol/lint.py": "tests/test_lint.py",
    "proxy/protocol/openapi.py": "tests/test_openapi.py",
    "proxy/protocol/phrases.py": "tests/test_protocol.py",
    "proxy/protocol/probes.py": "tests/test_protocol.py",
    "proxy/protocol/schemas.py": "tests/test_openapi.py",
    "proxy/protocol/tables.py": "tests/test_protocol.py",
    "proxy/simulation/refusals.py": "tests/proxy/simulation/test_deepseek.py",
    "proxy/upstream/connections.py": "tests/proxy/upstream/test_client.py",
    "proxy/upstream/names.py": "tests/proxy/upstream/test_pools.py",
    "proxy/upstream/report.py": "tests/proxy/upstream/test_pools.py",
    "proxy/upstream/response.py": "tests/proxy/upstream/test_client.py",
    "proxy/upstream/targets.py": "tests/proxy/upstream/test_balancer.py",
    "translators/compatible/parameters.py": "tests/translators/compatible/test_call.py",
    "translators/compatible/shapes.py": "tests/translators/compatible/test_chunks.py",
    "translators/compatible/tongue.py": "tests/translators/test_tongue.py",
    "translators/dashscope/shapes.py": "tests/translators/dashscope/test_packets.py",
    "translators/deepseek/instructions.py": "tests/translators/deepseek/test_prompt.py",
    "translators/deepseek/markup.py": "tests/translators/deepseek/test_prompt.py",
    "translators/deepseek/templates.py": "tests/translators/deepseek/test_prompt.py",
    "translators/dialogue.py": "tests/translators/dashscope/test_call.py",
    "translators/explain.py": "tests/proxy/commands/test_translate.py",
    "translators/openai/fields.py": "tests/translators/openai/test_request.py",
    "translators/openai/messages.py": "tests/translators/openai/test_request.py",
    "translators/openai/plan.py": "tests/translators/openai/test_request.py",
    "translators/pretokens.py": "tests/translators/test_tokens.py",
    "config/sources.py": "tests/config/test_settings.py",
    "config/values.py": "tests/config/test_settings.py",
}


def sources() -> Iterator[Path]:
    """Every module that does something, from the root of the checkout."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if path.name != "__init__.py" and path.parent.name != "examples":
                yield path.relative_to(ROOT)


def mirror(source: Path) -> Path:
    """The test file in which a source file is met; it may not be there."""
    return Path(ELSEWHERE.get(str(source), f"tests/{source.parent}/test_{source.name}"))

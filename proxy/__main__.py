"""`python -m proxy` and the console script `dashseek`, into the command line of `proxy.commands.cli`."""

from __future__ import annotations

import gc
import sys
from importlib import util

OLDEST = (3, 11)
WRONG = 2
# While hundreds of modules and the vocabulary are read, the collector would find nothing, twenty times over.
LOADING = 10_000


def main() -> None:
    """Run the command line and end the process with its exit code (`cli.Exit`)."""
    if sys.version_info < OLDEST:
        _end(f"needs Python 3.11 or newer, and this is {sys.version_info[0]}.{sys.version_info[1]}")
    gc.set_threshold(LOADING)
    try:
        from proxy.server import signals  # noqa: PLC0415 - what is missing is said in a sentence

        if sys.argv[1:2] == ["serve"]:
            signals.prepare()
        from proxy.commands import cli  # noqa: PLC0415 - it takes its time, and signals come when they like

        cli.dashseek(prog_name="dashseek")
    except RuntimeError as error:
        # Up to Python 3.11 what a signal raises while a class is made comes wrapped, out of its `__set_name__`.
        if isinstance(error.__cause__, SystemExit):
            raise error.__cause__ from None
        raise
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or util.find_spec(package) is not None:
            raise
        _end(
            f"needs the package {package}, which {sys.executable} does not have: use the Python of the environment "
            "dashseek is installed in (.venv/bin/dashseek), or install it there (.venv/bin/pip install -e .)"
        )


def _end(sentence: str) -> None:
    print(f"Error: dashseek {sentence}", file=sys.stderr)  # noqa: T201 - nothing else may be there to say it with
    sys.exit(WRONG)


if __name__ == "__main__":
    main()

"""`python -m proxy` and the console script `dashseek`, into the command line of `proxy.commands.cli`."""

from __future__ import annotations

import sys

from proxy.server import signals


def main() -> None:
    """Run the command line and end the process with its exit code (`cli.Exit`)."""
    if sys.argv[1:2] == ["serve"]:
        signals.prepare()
    from proxy.commands import cli  # noqa: PLC0415 - it takes its time, and signals come when they like

    cli.dashseek(prog_name="dashseek")


if __name__ == "__main__":
    main()

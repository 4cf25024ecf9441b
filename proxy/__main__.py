"""`python -m proxy` and the console script `dashseek`, into the command line of `proxy.commands.cli`."""

from __future__ import annotations

from proxy.commands import cli


def main() -> None:
    """Run the command line and end the process with its exit code (`cli.Exit`)."""
    cli.dashseek(prog_name="dashseek")


if __name__ == "__main__":
    main()

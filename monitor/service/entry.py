"""The program `margin-monitor`. Plain `evaluate` starts without the command-line library, which would cost more than the evaluation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["evaluate_at_once", "main"]


def evaluate_at_once(arguments: Sequence[str]) -> int | None:
    """Runs `evaluate` when its arguments are files, --json, --explain and --tables PATH.

    Returns:
        The exit code; None for anything else (help, a misspelt option, no file), which the whole command line explains better.

    Raises:
        ConfigError: As the command.
    """
    files: list[Path] = []
    tables: list[Path] = []
    as_json = explain = False
    rest = iter(arguments)
    for argument in rest:
        if argument == "--json":
            as_json = True
        elif argument == "--explain":
            explain = True
        elif argument == "--tables":
            path = next(rest, None)
            if path is None:
                return None
            tables.append(Path(path))
        elif argument.startswith("-") and argument != "-":
            return None
        else:
            files.append(Path(argument))
    if not files:
        return None
    from monitor.service.evaluate import evaluate_command

    return evaluate_command(files, as_json=as_json, explain=explain, tables=tables)


def main() -> None:
    """Runs the command given on the command line; ends the process with its exit code."""
    if sys.argv[1:2] == ["evaluate"]:
        from monitor.errors import ConfigError

        try:
            code = evaluate_at_once(sys.argv[2:])
        except ConfigError as error:
            print(f"margin-monitor: {error}", file=sys.stderr)
            code = 2
        except BrokenPipeError:
            sys.stderr.close()
            code = 0
        except KeyboardInterrupt:
            code = 130
        if code is not None:
            raise SystemExit(code)
    from monitor.service.cli import main as whole

    whole()

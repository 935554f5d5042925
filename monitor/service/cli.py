"""The command line `margin-monitor`. Each command imports what it needs, so that `evaluate` answers at once.

Exit codes: 0 done, 1 failed, 2 usage, configuration or a refused document. Errors are one line on standard error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from monitor import __version__
from monitor.errors import ConfigError, MonitorError, RefusedError

__all__ = ["app", "main"]

app = typer.Typer(
    name="margin-monitor",
    help="Watches the cross-margin health of many accounts on exchange mark prices. It only watches: it never sends an order.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
accounts_app = typer.Typer(help="Accounts in the ledger: import, list, show, remove.", no_args_is_help=True)
dead_app = typer.Typer(help="Dead letters: updates and events that could not be used.", no_args_is_help=True)
tables_app = typer.Typer(help="Instrument, tier and haircut tables.", no_args_is_help=True)
bench_app = typer.Typer(help="Benchmarks. Quote ratios of one run.", no_args_is_help=True)
app.add_typer(accounts_app, name="accounts")
app.add_typer(dead_app, name="dead")
app.add_typer(tables_app, name="tables")
app.add_typer(bench_app, name="bench")

Config = Annotated[Path | None, typer.Option("--config", "-c", help="The TOML file of settings. Default: built-in settings.")]
Files = Annotated[list[Path], typer.Argument(help="x.json one document, x.jsonl one a line, x.csv the template; - reads JSON lines.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def version() -> None:
    """Print the version."""
    print(f"margin-monitor {__version__}")


@app.command()
def schema() -> None:
    """Print the JSON schemas of the portfolio document and of the result."""
    from monitor.service.schemas import print_schemas

    print_schemas(sys.stdout)


@app.command("check-config")
def check_config(
    file: Annotated[Path, typer.Argument(help="The TOML file.")],
    as_json: AsJson = False,
) -> None:
    """Check a settings file; print the effective settings with secrets hidden."""
    import orjson

    from monitor.service.settings import load_settings, redacted

    settings = load_settings(file)
    print(orjson.dumps(redacted(settings), option=0 if as_json else orjson.OPT_INDENT_2).decode())
    if not as_json:
        print(f"{file}: no error", file=sys.stderr)


@app.command()
def evaluate(
    files: Files,
    as_json: AsJson = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print every term of the sum.")] = False,
    tables: Annotated[list[Path] | None, typer.Option("--tables", help="Your own tables, over the shipped ones.")] = None,
) -> None:
    """Evaluate portfolio documents: one result for one call."""
    from monitor.service.evaluate import evaluate_command

    raise typer.Exit(evaluate_command(files, as_json=as_json, explain=explain, tables=tables or []))


def main() -> None:
    """Runs a command; turns the errors of this house into one line and an exit code."""
    try:
        app(standalone_mode=True)
    except (ConfigError, RefusedError) as error:
        print(f"margin-monitor: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except MonitorError as error:
        print(f"margin-monitor: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None


def _settings(config: Path | None, **overrides: Any) -> Any:
    """Settings from the file, the environment and the flags that were given. A flag `ledger_url` stands for the key `ledger.url`."""
    from monitor.service.settings import load_settings

    given = {name.replace("_", ".", 1): value for name, value in overrides.items() if value is not None}
    return load_settings(config, overrides=given)


if __name__ == "__main__":
    main()

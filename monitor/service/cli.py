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
silence_app = typer.Typer(help="Times at which people are told nothing; events are never held back.", no_args_is_help=True)
dead_app = typer.Typer(help="Dead letters: updates and events that could not be used.", no_args_is_help=True)
tables_app = typer.Typer(help="Instrument, tier and haircut tables.", no_args_is_help=True)
bench_app = typer.Typer(help="Benchmarks. Quote ratios of one run.", no_args_is_help=True)
app.add_typer(accounts_app, name="accounts")
app.add_typer(dead_app, name="dead")
app.add_typer(silence_app, name="silence")
app.add_typer(tables_app, name="tables")
app.add_typer(bench_app, name="bench")

Config = Annotated[Path | None, typer.Option("--config", "-c", help="The TOML file of settings. Default: built-in settings.")]
Files = Annotated[list[Path], typer.Argument(help="x.json one document, x.jsonl one a line, x.csv the template; - reads JSON lines.")]
Wait = Annotated[float, typer.Option("--wait", help="Give up after so many seconds.")]
LedgerUrl = Annotated[str | None, typer.Option("--ledger-url", help="Overrides ledger.url.")]
Pattern = Annotated[str, typer.Option(help="A name, or a pattern with *.")]
DeadLetterName = Annotated[str, typer.Argument(metavar="ID", help="As dead list prints it.")]
DeadLetterNames = Annotated[list[str], typer.Argument(metavar="ID...", help="As dead list prints them.")]
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

    from monitor.service.config_check import check_settings
    from monitor.service.settings import load_settings, redacted

    settings = load_settings(file)
    check_settings(settings, file)
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


@app.command()
def run(
    config: Config = None,
    stage: Annotated[str, typer.Option("--stage", help="Comma-separated: feeds, evaluator, alerts.")] = "feeds,evaluator,alerts",
    shard: Annotated[str, typer.Option("--shard", help="I/N: this process takes every N-th partition, from the I-th on.")] = "0/1",
    ledger_url: Annotated[str | None, typer.Option("--ledger-url", help="Overrides ledger.url.")] = None,
    http_port: Annotated[int | None, typer.Option("--http-port", help="Overrides http.port; 0 takes a free one.")] = None,
    wait: Annotated[float | None, typer.Option("--wait", help="Give up after so many seconds without Redis at start.")] = None,
    accept_ledger: Annotated[
        bool, typer.Option("--accept-ledger", help="Go on with an emptied, restored or other ledger than the one known here.")
    ] = False,
) -> None:
    """Run the daemon until Ctrl-C or SIGTERM."""
    from monitor.service.commands import run_command

    def load() -> Any:
        return _settings(config, ledger_url=ledger_url, http_port=http_port, ledger_wait_s=wait)

    raise typer.Exit(run_command(load, stages=stage, shard=shard, config=config, accept_ledger=accept_ledger))


@app.command()
def demo(
    seconds: Annotated[float, typer.Option("--seconds", envvar="DEMO_SECONDS", help="How long to run.")] = 60.0,
    accounts: Annotated[int, typer.Option("--accounts", help="How many accounts.")] = 2_000,
    symbols: Annotated[int, typer.Option("--symbols", help="How many instruments.")] = 40,
) -> None:
    """Run everything on this machine: a simulated venue with a crash, Redis, the daemon, MQTT where there is a broker."""
    from monitor.service.demo import demo_command

    raise typer.Exit(demo_command(seconds=seconds, accounts=accounts, symbols=symbols))


@app.command()
def replay(
    tape: Annotated[list[Path], typer.Option("--tape", help="Candle files of the venue, or recorded frames; may be given again.")],
    accounts: Annotated[list[Path] | None, typer.Option("--accounts", help="Portfolio documents; without, a seeded book.")] = None,
    speed: Annotated[str, typer.Option("--speed", help="Times as fast as the tape; max: as fast as it can be evaluated.")] = "max",
    book: Annotated[int, typer.Option("--book", help="Size of the seeded book.")] = 1_000,
    close_only: Annotated[bool, typer.Option("--close-only", help="One price a candle instead of four.")] = False,
    config: Config = None,
    tables: Annotated[list[Path] | None, typer.Option("--tables", help="Your own tables, over the shipped ones.")] = None,
) -> None:
    """Play a tape through the whole daemon, on a Redis of its own, and print what would have happened."""
    from monitor.service.replay import replay_command

    settings = _settings(config)
    code = replay_command(settings, tape, accounts or [], speed=speed, book=book, close_only=close_only, tables=tables or [])
    raise typer.Exit(code)


@app.command()
def simulate(
    tape: Annotated[list[Path] | None, typer.Option("--tape", help="Candle files or recorded frames; without, a seeded market.")] = None,
    speed: Annotated[str, typer.Option("--speed", help="Times as fast as the tape, or max.")] = "1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = 8765,
    venue: Annotated[str, typer.Option("--venue")] = "binance_usdm",
    symbols: Annotated[int, typer.Option("--symbols", help="Instruments of the seeded market.")] = 40,
    seed: Annotated[int, typer.Option("--seed")] = 7,
) -> None:
    """Serve a venue's protocol on loopback from a tape; point feeds.<venue>.url at it."""
    from monitor.service.replay import simulate_command

    raise typer.Exit(simulate_command(tape or [], speed=speed, port=port, venue=venue, symbols=symbols, seed=seed))


@app.command()
def top(
    address: Annotated[str, typer.Option("--address", help="HTTP address of the daemon.")] = "http://127.0.0.1:9464",
    count: Annotated[int, typer.Option("--count", "-n", help="How many accounts.")] = 20,
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
    interval: Annotated[float, typer.Option("--interval", help="Seconds between two looks.")] = 1.0,
    token_file: Annotated[Path | None, typer.Option("--token-file", help="The daemon's http.token_file, where it has one.")] = None,
) -> None:
    """Show the worst accounts, live."""
    from monitor.service.top import top_command

    raise typer.Exit(top_command(address, count=count, once=once, interval_s=interval, token_file=token_file))


@app.command()
def explain(account: str, config: Config = None, ledger_url: LedgerUrl = None, wait: Wait = 30.0) -> None:
    """Print every term of an account's sums, at the last prices."""
    from monitor.service.verify import explain_command

    raise typer.Exit(explain_command(_settings(config, ledger_url=ledger_url), account, wait_s=wait))


@app.command()
def verify(
    event: Annotated[str | None, typer.Argument(help="PARTITION/SEQ-TOKEN; without, all events.")] = None,
    all_events: Annotated[bool, typer.Option("--all", help="All events.")] = False,
    config: Config = None,
    ledger_url: LedgerUrl = None,
    wait: Wait = 30.0,
) -> None:
    """Walk the hash chain and recompute events from what they record. Exit code 1 when anything is wrong."""
    from monitor.service.verify import verify_command

    if (event is None) != all_events:
        raise typer.BadParameter("an event id, or --all")
    raise typer.Exit(verify_command(_settings(config, ledger_url=ledger_url), event, wait_s=wait))


@accounts_app.command("import")
def accounts_import(files: Files, config: Config = None, ledger_url: LedgerUrl = None, wait: Wait = 30.0) -> None:
    """Put portfolio documents on the update stream: all or none of them."""
    from monitor.service.accounts_commands import import_command

    raise typer.Exit(import_command(_settings(config, ledger_url=ledger_url), files, wait_s=wait))


@accounts_app.command("list")
def accounts_list(config: Config = None, ledger_url: LedgerUrl = None, wait: Wait = 30.0, as_json: AsJson = False) -> None:
    """List the accounts of the ledger: id, venue, group, sequence, level."""
    from monitor.service.accounts_commands import list_command

    raise typer.Exit(list_command(_settings(config, ledger_url=ledger_url), wait_s=wait, as_json=as_json))


@accounts_app.command("show")
def accounts_show(account: str, config: Config = None, ledger_url: LedgerUrl = None, wait: Wait = 30.0) -> None:
    """Print the stored document of an account."""
    from monitor.service.accounts_commands import show_command

    raise typer.Exit(show_command(_settings(config, ledger_url=ledger_url), account, wait_s=wait))


@accounts_app.command("remove")
def accounts_remove(accounts: list[str], config: Config = None, ledger_url: LedgerUrl = None, wait: Wait = 30.0) -> None:
    """Remove accounts."""
    from monitor.service.accounts_commands import remove_command

    raise typer.Exit(remove_command(_settings(config, ledger_url=ledger_url), accounts, wait_s=wait))


@silence_app.command("add")
def silence_add(
    reason: Annotated[str, typer.Option("--reason", help="Why; shown to everybody.")],
    lasts: Annotated[str | None, typer.Option("--for", help="How long: 90s, 30m, 2h, 3d; at most 30d.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Until when, with zone: 2026-01-31T18:00:00Z.")] = None,
    account: Pattern = "*",
    pool: Pattern = "*",
    group: Pattern = "*",
    venue: Pattern = "*",
    about: Annotated[str, typer.Option(help="A rule's name, or level; * for all.")] = "*",
    up_to: Annotated[str, typer.Option("--up-to", help="What is worse than this level is said all the same.")] = "margin_call",
    by: Annotated[str | None, typer.Option("--by", help="Who; the user of this shell without.")] = None,
    config: Config = None,
    ledger_url: LedgerUrl = None,
    wait: Wait = 30.0,
) -> None:
    """Say nothing about what matches, for a while. Prints the id of the silence."""
    from monitor.service.policy_commands import add_silence_command

    matching = {"account": account, "pool": pool, "group": group, "venue": venue, "about": about}
    settings = _settings(config, ledger_url=ledger_url)
    raise typer.Exit(
        add_silence_command(settings, matching=matching, up_to=up_to, lasts=lasts, until=until, reason=reason, by=by, wait_s=wait)
    )


@silence_app.command("list")
def silence_list(config: Config = None, ledger_url: LedgerUrl = None, wait: Wait = 30.0, as_json: AsJson = False) -> None:
    """List the silences in force."""
    from monitor.service.policy_commands import list_silences_command

    raise typer.Exit(list_silences_command(_settings(config, ledger_url=ledger_url), wait_s=wait, as_json=as_json))


@silence_app.command("remove")
def silence_remove(
    silence: Annotated[str, typer.Argument(metavar="ID")], config: Config = None, ledger_url: LedgerUrl = None, wait: Wait = 30.0
) -> None:
    """End a silence; what it held back and still stands is said."""
    from monitor.service.policy_commands import remove_silence_command

    raise typer.Exit(remove_silence_command(_settings(config, ledger_url=ledger_url), silence, wait_s=wait))


@app.command()
def ack(
    account: str,
    pool: Pattern = "*",
    about: Annotated[str, typer.Option(help="A rule's name, or level; * for all.")] = "*",
    config: Config = None,
    ledger_url: LedgerUrl = None,
    wait: Wait = 30.0,
) -> None:
    """Acknowledge what stands of an account: no repeats and no escalation until it gets worse."""
    from monitor.service.policy_commands import acknowledge_command

    raise typer.Exit(acknowledge_command(_settings(config, ledger_url=ledger_url), account, pool=pool, about=about, wait_s=wait))


@dead_app.command("list")
def dead_list(
    source: Annotated[str | None, typer.Option("--source", help="Only these: updates, notice, or the name of a sink.")] = None,
    config: Config = None,
    ledger_url: LedgerUrl = None,
    wait: Wait = 30.0,
    as_json: AsJson = False,
) -> None:
    """List what could not be used: where it came from, why, and how it begins."""
    from monitor.service.dead_commands import list_command

    raise typer.Exit(list_command(_settings(config, ledger_url=ledger_url), source=source, wait_s=wait, as_json=as_json))


@dead_app.command("show")
def dead_show(name: DeadLetterName, config: Config = None, ledger_url: LedgerUrl = None, wait: Wait = 30.0) -> None:
    """Print one dead letter whole."""
    from monitor.service.dead_commands import show_command

    raise typer.Exit(show_command(_settings(config, ledger_url=ledger_url), name, wait_s=wait))


@dead_app.command("retry")
def dead_retry(names: DeadLetterNames, config: Config = None, ledger_url: LedgerUrl = None, wait: Wait = 30.0) -> None:
    """Try again: an update is put back on the update stream, an event is given to its sink once more, with the same id."""
    from monitor.service.dead_commands import retry_command

    raise typer.Exit(retry_command(_settings(config, ledger_url=ledger_url), names, wait_s=wait))


@dead_app.command("drop")
def dead_drop(
    names: DeadLetterNames,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = None,
    ledger_url: LedgerUrl = None,
    wait: Wait = 30.0,
) -> None:
    """Forget dead letters."""
    from monitor.service.dead_commands import drop_command

    def is_sure(count: int) -> bool:
        return yes or typer.confirm(f"Drop {count} dead letters for good?")

    raise typer.Exit(drop_command(_settings(config, ledger_url=ledger_url), names, wait_s=wait, is_sure=is_sure))


@app.command()
def doctor(config: Config = None, within: Annotated[float, typer.Option("--within", help="Seconds a venue.")] = 20.0) -> None:
    """Look at Redis and at each configured venue: what works, what does not, what to do."""
    from monitor.service.doctor import doctor_command

    raise typer.Exit(doctor_command(_settings(config), within_s=within))


@app.command()
def record(
    folder: Annotated[Path, typer.Argument(help="Where recordings go.")],
    config: Config = None,
    seconds: Annotated[float | None, typer.Option("--seconds", help="Until Ctrl-C without.")] = None,
) -> None:
    """Record the raw frames of the configured venues, compressed, for `replay` and `simulate`."""
    from monitor.service.doctor import record_command

    raise typer.Exit(record_command(_settings(config), folder, seconds=seconds))


@bench_app.command("engine")
def bench_engine(
    size: Annotated[str, typer.Option("--size", help="small, medium, large or xl.")] = "large",
    step_bp: Annotated[float, typer.Option("--step-bp", help="Standard deviation of a price per tick, basis points.")] = 1.5,
    runs: Annotated[int, typer.Option("--runs")] = 5,
    gap: Annotated[float | None, typer.Option("--gap", help="Instead: all marks jump by this many percent in one message.")] = None,
    live: Annotated[float | None, typer.Option("--live", help="Instead: this many seconds at 10 messages a second.")] = None,
    growth: Annotated[bool, typer.Option("--growth", help="Instead: 500 pools in danger among 2,000 and among 1,000,000.")] = False,
    as_json: AsJson = False,
) -> None:
    """The engine alone, everything hot against hot and cold, in one run."""
    from monitor.service.bench import engine_command

    raise typer.Exit(engine_command(size, step_bp=step_bp, runs=runs, gap=gap, live=live, growth=growth, as_json=as_json))


@bench_app.command("feeds")
def bench_feeds(
    runs: Annotated[int, typer.Option("--runs")] = 5,
    symbols: Annotated[int, typer.Option("--symbols")] = 400,
    as_json: AsJson = False,
) -> None:
    """Frames decoded and put on the ticks stream: channels of all symbols, and of one symbol."""
    from monitor.service.bench_feeds import feeds_command

    raise typer.Exit(feeds_command(runs=runs, symbols=symbols, as_json=as_json))


@bench_app.command("pipeline")
def bench_pipeline(
    accounts: Annotated[int, typer.Option("--accounts")] = 10_000,
    symbols: Annotated[int, typer.Option("--symbols")] = 400,
    rate: Annotated[float, typer.Option("--rate", help="Messages a second, each with every symbol.")] = 10.0,
    step_bp: Annotated[float, typer.Option("--step-bp", help="Standard deviation of a price per message, basis points.")] = 1.5,
    seconds: Annotated[float, typer.Option("--seconds")] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Frame received to event in Redis, through the whole daemon."""
    from monitor.service.bench_pipeline import pipeline_command

    raise typer.Exit(pipeline_command(accounts=accounts, symbols=symbols, rate=rate, step_bp=step_bp, seconds=seconds, as_json=as_json))


@tables_app.command("convert")
def tables_convert(
    venue: str,
    files: Annotated[list[Path], typer.Argument(help="Answers of the venue's public metadata requests, as saved.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table file to write.")],
    taker_fee: Annotated[str | None, typer.Option("--taker-fee", help="Base taker fee rate, where the answers do not say it.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name what was left out.")] = False,
) -> None:
    """Turn a venue's public metadata answers into a table file."""
    from monitor.service.convert import convert_command

    raise typer.Exit(convert_command(venue, files, out, taker_fee=taker_fee, verbose=verbose))


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

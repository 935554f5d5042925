"""`evaluate` as a person and as a program uses it: one call, one result, exit codes, refusals on standard error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from monitor.errors import ConfigError
from monitor.margin.prices import Prices
from monitor.service.entry import evaluate_at_once
from monitor.service.evaluate import evaluate_files
from monitor.service.inputs import documents_of_file
from monitor.service.packaged import config_folder
from monitor.service.schemas import print_schemas, schema_text
from monitor.service.tables import VenueTables

__all__: list[str] = []

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
RESULT = Draft202012Validator(orjson.loads(schema_text("result")))
ROOT = Path(__file__).resolve().parents[2]


def document(account_id: str = "a", **account: Any) -> dict[str, Any]:
    """A long of 1 BTC at 100 with 50 in the wallet."""
    position = {"instrument": "X", "quantity": "1", "entry_price": "100"}
    return {
        "account": {
            "id": account_id,
            "venue": "binance_usdm",
            "balances": [{"asset": "USDT", "wallet": "50"}],
            "positions": [position],
            **account,
        },
        "instruments": {"X": {"kind": "linear_perpetual", "settle": "USDT", "tiers": [{"floor": 0, "maintenance_rate": "0.1"}]}},
        "prices": {"mark": {"X": "80"}},
    }


def evaluated(*paths: Path | str, **options: Any) -> tuple[dict[str, Any], int]:
    """The result document, held to its schema, and the exit code."""
    data, code = evaluate_files(paths, tables=VenueTables(), now=NOW, **options)
    result = orjson.loads(data)
    RESULT.validate(result)
    return result, code


def lines(path: Path, *bodies: Any) -> Path:
    """A file of JSON lines."""
    path.write_bytes(b"\n".join(body if isinstance(body, bytes) else orjson.dumps(body) for body in bodies) + b"\n")
    return path


def test_one_call_is_one_result_in_input_order(tmp_path: Path) -> None:
    """Several files, several documents: accounts in the order given, nothing refused, exit code 0."""
    (tmp_path / "one.json").write_bytes(orjson.dumps(document("z"), option=orjson.OPT_INDENT_2))
    many = lines(tmp_path / "many.jsonl", document("b"), document("a"))

    result, code = evaluated(tmp_path / "one.json", many)

    assert [account["id"] for account in result["accounts"]] == ["z", "b", "a"] and code == 0 and result["refused"] == []
    pool = result["accounts"][0]["pools"][0]
    assert (pool["equity"], pool["maintenance_margin"], pool["headroom"], pool["liquidatable"]) == ("30", "8", "22", False)
    assert result["accounts"][0]["as_of"] == "2026-01-31T08:00:00Z"


def test_a_refused_document_leaves_the_others_and_ends_with_2(tmp_path: Path) -> None:
    """Broken JSON, a wrong value, an account twice, an unknown rule set: each an entry with its place."""
    bad = document("c")
    bad["account"]["positions"][0]["quantity"] = 0
    file = lines(tmp_path / "x.jsonl", document("a"), b"{", bad, document("a"), document("d", rules="nobody"), document("e"))
    said: list[str] = []

    result, code = evaluated(file, report=lambda refusal: said.append(str(refusal)))

    assert code == 2 and [account["id"] for account in result["accounts"]] == ["a", "e"]
    assert [(entry["line"], entry["id"], entry["path"]) for entry in result["refused"]] == [
        (2, None, ""),
        (3, "c", "/account/positions/0/quantity"),
        (4, "a", "/account/id"),
        (5, "d", "/account/rules"),
    ]
    assert len(said) == 4 and f"{file}:3: account c: /account/positions/0/quantity: 0: expected not 0" in said[1]
    assert f"it is at {file}:1" in said[2]


@pytest.mark.parametrize("name", ["absent.json", "folder", "empty.json", "bom.json", "array.json"])
def test_a_file_that_is_no_document_is_one_refusal(tmp_path: Path, name: str) -> None:
    """It is named, and the other files are still evaluated."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.json").touch()
    (tmp_path / "bom.json").write_bytes(b"\xef\xbb\xbf" + orjson.dumps(document()))
    (tmp_path / "array.json").write_bytes(orjson.dumps([document()]))
    good = lines(tmp_path / "good.jsonl", document())

    result, code = evaluated(tmp_path / name, good)

    assert code == 2 and len(result["accounts"]) == 1
    assert [(entry["source"], entry["line"]) for entry in result["refused"]] == [(str(tmp_path / name), None)]


def test_standard_input_takes_lines_and_one_pretty_document() -> None:
    """`-` is JSON lines; a document over several lines is understood as well, a broken line is told by its number."""
    pretty = orjson.dumps(document("p"), option=orjson.OPT_INDENT_2)
    result, code = evaluated("-", stdin=io.BytesIO(b"\n" + pretty))
    assert [account["id"] for account in result["accounts"]] == ["p"] and code == 0

    broken = b"\n{\n" + orjson.dumps(document("q")) + b"\n"
    result, code = evaluated("-", stdin=io.BytesIO(broken))

    assert [account["id"] for account in result["accounts"]] == ["q"] and code == 2
    assert [(entry["source"], entry["line"]) for entry in result["refused"]] == [("-", 2)]


def test_no_document_is_an_empty_result(tmp_path: Path) -> None:
    """An empty file of lines holds no document, and that is no error."""
    assert evaluated(lines(tmp_path / "x.jsonl")) == ({"version": 1, "accounts": [], "refused": []}, 0)


def test_prices_come_from_the_document_or_else_from_the_store(tmp_path: Path) -> None:
    """Without both the pool is unknown and says what is missing."""
    bare = document()
    del bare["prices"]
    file = lines(tmp_path / "x.jsonl", document("own"), bare)

    without, _ = evaluated(file)
    stored, _ = evaluated(file, store=lambda venue: Prices(mark={"X": Decimal(60)} if venue == "binance_usdm" else {}))

    assert [account["pools"][0]["equity"] for account in without["accounts"]] == ["30", None]
    assert without["accounts"][1]["level"] is None and "mark price of X" in without["accounts"][1]["unknown"]
    assert [account["pools"][0]["equity"] for account in stored["accounts"]] == ["30", "10"]


def test_the_template_is_good_with_the_shipped_tables() -> None:
    """Every line of the shipped CSV template names instruments that the shipped tables know."""
    result, code = evaluated(config_folder() / "templates" / "accounts.csv")

    assert code == 0 and [account["id"] for account in result["accounts"]] == ["acme-1", "acme-2"]


def test_a_template_has_every_column() -> None:
    """The header of the template is the whole list."""
    from monitor.wire.csv_accounts import COLUMNS

    header = (config_folder() / "templates" / "accounts.csv").read_text(encoding="utf-8").splitlines()[0]
    assert tuple(header.split(",")) == COLUMNS


def test_schemas_print_both() -> None:
    """One JSON object with both schemas, unchanged."""
    out = io.StringIO()
    print_schemas(out)

    assert set(orjson.loads(out.getvalue())) == {"portfolio", "result"}
    assert orjson.loads(out.getvalue())["result"] == RESULT.schema
    with pytest.raises(KeyError):
        schema_text("other")


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The whole program."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "monitor", *arguments], input=stdin, capture_output=True, env=environment, timeout=60, check=False
    )


def test_the_program_prints_the_result_alone_on_standard_output(tmp_path: Path) -> None:
    """--json: one document out, refusals as lines on standard error as well, exit code 2."""
    bad = document("c")
    bad["account"]["colour"] = 1
    done = run("evaluate", "--json", str(lines(tmp_path / "x.jsonl", document("a"), bad)))

    assert done.returncode == 2
    assert [account["id"] for account in orjson.loads(done.stdout)["accounts"]] == ["a"]
    assert done.stderr.decode().startswith(
        f"margin-monitor: refused: {tmp_path}/x.jsonl:2: account c: /account/colour: 1: expected no such field"
    )
    assert done.stderr.count(b"\n") == 1


def test_the_program_tells_people_in_words() -> None:
    """Without --json a few lines; with --explain every term."""
    body = orjson.dumps(document("a"))
    short, long = run("evaluate", "-", stdin=body), run("evaluate", "--explain", "-", stdin=body)

    assert short.returncode == long.returncode == 0
    assert "a (binance_usdm): healthy" in short.stdout.decode() and "liquidation price 55.55" in short.stdout.decode()
    assert "rate 0.1, deduction 0" in long.stdout.decode() and "(read 20" in long.stdout.decode()


def test_a_broken_table_is_a_configuration_error(tmp_path: Path) -> None:
    """One line, exit code 2, before anything is evaluated."""
    (tmp_path / "own.json").write_text('{"venue": "okx", "assets": {"BTC": {"taker_fee": 2}}}')
    done = run("evaluate", "--json", "--tables", str(tmp_path / "own.json"), "-", stdin=orjson.dumps(document()))

    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr.decode().startswith(f"margin-monitor: {tmp_path}/own.json: /assets/BTC/taker_fee: 2: expected a rate")


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--jsn", "x"], ["x", "--tables"]])
def test_what_needs_the_whole_command_line_goes_there(arguments: list[str]) -> None:
    """Help and mistakes are the command-line library's."""
    assert evaluate_at_once(arguments) is None


def test_the_short_way_raises_what_the_command_raises(tmp_path: Path) -> None:
    """A table path that is not there."""
    with pytest.raises(ConfigError):
        evaluate_at_once(["--tables", str(tmp_path / "absent"), "x.json"])


def test_evaluate_imports_nothing_heavy() -> None:
    """No numba, numpy, pydantic, redis, typer or rich on the way of a plain evaluate."""
    code = (
        "import sys; sys.argv = ['margin-monitor', 'evaluate', '--json', '-']\n"
        "from monitor.service.entry import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numba', 'numpy', 'pydantic', 'redis', 'typer', 'rich', 'asyncio', 'structlog', 'starlette', 'logging'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], input=orjson.dumps(document()), capture_output=True, env=environment, timeout=60, check=False
    )

    assert done.stderr.decode().strip() == "[]"


def test_an_unknown_suffix_is_read_as_lines(tmp_path: Path) -> None:
    """A pipe such as /dev/fd/63 has no suffix."""
    entries = list(documents_of_file(lines(tmp_path / "pipe", document("a"), document("b"))))

    assert [entry.line for entry in entries] == [1, 2] and all(entry.error is None for entry in entries)

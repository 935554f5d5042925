"""`tables convert`: files in, a table file out, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from monitor.errors import ConfigError
from monitor.service.convert import convert_command
from monitor.service.tables import VenueTables

__all__: list[str] = []

META = {
    "universe": [{"name": "BTC", "maxLeverage": 40}, {"name": "OLD", "maxLeverage": 3, "isDelisted": True}],
    "marginTables": [],
}


def test_a_converted_file_is_used_like_any_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is written is read by the loader; what was left out is counted, or named on request."""
    answer, out = tmp_path / "meta.json", tmp_path / "own" / "hyperliquid.json"
    answer.write_bytes(orjson.dumps(META))
    out.parent.mkdir()

    assert convert_command("hyperliquid", [answer], out) == 0

    tiers = VenueTables([out.parent])("hyperliquid").instruments["BTC"].tiers
    assert tiers is not None and [row.max_leverage for row in tiers.rows] == [40]
    assert capsys.readouterr().err == "hyperliquid: 1 instruments, 0 assets\nleft out 1: delisted\n"
    assert convert_command("hyperliquid", [answer], None, verbose=True) == 0
    printed = capsys.readouterr()
    assert orjson.loads(printed.out)["venue"] == "hyperliquid" and "left out OLD: delisted" in printed.err


def test_futures_without_tiers_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Their pools would be unknown, so it is said."""
    row = {"symbol": "X", "contractType": "LinearPerpetual", "baseCoin": "X", "settleCoin": "USDT", "priceFilter": {"tickSize": "1"}}
    answer = tmp_path / "a.json"
    answer.write_bytes(orjson.dumps({"result": {"list": [row]}}))

    convert_command("bybit", [answer], tmp_path / "out.json", taker_fee="0.001")

    assert "1 futures without tiers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("venue", "name", "fee", "says"),
    [
        ("drift", "meta.json", None, "VENUE: drift: expected one of binance_usdm"),
        ("hyperliquid", "absent.json", None, "FILE: No such file or directory"),
        ("okx", "meta.json", None, "meta.json: .*expected an answer of instruments"),
        ("hyperliquid", "broken.json", None, "broken.json: .*expected whole JSON"),
        ("hyperliquid", "meta.json", "5", "--taker-fee: 5: expected a rate"),
        ("hyperliquid", "meta.json", "x", "--taker-fee: x: expected a rate"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, venue: str, name: str, fee: str | None, says: str) -> None:
    """The file or option, its value, what was expected."""
    (tmp_path / "meta.json").write_bytes(orjson.dumps(META))
    (tmp_path / "broken.json").write_bytes(b'{"universe": [')

    with pytest.raises(ConfigError, match=says):
        convert_command(venue, [tmp_path / name], None, taker_fee=fee)

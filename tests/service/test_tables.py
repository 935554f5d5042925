"""The loader of venue tables: what lies over what, and errors that name file and key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.errors import ConfigError
from monitor.margin.accounts import VENUES
from monitor.service.packaged import config_folder
from monitor.service.tables import VenueTables, table_files

__all__: list[str] = []


def write(path: Path, body: Any) -> Path:
    """A JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body if isinstance(body, bytes) else orjson.dumps(body))
    return path


def perpetual(rate: str) -> dict[str, Any]:
    """An instrument that can be told by its rate."""
    return {"kind": "linear_perpetual", "settle": "USDT", "tiers": [{"floor": 0, "maintenance_rate": rate}]}


def rate_of(tables: VenueTables, name: str) -> str:
    """The maintenance rate of an instrument of okx."""
    tiers = tables("okx").instruments[name].tiers
    assert tiers is not None
    return str(tiers.rows[0].maintenance_rate)


def test_own_entries_lie_over_shipped_ones_and_later_over_earlier(tmp_path: Path) -> None:
    """An entry replaces the whole entry of its name; the others stay."""
    write(tmp_path / "shipped/okx/a.json", {"venue": "okx", "instruments": {"A": perpetual("0.1"), "B": perpetual("0.1")}})
    first = write(tmp_path / "first.json", {"venue": "okx", "instruments": {"A": perpetual("0.2"), "C": perpetual("0.2")}})
    second = write(tmp_path / "own/deep/second.json", {"venue": "okx", "instruments": {"C": perpetual("0.3")}})

    tables = VenueTables([first, tmp_path / "own"], shipped=tmp_path / "shipped")

    assert [rate_of(tables, name) for name in "ABC"] == ["0.2", "0.1", "0.3"]
    assert second.exists() and tables("bybit").instruments == {}


def test_a_venue_is_read_once_and_told_by_its_fingerprint(tmp_path: Path) -> None:
    """The same object comes back; another file makes another fingerprint, an unrelated venue does not."""
    write(tmp_path / "okx/a.json", {"venue": "okx", "instruments": {"A": perpetual("0.1")}})
    own = write(tmp_path / "own.json", {"venue": "bybit", "assets": {"BTC": {"size_factor": 1}}})
    plain, more = VenueTables(shipped=tmp_path), VenueTables([own], shipped=tmp_path)

    assert plain("okx") is plain("okx")
    assert plain.fingerprint("okx") == more.fingerprint("okx") and len(plain.fingerprint("okx")) == 64
    assert plain.fingerprint("bybit") != more.fingerprint("bybit")


def test_house_rules_are_named_and_dated(tmp_path: Path) -> None:
    """A rule set of configuration carries its name and since when it holds."""
    write(tmp_path / "house/a.json", {"venue": "house", "rules": {"desk-2": {"since": "2026-01-31", "netting": "larger_side"}}})

    rules = VenueTables(shipped=tmp_path)("house").rules["desk-2"]

    assert (rules.name, rules.since, rules.netting, rules.value_basis) == ("desk-2", "2026-01-31", "larger_side", "mark")


@pytest.mark.parametrize(
    ("body", "key", "says"),
    [
        (b"{", "/", "ends too early"),
        ({}, "/venue", "required"),
        ({"venue": "nyse"}, "/venue", "one of"),
        ({"venue": "okx", "colour": 1}, "/colour", "no such field"),
        ({"venue": "okx", "source": 1}, "/source", "a text"),
        ({"venue": "okx", "read": "yesterday"}, "/read", "a date"),
        ({"venue": "okx", "rules": {}}, "/rules", "only house"),
        ({"venue": "house", "rules": {"a": {"since": 2020}}}, "/rules/a/since", "a text"),
        ({"venue": "house", "rules": {"a": {"netting": "all"}}}, "/rules/a/netting", "larger_side"),
        ({"venue": "okx", "instruments": {"A": {**perpetual("0.1"), "tiers": [{"floor": 1, "maintenance_rate": "0.1"}]}}},
         "/instruments/A/tiers/0/floor", "first floor"),
        ({"venue": "okx", "instruments": {"A": perpetual("1.1")}}, "/instruments/A/tiers/0/maintenance_rate", "0 to 1"),
        (b'{"venue":"okx","assets":{"A":{"size_factor":1},"A":{"size_factor":2}}}', "/assets/A", "twice"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_right_names_file_and_key(tmp_path: Path, body: Any, key: str, says: str) -> None:
    """One line: file, key, value, what was expected."""
    path = write(tmp_path / "own.json", body)

    with pytest.raises(ConfigError) as error:
        VenueTables([path], shipped=tmp_path)

    assert error.value.source == str(path) and error.value.key == key and says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_entry_in_two_files_of_one_folder_is_an_error(tmp_path: Path) -> None:
    """Which one holds would depend on file names."""
    write(tmp_path / "own/a.json", {"venue": "okx", "instruments": {"A": perpetual("0.1")}})
    write(tmp_path / "own/b.json", {"venue": "okx", "instruments": {"A": perpetual("0.2")}})

    with pytest.raises(ConfigError, match=r"b\.json: /instruments/A: A: expected each entry once; it is in .*a\.json too"):
        VenueTables([tmp_path / "own"])


@pytest.mark.parametrize("name", ["absent.json", "empty"])
def test_a_path_without_tables_is_an_error(tmp_path: Path, name: str) -> None:
    """A misspelt path must not silently mean the shipped tables."""
    (tmp_path / "empty").mkdir()

    with pytest.raises(ConfigError, match=name):
        VenueTables([tmp_path / name])


def test_a_shipped_file_in_the_wrong_folder_is_an_error(tmp_path: Path) -> None:
    """It would never be found."""
    write(tmp_path / "okx/a.json", {"venue": "bybit"})

    with pytest.raises(ConfigError, match="as the folder is named"):
        VenueTables(shipped=tmp_path).load_all()


def test_the_shipped_tables_are_good_and_say_where_they_are_from() -> None:
    """Every shipped file loads, and says source and date."""
    VenueTables().load_all()
    files = [file for venue in VENUES for folder in [config_folder() / "venues" / venue] if folder.is_dir() for file in table_files(folder)]

    assert files
    for path, file, _ in files:
        assert file.source and file.read, path

"""Converters: answers in the venues' shapes, figure by figure, and everything recorded that is at hand."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson
import pytest

from monitor.errors import RefusedError
from monitor.margin.instruments import Asset, Instrument, Kind
from monitor.margin.tables import Tables
from monitor.wire.metadata import CONVERTERS, convert
from monitor.wire.table_files import read_table_file
from tests.support.shared import SHARED, needs_shared

__all__: list[str] = []

D = Decimal


def tables_of(venue: str, *answers: Any, names: Sequence[str] = (), taker_fee: str | None = None) -> tuple[Tables, dict[str, str]]:
    """Tables, and what was left out."""
    files = [(names[i] if i < len(names) else f"{i}.json", orjson.dumps(answer)) for i, answer in enumerate(answers)]
    data, left_out, _ = convert(venue, files, read="2026-01-31", taker_fee=taker_fee)
    return read_table_file(data).tables, dict(left_out)


def tiers_of(instrument: Instrument) -> list[tuple[str, ...]]:
    """(floor, maintenance, initial or leverage, deduction) of each row, as text."""
    assert instrument.tiers is not None
    rows = instrument.tiers.rows
    return [tuple(str(x) for x in (r.floor, r.maintenance_rate, r.initial_rate or r.max_leverage, r.deduction)) for r in rows]


def weights_of(asset: Asset) -> list[tuple[str, str]]:
    """(floor, weight) of each slice."""
    return [(str(row.floor), str(row.weight)) for row in asset.weights.rows]


def test_binance_usdm() -> None:
    """Symbols, brackets out of order, asset buffers; what does not trade is left out with its status."""
    exchange_info = {
        "symbols": [
            {"symbol": "BTCUSDT", "contractType": "PERPETUAL", "status": "TRADING", "baseAsset": "BTC", "marginAsset": "USDT",
             "deliveryDate": 4133404800000, "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.10"}]},
            {"symbol": "BTCUSDT_260327", "contractType": "CURRENT_QUARTER", "status": "TRADING", "baseAsset": "BTC", "marginAsset": "USDT",
             "deliveryDate": 1774598400000, "filters": []},
            {"symbol": "OLDUSDT", "contractType": "PERPETUAL", "status": "SETTLING", "baseAsset": "OLD", "marginAsset": "USDT"},
        ]
    }  # fmt: skip
    brackets = [
        {"symbol": "BTCUSDT", "brackets": [
            {"initialLeverage": 100, "notionalFloor": 50000, "notionalCap": 250000, "maintMarginRatio": 0.005, "cum": 50.0},
            {"initialLeverage": 125, "notionalFloor": 0, "notionalCap": 50000, "maintMarginRatio": 0.004, "cum": 0.0},
        ]},
        {"symbol": "NEWUSDT", "brackets": [{"initialLeverage": 5, "notionalFloor": 0, "maintMarginRatio": 0.1, "cum": 0}]},
    ]  # fmt: skip
    index = [{"symbol": "BTCUSD", "index": "70000", "bidBuffer": "0.05", "askBuffer": "0.025"}]

    tables, left_out = tables_of("binance_usdm", brackets, exchange_info, index)

    perpetual, quarter = tables.instruments["BTCUSDT"], tables.instruments["BTCUSDT_260327"]
    assert (perpetual.kind, perpetual.settle, perpetual.underlying, perpetual.tick_size) == (Kind.LINEAR_PERPETUAL, "USDT", "BTC", D("0.1"))
    assert tiers_of(perpetual) == [("0", "0.004", "125", "0"), ("50000", "0.005", "100", "50")]
    assert quarter.kind is Kind.LINEAR_FUTURE and str(quarter.expiry) == "2026-03-27 08:00:00+00:00" and quarter.tiers is None
    assert left_out == {"OLDUSDT": "status SETTLING", "NEWUSDT": "it has brackets but stands in no exchangeInfo given"}
    assert tables.assets["BTC"].weights.rows[0].weight == D("0.95") and tables.assets["BTC"].debt_weights.rows[0].weight == D("1.025")


def test_binance_coinm() -> None:
    """Inverse contracts of their USD size; brackets in coin, under the field name that the venue misspells."""
    exchange_info = {"symbols": [{"symbol": "BTCUSD_PERP", "contractType": "PERPETUAL", "contractStatus": "TRADING", "contractSize": 100,
                                  "baseAsset": "BTC", "marginAsset": "BTC", "filters": []}]}  # fmt: skip
    bracket = {"symbol": "BTCUSD_PERP", "notionalCoef": 1.5, "brackets": [
        {"initialLeverage": 125, "qtylFloor": 0, "qtyCap": 5, "maintMarginRatio": 0.004, "cum": 0.0}]}  # fmt: skip

    tables, left_out = tables_of("binance_coinm", exchange_info, bracket)

    perpetual = tables.instruments["BTCUSD_PERP"]
    assert (perpetual.kind, perpetual.settle, perpetual.contract_size) == (Kind.INVERSE_PERPETUAL, "BTC", D(100))
    assert tiers_of(perpetual) == [("0", "0.004", "125", "0")]
    assert "notionalCoef of BTCUSD_PERP" in left_out


def bybit(*rows: dict[str, Any]) -> dict[str, Any]:
    """An answer with a list."""
    return {"retCode": 0, "result": {"list": list(rows)}}


def test_bybit() -> None:
    """Risk limits by upper end, in percent in old answers; slices of collateral; an option's strike from its name."""
    price = {"priceFilter": {"tickSize": "0.10"}}
    instruments = bybit(
        {"symbol": "BTCUSDT", "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": "BTC", "settleCoin": "USDT", **price},
        {"symbol": "BTCUSD", "contractType": "InversePerpetual", "status": "Trading", "baseCoin": "BTC", "settleCoin": "BTC", **price},
        {"symbol": "ETH-26JUN26-16000-P", "optionsType": "Put", "status": "Trading", "baseCoin": "ETH", "settleCoin": "USDC",
         "deliveryTime": "1782460800000", **price},
        {"symbol": "BTCUSDT-SPOT", "baseCoin": "BTC", "quoteCoin": "USDT"},
    )  # fmt: skip
    linear = bybit(
        {"symbol": "BTCUSDT", "riskLimitValue": "2600000", "maintenanceMargin": "0.0056", "initialMargin": "0.0111", "maxLeverage": "90",
         "mmDeduction": "1200"},
        {"symbol": "BTCUSDT", "riskLimitValue": "2000000", "maintenanceMargin": "0.005", "initialMargin": "0.01", "maxLeverage": "100.00",
         "mmDeduction": ""},
    )  # fmt: skip
    inverse = bybit(
        {"symbol": "BTCUSD", "riskLimitValue": "150", "maintenanceMargin": "0.5", "initialMargin": "1", "maxLeverage": "100.00"}
    )
    slices = [{"minQty": "0", "maxQty": "10", "collateralRatio": "0.98"}, {"minQty": "10", "maxQty": "20", "collateralRatio": "0.95"}]
    collateral = bybit({"currency": "BTC", "collateralRatioList": slices})
    borrowing = bybit({"currency": "BTC", "positionTiersRatioList": [
        {"tier": "1", "borrowLimit": "390", "positionMMR": "0.04", "positionIMR": "0.2"},
        {"tier": "2", "borrowLimit": "391", "positionMMR": "0.05", "positionIMR": "0.25"}]})  # fmt: skip

    tables, left_out = tables_of("bybit", instruments, linear, inverse, collateral, borrowing, taker_fee="0.00055")

    assert tiers_of(tables.instruments["BTCUSDT"]) == [("0", "0.005", "0.01", "0"), ("2000000", "0.0056", "0.0111", "1200")]
    assert tiers_of(tables.instruments["BTCUSD"]) == [("0", "0.005", "0.01", "0")]
    assert tables.instruments["BTCUSD"].kind is Kind.INVERSE_PERPETUAL and tables.instruments["BTCUSD"].taker_fee == D("0.00055")
    option = tables.instruments["ETH-26JUN26-16000-P"]
    assert (option.kind, option.option_type, option.strike, option.settle) == (Kind.LINEAR_OPTION, "put", D(16000), "USDC")
    assert weights_of(tables.assets["BTC"]) == [("0", "0.98"), ("10", "0.95"), ("20", "0")]
    debt = tables.assets["BTC"].borrow_tiers
    assert debt is not None
    assert [(str(row.floor), str(row.maintenance_rate), str(row.deduction)) for row in debt.rows] == [
        ("0", "0.04", "0"),
        ("390", "0.05", "0"),
    ]
    assert left_out == {"BTCUSDT-SPOT": "contract type spot"}


def test_okx() -> None:
    """Contract size is ctVal * ctMult; tiers go to the instruments of their family and of the type that the file's name says."""
    common = {"instFamily": "BTC-USD", "uly": "BTC-USD", "settleCcy": "BTC", "tickSz": "0.1", "state": "live", "ctMult": "1"}
    instruments = {"data": [
        {"instId": "BTC-USD-SWAP", "instType": "SWAP", "ctType": "inverse", "ctVal": "100", "expTime": "", **common},
        {"instId": "BTC-USD-260327", "instType": "FUTURES", "ctType": "inverse", "ctVal": "100", "expTime": "1774598400000", **common},
        {"instId": "BTC-USD-260327-70000-C", "instType": "OPTION", "ctType": "", "ctVal": "1", "expTime": "1774598400000", "optType": "C",
         "stk": "70000", **common, "ctMult": "0.01"},
        {"instId": "BTC-USDT", "instType": "SPOT", "ctType": ""},
    ]}  # fmt: skip
    tiers = {"data": [
        {"instFamily": "BTC-USD", "tier": "2", "minSz": "2001", "maxSz": "5000", "mmr": "0.005", "imr": "0.01", "maxLever": "100"},
        {"instFamily": "BTC-USD", "tier": "1", "minSz": "0", "maxSz": "2000", "mmr": "0.004", "imr": "0.008", "maxLever": "125"},
    ]}  # fmt: skip
    discounts = {"data": [
        {"ccy": "BTC", "discountLv": "1", "minDiscountRate": "0.1", "details": [
            {"minAmt": "20", "maxAmt": "25", "discountRate": "0.9775"}, {"minAmt": "0", "maxAmt": "20", "discountRate": "0.98"}]},
        {"ccy": "LTC", "discountLv": "2", "discountInfo": [{"discountRate": "0.95", "maxAmt": "2000000", "minAmt": "0"}]}]}  # fmt: skip

    tables, left_out = tables_of("okx", instruments, tiers, discounts, names=["i.json", "tiers-swap.json", "d.json"])

    swap, future, option = (tables.instruments[name] for name in ("BTC-USD-SWAP", "BTC-USD-260327", "BTC-USD-260327-70000-C"))
    assert tiers_of(swap) == [("0", "0.004", "0.008", "0"), ("2000", "0.005", "0.01", "0")]
    assert swap.tier_unit == "quantity" and swap.contract_size == 100 and future.tiers is None and future.expiry is not None
    assert (option.kind, option.contract_size, option.strike, option.underlying) == (Kind.INVERSE_OPTION, D("0.01"), D(70000), "BTC")
    assert weights_of(tables.assets["BTC"]) == [("0", "0.98"), ("20", "0.9775"), ("25", "0.1")]
    assert set(left_out) == {"BTC-USDT", "discount of LTC"}
    with pytest.raises(RefusedError, match="swap, futures or option"):
        tables_of("okx", instruments, tiers)


def test_deribit() -> None:
    """Quantities are USD for inverse futures, so the order step is not the contract size; combos are left out."""
    common = {"base_currency": "BTC", "settlement_currency": "BTC", "instrument_type": "reversed", "tick_size": 0.5, "contract_size": 10.0}
    future = {"kind": "future", "expiration_timestamp": 32503708800000, **common}
    answer = {"result": [
        {"instrument_name": "BTC-PERPETUAL", "settlement_period": "perpetual", **future},
        {"instrument_name": "BTC-27MAR26", "settlement_period": "month", **future, "expiration_timestamp": 1774598400000},
        {"instrument_name": "BTC-27MAR26-70000-C", "kind": "option", "option_type": "call", "strike": 70000.0,
         "expiration_timestamp": 1774598400000, **common},
        {"instrument_name": "SOL_USDC-PERPETUAL", "settlement_period": "perpetual", **future, "base_currency": "SOL",
         "settlement_currency": "USDC", "instrument_type": "linear"},
        {"instrument_name": "BTC-FS-27MAR26_PERP", "kind": "future_combo"},
    ]}  # fmt: skip

    tables, left_out = tables_of("deribit", answer)

    perpetual = tables.instruments["BTC-PERPETUAL"]
    assert perpetual.contract_size == 1 and perpetual.expiry is None and perpetual.tiers is not None
    assert (perpetual.tiers.rows[0].maintenance_rate, perpetual.tiers.rows[0].slope) == (D("0.01"), D("0.00005"))
    assert tables.instruments["BTC-27MAR26"].kind is Kind.INVERSE_FUTURE
    assert tables.instruments["BTC-27MAR26-70000-C"].kind is Kind.INVERSE_OPTION
    linear = tables.instruments["SOL_USDC-PERPETUAL"]
    assert linear.kind is Kind.LINEAR_PERPETUAL and linear.settle == "USDC" and linear.tiers is None
    assert left_out == {"BTC-FS-27MAR26_PERP": "kind future_combo"}


def test_hyperliquid() -> None:
    """Tables by id, flat ones below 50, another dex's collateral by spotMeta; delisted ones are left out."""
    main = {
        "universe": [
            {"name": "BTC", "maxLeverage": 40, "marginTableId": 56},
            {"name": "ATOM", "maxLeverage": 5, "marginTableId": 5},
            {"name": "OLD", "maxLeverage": 3},
            {"name": "GONE", "maxLeverage": 3, "isDelisted": True},
        ],
        "marginTables": [
            [56, {"marginTiers": [{"lowerBound": "0.0", "maxLeverage": 40}, {"lowerBound": "150000000.0", "maxLeverage": 20}]}]
        ],
    }
    dex = {"universe": [{"name": "km:US500", "maxLeverage": 20}], "marginTables": [], "collateralToken": 360}
    tokens = {"tokens": [{"name": "USDH", "index": 360}], "universe": []}

    tables, left_out = tables_of("hyperliquid", [main, dex], tokens)

    assert tiers_of(tables.instruments["BTC"]) == [("0", "0.0125", "40", "0"), ("150000000", "0.025", "20", "1875000.0000")]
    assert tiers_of(tables.instruments["ATOM"]) == [("0", "0.1", "5", "0")] and "OLD" in tables.instruments
    assert tables.instruments["km:US500"].settle == "USDH" and left_out == {"GONE": "delisted"}
    assert tables_of("hyperliquid", [main, dex])[1]["km:US500"].startswith("its collateral is token 360")


def test_dydx() -> None:
    """Fractions as printed; an upper open-interest cap of 0 is off; a name without spelling is left out."""
    market = {"status": "ACTIVE", "initialMarginFraction": "0.05", "maintenanceMarginFraction": "0.03", "tickSize": "0.01"}
    on = {"openInterestLowerCap": "40000000", "openInterestUpperCap": "100000000"}
    answer = {"markets": {
        "SOL-USD": market | on,
        "BTC-USD": market | {"openInterestLowerCap": "0", "openInterestUpperCap": "0"},
        "A,B-USD": market,
        "END-USD": market | {"status": "FINAL_SETTLEMENT"},
    }}  # fmt: skip

    tables, left_out = tables_of("dydx_v4", answer)

    solana = tables.instruments["SOL-USD"]
    assert tiers_of(solana) == [("0", "0.03", "0.05", "0")] and solana.open_interest_upper == 100_000_000 and solana.settle == "USDC"
    assert tables.instruments["BTC-USD"].open_interest_upper is None
    assert set(left_out) == {"A,B-USD", "END-USD"}


def test_bitmex() -> None:
    """Whole units: USD, XBT per point, coins; each risk step adds the base maintenance rate to both rates."""
    common = {"typ": "FFWCSX", "state": "Open", "settlCurrency": "XBt", "underlying": "XBT", "isQuanto": False, "tickSize": 0.5,
              "takerFee": 0.00075, "riskLimit": 20000000000, "riskStep": 15000000000, "initMargin": 0.01, "maintMargin": 0.005}  # fmt: skip
    answer = [
        {"symbol": "XBTUSD", "multiplier": -100000000, "isInverse": True, **common},
        {"symbol": "ETHUSD", "multiplier": 100, "isInverse": False, **common, "isQuanto": True},
        {"symbol": "XBTUSDT", "multiplier": 1, "isInverse": False, **common, "settlCurrency": "USDt"},
        {"symbol": "ETHH26", "multiplier": 100000000, "isInverse": False, **common, "typ": "FFCCSX", "expiry": "2026-03-27T12:00:00.000Z"},
        {"symbol": ".BXBT", "multiplier": None, "isInverse": False, **common, "typ": "MRCXXX"},
        {"symbol": "BROKEN", "multiplier": None, "isInverse": False, **common},
    ]

    tables, left_out = tables_of("bitmex", answer)

    perpetual = tables.instruments["XBTUSD"]
    rows = tiers_of(perpetual)
    assert perpetual.settle == "XBT" and perpetual.contract_size == 1 and perpetual.taker_fee == D("0.00075")
    assert rows[:3] == [("0", "0.005", "0.01", "0"), ("200", "0.01", "0.015", "0"), ("350", "0.015", "0.02", "0")]
    assert rows[-1][2] == "1" and len(rows) == 199
    assert tables.instruments["ETHUSD"].contract_size == D("0.000001") and tables.instruments["ETHUSD"].kind is Kind.QUANTO_PERPETUAL
    assert tables.instruments["XBTUSDT"].contract_size == D("0.000001") and tables.instruments["XBTUSDT"].settle == "USDT"
    assert tables.instruments["ETHH26"].kind is Kind.LINEAR_FUTURE and str(tables.instruments["ETHH26"].expiry)[:10] == "2026-03-27"
    assert left_out == {".BXBT": "type MRCXXX, state Open", "BROKEN": "it cannot be read: None is not a number"}


def test_kraken() -> None:
    """Levels in USD, whole-position rates; single-collateral contracts are left out."""
    levels = [
        {"numNonContractUnits": 1000000.0, "initialMargin": 0.04, "maintenanceMargin": 0.02},
        {"numNonContractUnits": 0.0, "initialMargin": 0.02, "maintenanceMargin": 0.01},
    ]
    common = {"type": "flexible_futures", "tickSize": 1, "contractSize": 1, "tradeable": True, "marginLevels": levels}
    answer = {"instruments": [
        {"symbol": "PF_XBTUSD", "base": "BTC", **common},
        {"symbol": "FF_XBTUSD_260327", "lastTradingTime": "2026-03-27T16:00:00.000Z", **common},
        {"symbol": "PI_XBTUSD", "type": "futures_inverse"},
    ]}  # fmt: skip

    tables, left_out = tables_of("kraken_futures", answer)

    perpetual, fixed = tables.instruments["PF_XBTUSD"], tables.instruments["FF_XBTUSD_260327"]
    assert tiers_of(perpetual) == [("0", "0.01", "0.02", "0"), ("1000000", "0.02", "0.04", "0")]
    assert perpetual.tier_unit == "notional" and perpetual.underlying == fixed.underlying == "BTC" and fixed.kind is Kind.LINEAR_FUTURE
    assert left_out == {"PI_XBTUSD": "type futures_inverse: not in the multi-collateral wallet"}


@pytest.mark.parametrize("venue", sorted(CONVERTERS))
@pytest.mark.parametrize("body", [[], {}, 1, {"data": []}, {"result": {"list": [{}]}}, {"result": [{"instrument_name": "A"}]}, "x"])
def test_a_foreign_answer_is_refused_by_name(venue: str, body: Any) -> None:
    """An answer of something else, or of a venue that changed its fields, converts to nothing silently never."""
    with pytest.raises(RefusedError) as error:
        tables_of(venue, body, names=["swap-answer.json"])

    assert error.value.path.startswith("swap-answer.json")


def recorded(name: str) -> list[tuple[str, bytes]]:
    """Recorded answers of one venue; the same question may stand there several times."""
    with gzip.open(SHARED / "data" / "meta" / "cryptofeed_rest" / f"{name}.0.gz") as lines:
        return [(f"{name}-{i}", line.split(b": ", 1)[1]) for i, line in enumerate(lines) if line.startswith(b"http")]


def nautilus(venue: str, *names: str) -> list[tuple[str, bytes]]:
    """Recorded or documented answers of one adapter's fixtures."""
    folder = SHARED / "data" / "ws" / "_fixtures_nautilus" / venue
    return [(name, (folder / f"{name}.json").read_bytes()) for name in names]


def jkorf(path: str) -> tuple[str, bytes]:
    """An answer of the other fixtures, below three lines about its request."""
    data = (SHARED / "data" / "ws" / "_fixtures_jkorf" / f"{path}.txt").read_bytes()
    return path, data.split(b"\n", 3)[3]


def answers_of(case: str) -> list[tuple[str, bytes]]:
    """The answers of one case."""
    match case:
        case "binance_usdm":
            futures = "Binance/Endpoints/UsdFutures"
            return [*recorded(case), jkorf(f"{futures}/Account/GetBrackets"), jkorf(f"{futures}/ExchangeData/GetAssetIndexes")]
        case "binance_coinm":
            return [*recorded(case), jkorf("Binance/Endpoints/CoinFutures/Account/GetBrackets")]
        case "bybit":
            instruments = nautilus(case, *(f"http_get_instruments_{kind}" for kind in ("linear", "inverse", "option")))
            return [*instruments, jkorf("Bybit/Endpoints/V5Api/ExchangeData/GetRiskLimit")]
        case "okx documented":
            ((_, tiers),) = nautilus("okx", "http_get_position_tiers")
            instruments = nautilus("okx", *(f"http_get_instruments_{kind}" for kind in ("swap", "futures", "option")))
            return [*instruments, ("swap-tiers", tiers), jkorf("OKX/Endpoints/UnifiedApi/ExchangeData/GetDiscountInfo")]
        case "deribit documented":
            return nautilus("deribit", "http_get_instruments")
        case "hyperliquid":
            name = "gareth_hyperliquidNodeDataSample__info-endpoint__meta.json"
            return [(name, (SHARED / "data" / "accounts" / "hyperliquid" / name).read_bytes())]
        case "hyperliquid dexes":
            names = ("http_meta_perp_sample", "http_all_perp_metas_non_usdc_collateral", "http_spot_meta_non_usdc_collateral")
            return nautilus("hyperliquid", *names)
        case "dydx_v4":
            return nautilus("dydx", "http_get_perpetual_markets")
        case "kraken_futures":
            return nautilus("kraken", "http_futures_instruments")
        case _:
            return recorded(case)


@needs_shared
@pytest.mark.parametrize(
    ("case", "least"),
    [
        ("binance_usdm", 121),
        ("binance_coinm", 36),
        ("bybit", 4),
        ("okx", 900),
        ("okx documented", 13),
        ("deribit", 1000),
        ("deribit documented", 3),
        ("hyperliquid", 173),
        ("hyperliquid dexes", 5),
        ("dydx_v4", 3),
        ("bitmex", 34),
        ("kraken_futures", 3),
    ],
)
def test_recorded_answers_convert(case: str, least: int) -> None:
    """What venues really answered becomes tables that the loader takes, and nothing in it was unreadable."""
    data, left_out, converted = convert(case.split(maxsplit=1)[0], answers_of(case), read="2026-01-31")

    assert len(read_table_file(data).tables.instruments) >= least
    assert not [reason for reason in left_out.values() if "cannot be read" in reason]
    assert data.decode().count("\n") >= len(converted.instruments)

"""One module per venue: its documented formula as parameters and small functions. `rules_of` picks the rule set in force."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import lru_cache

from monitor.errors import RefusedError
from monitor.margin.accounts import Account
from monitor.margin.tables import HouseRules, Tables
from monitor.margin.venues import binance, bitmex, bybit, deribit, drift, dydx, hyperliquid, kraken, mango, okx
from monitor.margin.venues.house import house_rules
from monitor.margin.venues.rules import MULTI, PORTFOLIO, SINGLE, STANDARD, MarginParts, Sized, VenueRules

__all__ = ["MULTI", "PORTFOLIO", "RULE_SETS", "SINGLE", "STANDARD", "MarginParts", "Sized", "VenueRules", "mode_of", "rules_of"]

RULE_SETS: Mapping[str, tuple[VenueRules, ...]] = {
    "binance_usdm": binance.USD_M,
    "binance_coinm": binance.COIN_M,
    "bybit": bybit.RULES,
    "okx": okx.RULES,
    "deribit": deribit.RULES,
    "hyperliquid": hyperliquid.RULES,
    "dydx_v4": dydx.RULES,
    "bitmex": bitmex.RULES,
    "kraken_futures": kraken.RULES,
    "drift": drift.RULES,
    "mango_v4": mango.RULES,
    "house": (house_rules(HouseRules()),),
}
"""Rule sets of every venue, oldest first. A set holds from its `since` until the next one's."""

_house = lru_cache(maxsize=256)(house_rules)


@lru_cache(maxsize=4096)
def _built_in(venue: str, name: str | None, day: date) -> VenueRules | None:
    sets = RULE_SETS[venue]
    if name is not None:
        return next((rules for rules in sets if rules.name == name), None)
    in_force = [rules for rules in sets if rules.since is None or date.fromisoformat(rules.since) <= day]
    return in_force[-1] if in_force else sets[0]


def rules_of(account: Account, tables: Tables, as_of: datetime) -> VenueRules:
    """The rule set an account is judged by: the one it names, else its venue's at `as_of` (UTC).

    `house` takes the set of that name from `tables.rules`, by default the one called "house", by default the defaults.

    Raises:
        RefusedError: The account names a rule set that neither the venue nor the configuration has.
    """
    name = account.rules
    if account.venue == "house":
        rules = tables.rules.get(name or "house")
        if rules is None:
            if name not in (None, "house"):
                raise RefusedError("/account/rules", str(name), "the name of a rule set in the configuration")
            rules = HouseRules()
        return _house(rules)
    found = _built_in(account.venue, name, as_of.astimezone(UTC).date())
    if found is None:
        raise RefusedError("/account/rules", str(name), "one of " + ", ".join(rules.name for rules in RULE_SETS[account.venue]))
    return found


def mode_of(account: Account, rules: VenueRules) -> str:
    """The account's mode, or the venue's default. Raises RefusedError for a mode the venue does not have."""
    mode = account.mode or rules.modes[0]
    if mode not in rules.modes:
        raise RefusedError("/account/mode", mode, " or ".join(rules.modes))
    return mode

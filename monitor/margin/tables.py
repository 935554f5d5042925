"""Where an account's instruments, assets, risk scenarios and house rules are looked up: the document's own tables over the venue's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from monitor.margin.instruments import Asset, Instrument, Risk

__all__ = ["NO_TABLES", "HouseRules", "Tables"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseRules:
    """What other venues have built in, written in configuration for `house`. First value of each: the default."""

    name: str = "house"
    since: str | None = None
    value_basis: str = "mark"
    closing_fee: str = "none"
    debts: str = "equity"
    netting: str = "none"
    liquidation: str = "at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Tables of ONE venue. A document's own entries lie over the configured ones: an entry replaces the whole entry of that name."""

    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    assets: Mapping[str, Asset] = field(default_factory=dict)
    risk: Mapping[str, Risk] = field(default_factory=dict)
    rules: Mapping[str, HouseRules] = field(default_factory=dict)

    def over(self, below: Tables) -> Tables:
        """These tables, with `below` where a name is not here."""
        return Tables(
            instruments={**below.instruments, **self.instruments} if self.instruments else below.instruments,
            assets={**below.assets, **self.assets} if self.assets else below.assets,
            risk={**below.risk, **self.risk} if self.risk else below.risk,
            rules={**below.rules, **self.rules} if self.rules else below.rules,
        )


NO_TABLES = Tables()

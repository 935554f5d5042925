"""The venues that have a feed, as data: one profile each, and the dialect that its simulator speaks.

Limits are the venues' published ones where they are published, kept with room to spare; sources are named in the codec of each venue.
"""

from __future__ import annotations

from collections.abc import Callable

from monitor.feeds.profile import Limits, Ping, VenueProfile
from monitor.wire.dialects import binance as binance_dialect
from monitor.wire.dialects import bitmex as bitmex_dialect
from monitor.wire.dialects import bybit as bybit_dialect
from monitor.wire.dialects import deribit as deribit_dialect
from monitor.wire.dialects import dydx_v4 as dydx_dialect
from monitor.wire.dialects import hyperliquid as hyperliquid_dialect
from monitor.wire.dialects import kraken_futures as kraken_dialect
from monitor.wire.dialects import okx as okx_dialect
from monitor.wire.dialects.base import Dialect
from monitor.wire.venues import binance_coinm, binance_usdm, bitmex, bybit, deribit, dydx_v4, hyperliquid, kraken_futures, okx

__all__ = ["DIALECTS", "PROFILES", "dialect_of", "profile_of"]

BINANCE_USDM = VenueProfile(
    venue=binance_usdm.VENUE,
    # By category since 2026-04-23; the addresses without one are silent. The server pings every 3 minutes and cuts after 24 h.
    endpoints={"market": "wss://fstream.binance.com/market/ws"},
    codec=lambda _endpoint: binance_usdm.codec(),
    topics=binance_usdm.topics,
    # 10 incoming messages a second, else a ban; 1024 streams a connection by the page, 200 by the practice of two client libraries.
    limits=Limits(topics=200, topics_per_request=100, messages=5, messages_period_s=1.0, connects=100, connects_period_s=300.0),
    session_s=23.5 * 3600,
)

BINANCE_COINM = VenueProfile(
    venue=binance_coinm.VENUE,
    endpoints={"ws": "wss://dstream.binance.com/ws"},
    codec=lambda _endpoint: binance_coinm.codec(),
    topics=binance_coinm.topics,
    limits=BINANCE_USDM.limits,
    session_s=23.5 * 3600,
)

BYBIT = VenueProfile(
    venue=bybit.VENUE,
    endpoints={
        "linear": "wss://stream.bybit.com/v5/public/linear",
        "inverse": "wss://stream.bybit.com/v5/public/inverse",
        "option": "wss://stream.bybit.com/v5/public/option",
    },
    codec=bybit.codec,
    topics=bybit.topics,
    derive=lambda: bybit.UsdIndices().derive,
    ping=Ping(every_s=20.0),
    # 21,000 characters of arguments a connection (options 2,000 topics); 500 connections in 5 minutes.
    limits=Limits(topics=500, topics_per_request=100, messages=10, messages_period_s=1.0, connects=100, connects_period_s=300.0),
    silence_s=15.0,
)

OKX = VenueProfile(
    venue=okx.VENUE,
    endpoints={"public": "wss://ws.okx.com:8443/ws/v5/public"},
    codec=lambda _endpoint: okx.codec(),
    topics=okx.topics,
    # Cut after 30 s of silence. A text ping each 20 s is 180 messages an hour, subscriptions may be 480.
    ping=Ping(every_s=20.0),
    limits=Limits(topics=500, topics_per_request=100, messages=480, messages_period_s=3600.0, connects=2, connects_period_s=1.0),
    silence_s=25.0,
)

DERIBIT = VenueProfile(
    venue=deribit.VENUE,
    endpoints={"ws": "wss://www.deribit.com/ws/api/v2"},
    codec=lambda _endpoint: deribit.codec(),
    topics=deribit.topics,
    # Subscribing about 3.3 a second with bursts of 10.
    limits=Limits(topics=500, topics_per_request=100, messages=3, messages_period_s=1.0, connects=20, connects_period_s=60.0),
    silence_s=15.0,
)

HYPERLIQUID = VenueProfile(
    venue=hyperliquid.VENUE,
    endpoints={"ws": "wss://api.hyperliquid.xyz/ws"},
    codec=lambda _endpoint: hyperliquid.codec(),
    topics=hyperliquid.topics,
    # The server closes after 60 s without a message of ours; 30 new connections a minute; one topic a message.
    ping=Ping(every_s=30.0),
    limits=Limits(topics=500, topics_per_request=1, messages=20, messages_period_s=1.0, connects=10, connects_period_s=60.0),
    silence_s=15.0,
)

DYDX_V4 = VenueProfile(
    venue=dydx_v4.VENUE,
    endpoints={"ws": "wss://indexer.dydx.trade/v4/ws"},
    codec=lambda _endpoint: dydx_v4.codec(),
    topics=dydx_v4.topics,
    # The server pings every 30 s and wants the pong within 10; 2 subscriptions a second, one channel a message.
    limits=Limits(topics=32, topics_per_request=1, messages=2, messages_period_s=1.0, connects=20, connects_period_s=60.0),
    silence_s=30.0,
)

BITMEX = VenueProfile(
    venue=bitmex.VENUE,
    endpoints={"ws": "wss://ws.bitmex.com/realtime"},
    codec=lambda _endpoint: bitmex.codec(),
    topics=bitmex.topics,
    ping=Ping(every_s=10.0),
    # A burst of 20 connections an hour (2017 notice); the welcome of 2021 counts down from 40.
    limits=Limits(topics=20, topics_per_request=20, messages=20, messages_period_s=60.0, connects=20, connects_period_s=3600.0),
    silence_s=30.0,
)

KRAKEN_FUTURES = VenueProfile(
    venue=kraken_futures.VENUE,
    endpoints={"ws": "wss://futures.kraken.com/ws/v1"},
    codec=lambda _endpoint: kraken_futures.codec(),
    topics=kraken_futures.topics,
    limits=Limits(topics=500, topics_per_request=50, messages=10, messages_period_s=1.0, connects=20, connects_period_s=60.0),
    silence_s=15.0,
)

PROFILES = {
    profile.venue: profile for profile in (BINANCE_USDM, BINANCE_COINM, BYBIT, OKX, DERIBIT, HYPERLIQUID, DYDX_V4, BITMEX, KRAKEN_FUTURES)
}
"""By the venue's name in documents and configuration."""

DIALECTS: dict[str, Callable[[], Dialect]] = {
    binance_usdm.VENUE: binance_dialect.binance_usdm,
    binance_coinm.VENUE: binance_dialect.binance_coinm,
    bybit.VENUE: bybit_dialect.BybitDialect,
    okx.VENUE: okx_dialect.OkxDialect,
    deribit.VENUE: deribit_dialect.DeribitDialect,
    hyperliquid.VENUE: hyperliquid_dialect.HyperliquidDialect,
    dydx_v4.VENUE: dydx_dialect.DydxDialect,
    bitmex.VENUE: bitmex_dialect.BitmexDialect,
    kraken_futures.VENUE: kraken_dialect.KrakenFuturesDialect,
}
"""The other side of each venue's protocol, for its simulator."""


def profile_of(venue: str) -> VenueProfile:
    """The profile of a venue that has a feed. Raises KeyError for another."""
    return PROFILES[venue]


def dialect_of(venue: str) -> Dialect:
    """The dialect of a venue that has a feed. Raises KeyError for another."""
    return DIALECTS[venue]()

"""The venues that have a feed, as data: one profile each."""

from __future__ import annotations

from monitor.feeds.profile import Limits, VenueProfile
from monitor.wire.venues import binance_usdm

__all__ = ["PROFILES", "profile_of"]

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

PROFILES = {profile.venue: profile for profile in (BINANCE_USDM,)}
"""By the venue's name in documents and configuration."""


def profile_of(venue: str) -> VenueProfile:
    """The profile of a venue that has a feed. Raises KeyError for another."""
    return PROFILES[venue]

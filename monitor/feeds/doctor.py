"""Is a venue's feed well? Connects as the daemon would, listens for a while, and says check by check what it found and what to do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import urlsplit

from monitor.feeds.clock import SYSTEM_CLOCK, Clock
from monitor.feeds.profile import VenueProfile
from monitor.feeds.supervisor import SWEEP_S, VenueFeed
from monitor.wire.frames import Wanted

__all__ = ["Finding", "examine"]

LATE_S, EARLY_S = 2.0, 0.25
"""Bounds of the smallest delay, as in the alert MarginMonitorClockSkew: no frame arrives before it was sent."""
DELAY_S = 1.0

_ADVICE = {
    "connect_failed": "is the host reachable from here (DNS, firewall)?",
    "connect_timeout": "something between here and the venue swallows the connection",
    "bad_handshake": "is this the venue's address, and a WebSocket?",
    "status_403": "the venue refuses this address (region, ban)",
    "status_418": "the venue has banned this address for a while",
    "status_429": "too many connections from this address",
    "status_404": "the path is wrong: has the venue moved its streams?",
    "silent": "connected and subscribed, but no price comes: has the venue moved its streams?",
    "unanswered": "the venue does not answer subscriptions",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: its name, whether it passed, and a line that a person can act on."""

    check: str
    passed: bool
    detail: str


async def examine(profile: VenueProfile, wanted: Wanted, *, within_s: float = 20.0, clock: Clock = SYSTEM_CLOCK) -> list[Finding]:
    """Listens until everything wanted has come, at most `within_s`, and then for three seconds more. Never raises for what a venue does.

    Checks: connection, subscriptions, prices, frames, delay, clock.
    """
    if not profile.topics(wanted):
        return [Finding("subscriptions", False, f"nothing to ask for: name symbols in feeds.{profile.venue}.symbols, or import accounts")]
    feed = VenueFeed(profile, wanted, lambda _batches: None, clock=clock)
    started_at = clock.monotonic()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(feed.run(), name=f"doctor:{profile.venue}")
        while not feed.is_ready() and clock.monotonic() - started_at < within_s:
            await clock.sleep(SWEEP_S)
        ready_after_s = clock.monotonic() - started_at
        if feed.is_ready():
            await clock.sleep(3.0)
        findings = _findings(feed, ready_after_s, clock.monotonic() - started_at)
        running.cancel()
    return findings


def _findings(feed: VenueFeed, ready_after_s: float, listened_s: float) -> list[Finding]:
    statistics = feed.statistics
    hosts = ", ".join(sorted({urlsplit(address).netloc for address in feed.profile.endpoints.values()}))
    if not statistics.sessions:
        reasons = ", ".join(f"{reason} {count} times" for reason, count in statistics.reconnects.items()) or "no answer yet"
        advice = next((_ADVICE[reason] for reason in statistics.reconnects if reason in _ADVICE), "see the reasons")
        return [Finding("connection", False, f"{hosts}: {reasons}: {advice}")]
    lost = {reason: count for reason, count in statistics.reconnects.items() if reason != "rotated"}
    words = ", ".join(f"{reason} {count} times" for reason, count in lost.items())
    advice = next((_ADVICE[reason] for reason in lost if reason in _ADVICE), "the venue ends connections")
    findings = [Finding("connection", not lost, f"{hosts}: {words}: {advice}" if lost else f"{hosts}: open")]
    topics = len(feed.profile.topics(feed.wanted))
    denied = statistics.denied + statistics.subscribe_timeouts
    findings.append(
        Finding(
            "subscriptions",
            not denied,
            f"{statistics.denied} refused, {statistics.subscribe_timeouts} unanswered of {topics}: spelled as the venue spells them?"
            if denied
            else f"{topics} confirmed",
        )
    )
    missing = feed.missing()
    if missing or not statistics.marks:
        named = ", ".join(f"{kind.value} {name}" for kind, name in missing[:5]) or "any mark"
        findings.append(
            Finding("prices", False, f"nothing came for {named}{' and others' if len(missing) > 5 else ''} in {listened_s:.0f} s")
        )
    else:
        findings.append(Finding("prices", True, f"{statistics.symbols} marks, all there after {ready_after_s:.1f} s"))
    rejected = ", ".join(f"{reason} {count}" for reason, count in sorted(statistics.rejected.items()))
    rate = statistics.messages / listened_s if listened_s else 0.0
    findings.append(Finding("frames", not rejected, f"could not be used: {rejected}" if rejected else f"{rate:.1f} a second, all read"))
    if statistics.delay.count:
        median_s = statistics.delay.quantile(0.5)
        findings.append(
            Finding("delay", median_s <= DELAY_S, f"median {median_s * 1000:.0f} ms, worst {statistics.delay.maximum * 1000:.0f} ms")
        )
        skew_s = statistics.skew.seconds or 0.0
        good = -EARLY_S <= skew_s <= LATE_S
        findings.append(
            Finding(
                "clock", good, f"smallest delay {skew_s:+.3f} s" + ("" if good else ": this machine's clock or the venue's is wrong (NTP?)")
            )
        )
    return findings

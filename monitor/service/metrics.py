"""Metrics: one catalogue of every name, and a collector that reads the stages' plain counters at scrape time.

The hot path knows nothing of Prometheus. A source is a function that yields samples; the catalogue says what each name means, and a
sample with a name, a label or a kind that is not in the catalogue is a programmer's error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from monitor.measures import Durations

__all__ = ["CATALOGUE", "PREFIX", "Described", "Exposition", "Sample", "by_reason"]

PREFIX = "margin_monitor_"
SECONDS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Described(NamedTuple):
    """What a metric is: kind (gauge, counter, histogram), the sentence shown as help, its labels."""

    kind: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric. Histograms carry `Durations`, or (bounds, counts up to each bound, total count, sum)."""

    name: str
    value: float | Durations | tuple[Sequence[float], Sequence[float], float, float]
    labels: tuple[str, ...] = ()


CATALOGUE: dict[str, Described] = {
    "build_info": Described("gauge", "Always 1; the version is a label.", ("version",)),
    "ready": Described("gauge", "1 when /readyz passes."),
    "heartbeat_timestamp_seconds": Described("gauge", "Wall time at which the evaluator last made progress."),
    "loop_lag_seconds": Described("gauge", "How late the event loop woke up, worst of the last seconds."),
    "accounts": Described("gauge", "Accounts held."),
    "positions": Described("gauge", "Positions held."),
    "pools": Described("gauge", "Margin pools by level; unknown ones are not among them.", ("level",)),
    "pools_unknown": Described("gauge", "Margin pools whose level cannot be claimed, by reason.", ("reason",)),
    "margin_ratio_pools": Described("histogram", "Margin pools by margin ratio (1 is liquidation)."),
    "worst_margin_ratio": Described(
        "gauge", "Margin ratio of the worst pools; bounded by evaluator.worst_accounts.", ("rank", "account", "pool")
    ),
    "equity_usd": Described("gauge", "Sum of equity in USD; stable coins count at par, coins at their index price.", ("venue", "group")),
    "maintenance_margin_usd": Described("gauge", "Sum of maintenance margin and fees in USD, likewise.", ("venue", "group")),
    "feed_connected": Described("gauge", "1 while a venue's feed is connected and has every symbol it should.", ("venue",)),
    "feed_messages_total": Described("counter", "Frames received.", ("venue",)),
    "feed_prices_total": Described("counter", "Prices taken from frames.", ("venue",)),
    "feed_rejected_total": Described("counter", "Frames or prices that could not be used, by reason.", ("venue", "reason")),
    "feed_reconnects_total": Described("counter", "Connections opened again, by reason.", ("venue", "reason")),
    "feed_symbols": Described("gauge", "Symbols that have a price.", ("venue",)),
    "feed_stale_symbols": Described("gauge", "Symbols whose price is too old to be used.", ("venue",)),
    "feed_conflated_total": Described("counter", "Prices overtaken by a newer one before they could be written.", ("venue",)),
    "feed_delay_seconds": Described("histogram", "Receive time minus the venue's event time.", ("venue",)),
    "feed_clock_skew_seconds": Described(
        "gauge", "Smallest recent delay: negative means that a clock is wrong. NaN before the first number with an event time.", ("venue",)
    ),
    "suspicious_prices": Described(
        "gauge",
        "Last prices to doubt, by reason: jump (for a minute), against_index, venue_deviation, single_source. They count all the same.",
        ("venue", "reason"),
    ),
    "tick_messages_total": Described("counter", "Price messages evaluated."),
    "ticks_total": Described("counter", "Prices evaluated."),
    "tick_position": Described("gauge", "Number of the last message evaluated, within its epoch."),
    "tick_lag_messages": Described("gauge", "Messages written to the ticks stream and not yet evaluated."),
    "tick_gaps_total": Described("counter", "Times that the ticks did not join on: a blind row was written."),
    "evaluate_seconds": Described("histogram", "Time to evaluate one price message, all accounts."),
    "event_latency_seconds": Described("histogram", "From a tick's receipt to its event in Redis."),
    "events_total": Described("counter", "Rows written to the event stream.", ("level", "kind")),
    "engine_pools": Described(
        "gauge", "Pools by temperature: hot ones are updated at every tick, cold ones skipped in their band.", ("temperature",)
    ),
    "engine_exact_decisions_total": Described("counter", "Decisions too close for floating point, settled exactly."),
    "engine_exact_pools": Described("gauge", "Pools that only the exact path can evaluate."),
    "engine_band_misses_total": Described("counter", "Level changes that the background pass found and a tick had missed: must stay 0."),
    "engine_pass_seconds": Described("gauge", "Duration of the last background pass over the whole book."),
    "engine_epsilon": Described(
        "gauge",
        "Relative price move below which a pool is kept hot, chosen from measured moves: by kind, sums (updated row by row) or fresh.",
        ("kind",),
    ),
    "ledger_commits_total": Described("counter", "Transactions committed to the ledger."),
    "ledger_commit_seconds": Described("histogram", "Duration of one commit."),
    "ledger_settles_total": Described("counter", "Commits whose outcome had to be found out, by what it was.", ("outcome",)),
    "ledger_degraded": Described("gauge", "1 while the ledger cannot be written."),
    "ledger_queue_rows": Described("gauge", "Verdicts waiting to be committed."),
    "ledger_memory_ratio": Described("gauge", "Memory used by the ledger's Redis over its maxmemory; 0 without a limit."),
    "outbox_lag_events": Described("gauge", "Events written and not yet delivered.", ("sink",)),
    "sink_delivered_total": Described("counter", "Events delivered.", ("sink",)),
    "sink_unavailable_total": Described(
        "counter", "Attempts that failed because the receiver could not be reached, by reason.", ("sink", "reason")
    ),
    "sink_refused_total": Described("counter", "Events that the receiver refused: they are in the dead letters.", ("sink", "reason")),
    "notices_outstanding": Described("gauge", "Notices of the alert policy that a sink does not have yet, counted for each sink."),
    "policy_damaged_total": Described("counter", "Records and requests of the alert policy that could not be read."),
    "alerts_firing": Described("gauge", "What stands by the alert policy: levels, unknown pools and rules, by severity.", ("severity",)),
    "rules_round_seconds": Described("gauge", "How long the last round of the alert policy's rules over the whole book took."),
    "rules_read_total": Described("counter", "Pools read by the alert policy's rules."),
    "rules_solved_total": Described("counter", "Of these, pools whose liquidation prices were solved for it."),
    "dead_letters": Described("gauge", "Updates and events in the dead letters.", ("source",)),
    "updates_applied_total": Described("counter", "Account documents applied."),
    "updates_dropped_total": Described("counter", "Account documents not applied, by reason.", ("reason",)),
    "verify_mismatches_total": Described("counter", "Events or records that did not verify: must stay 0."),
    "config_last_reload_successful": Described("gauge", "1 when the last reload of the settings succeeded."),
    "config_last_reload_success_timestamp_seconds": Described("gauge", "Wall time of the last successful load of the settings."),
    "config_hash": Described("gauge", "Number that changes with the effective settings."),
}
"""Every metric, without the prefix `margin_monitor_`."""

Source = Callable[[], Iterable[Sample]]


def by_reason(name: str, counts: Mapping[str, int], known: Iterable[str], *labels: str) -> Iterator[Sample]:
    """Samples of a counter by reason, the known ones from 0 on: what appears with its first count has no rate for it."""
    for reason, count in {**dict.fromkeys(map(str, known), 0), **counts}.items():
        yield Sample(name, count, (*labels, str(reason)))


class Exposition(Collector):
    """Collects the samples of all sources. One registry a daemon, nothing global."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = list(sources)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def add(self, source: Source) -> None:
        """Adds a source."""
        self._sources.append(source)

    def collect(self) -> Iterator[Metric]:
        """Yields each metric of the catalogue that has a sample."""
        families: dict[str, Metric] = {}
        for source in self._sources:
            for sample in source():
                described = CATALOGUE[sample.name]
                family = families.get(sample.name)
                if family is None:
                    family = families[sample.name] = _family(sample.name, described)
                _add(family, described, sample)
        yield from families.values()

    def text(self, accept: str) -> tuple[bytes, str]:
        """The exposition for an Accept header, and its content type."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type


def _family(name: str, described: Described) -> Metric:
    full = PREFIX + name
    if described.kind == "counter":
        return CounterMetricFamily(full.removesuffix("_total"), described.help, labels=described.labels)
    if described.kind == "histogram":
        return HistogramMetricFamily(full, described.help, labels=described.labels)
    return GaugeMetricFamily(full, described.help, labels=described.labels)


def _add(family: Metric, described: Described, sample: Sample) -> None:
    assert len(sample.labels) == len(described.labels), sample
    if isinstance(family, HistogramMetricFamily):
        if isinstance(sample.value, Durations):
            counts: Sequence[float] = sample.value.at_most(SECONDS)
            bounds: Sequence[float] = SECONDS
            count, total = float(sample.value.count), sample.value.total
        else:
            assert isinstance(sample.value, tuple)
            bounds, counts, count, total = sample.value
        buckets = [(f"{bound:g}", float(value)) for bound, value in zip(bounds, counts, strict=True)]
        family.add_metric(sample.labels, [*buckets, ("+Inf", count)], total)
    else:
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily) and isinstance(sample.value, int | float)
        family.add_metric(sample.labels, sample.value)

"""Writes the Grafana dashboards: Risk, Feeds, Engine and alerts. Plain dictionaries; run `make generated` after a change.

A panel is one line here: title, what it tells (shown as its help), unit, and its queries. Identifiers and places on the grid are
given by order. `tests/deploy/test_dashboards.py` holds the committed JSON to this file, every query to the metric catalogue, and runs
them all against a real Prometheus.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["DASHBOARDS", "FOLDER", "render"]

FOLDER = Path(__file__).resolve().parent / "dashboards"

Json = dict[str, Any]

_DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS = 24

# The colour ladder, as on the live page: from calm to black.
_LEVEL_COLOURS = {"healthy": "green", "watch": "yellow", "margin_call": "orange", "liquidation": "red", "bankrupt": "dark-purple"}
_GOOD_BAD: list[Json] = [{"color": "green", "value": None}, {"color": "red", "value": 1}]
_BAD_GOOD: list[Json] = [{"color": "red", "value": None}, {"color": "green", "value": 1}]
_RATIO_STEPS: list[Json] = [
    {"color": "green", "value": None},
    {"color": "yellow", "value": 0.65},
    {"color": "orange", "value": 0.8},
    {"color": "red", "value": 1},
]


def query(expression: str, legend: str = "", *, instant: bool = False, form: str = "time_series") -> Json:
    """One query of a panel. `form` is time_series, table or heatmap."""
    return {"expr": expression, "legendFormat": legend or "__auto", "instant": instant, "range": not instant, "format": form}


def quantiles(metric: str, by: str = "") -> list[Json]:
    """The median and the 99th percentile of a histogram over the rate interval, split by one label or not at all."""
    labels = f"le, {by}" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    where = '{venue=~"$venue"}' if by == "venue" else ""
    return [
        query(f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{where}[$__rate_interval])))", f"{legend}{name}")
        for q, name in ((0.5, "p50"), (0.99, "p99"))
    ]


def series(
    title: str,
    told: str,
    unit: str,
    queries: Sequence[Json],
    *,
    width: int = 12,
    stacked: bool = False,
    colours: dict[str, str] | None = None,
    lowest: float | None = 0,
) -> Json:
    """Lines over time; stacked areas where the parts make a whole."""
    custom: Json = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 60 if stacked else 8, "showPoints": "never", "spanNulls": False}
    custom["stacking"] = {"mode": "normal" if stacked else "none", "group": "A"}
    defaults: Json = {"unit": unit, "custom": custom}
    if lowest is not None:
        defaults["min"] = lowest
    overrides = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]}
        for name, colour in (colours or {}).items()
    ]
    options: Json = {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"], "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, told, queries, (width, 8), defaults, options, overrides)


def number(
    title: str,
    told: str,
    unit: str,
    expression: str,
    *,
    steps: list[Json] | None = None,
    width: int = 4,
    words: dict[str, str] | None = None,
) -> Json:
    """The present value, large; `words` are shown instead of values."""
    defaults: Json = {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps or [{"color": "text", "value": None}]}}
    if words:
        defaults["mappings"] = [
            {"type": "value", "options": {value: {"text": text, "index": i} for i, (value, text) in enumerate(words.items())}}
        ]
    options: Json = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value" if steps is None else "background",
        "graphMode": "area",
        "textMode": "value_and_name" if words else "value",
        "justifyMode": "auto",
        "orientation": "auto",
    }
    return _panel("stat", title, told, [query(expression)], (width, 4), defaults, options)


def heat(title: str, told: str, unit: str, expression: str, *, width: int = 24) -> Json:
    """Buckets of a histogram over time, darker where there is more. `unit` is that of the buckets."""
    options: Json = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "scale": "exponential", "exponent": 0.5, "steps": 64, "reverse": False},
        "yAxis": {"axisPlacement": "left", "unit": unit, "reverse": False},
        "rowsFrame": {"layout": "auto"},
        "legend": {"show": True},
        "tooltip": {"mode": "single", "yHistogram": True, "showColorScale": False},
        "filterValues": {"le": 1e-9},
    }
    return _panel("heatmap", title, told, [query(expression, "{{le}}", form="heatmap")], (width, 9), {"unit": "short"}, options)


def distribution(title: str, told: str, expression: str, *, width: int = 12) -> Json:
    """How many fall into each bucket of a histogram, now: one bar for each."""
    defaults: Json = {"unit": "short", "min": 0, "thresholds": {"mode": "absolute", "steps": [{"color": "blue", "value": None}]}}
    options: Json = {
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "showUnfilled": True,
        "minVizHeight": 12,
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }
    return _panel("bargauge", title, told, [query(expression, "{{le}}", form="heatmap")], (width, 10), defaults, options)


def table(title: str, told: str, unit: str, expression: str, columns: Sequence[str], *, width: int = 12, gauge: bool = False) -> Json:
    """The labels named in `columns` and the value, highest first; `gauge` draws the value on the colour ladder of margin ratios."""
    defaults: Json = {"unit": unit, "custom": {"align": "auto", "filterable": True}}
    overrides: list[Json] = []
    if gauge:
        defaults["thresholds"] = {"mode": "absolute", "steps": _RATIO_STEPS}
        cell = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
        properties = [{"id": "custom.cellOptions", "value": cell}, {"id": "min", "value": 0}, {"id": "max", "value": 1.2}]
        overrides = [{"matcher": {"id": "byName", "options": "Value"}, "properties": properties}]
    queries = [query(expression, instant=True, form="table")]
    panel = _panel("table", title, told, queries, (width, 10), defaults, {"showHeader": True, "cellHeight": "sm"}, overrides)
    order = {name: i for i, name in enumerate([*columns, "Value"])}
    panel["transformations"] = [
        {"id": "organize", "options": {"excludeByName": {"Time": True}, "indexByName": order}},
        {"id": "sortBy", "options": {"sort": [{"field": "Value", "desc": True}]}},
    ]
    return panel


def states(title: str, told: str, expression: str, legend: str, *, width: int = 12) -> Json:
    """When a 0/1 gauge was 1, one lane for each series."""
    defaults: Json = {
        "unit": "short",
        "custom": {"fillOpacity": 80, "lineWidth": 0},
        "thresholds": {"mode": "absolute", "steps": _BAD_GOOD},
        "color": {"mode": "thresholds"},
        "mappings": [{"type": "value", "options": {"0": {"text": "no", "index": 0}, "1": {"text": "yes", "index": 1}}}],
    }
    options: Json = {
        "mergeValues": True,
        "showValue": "never",
        "rowHeight": 0.8,
        "legend": {"showLegend": False},
        "tooltip": {"mode": "single"},
    }
    return _panel("state-timeline", title, told, [query(expression, legend)], (width, 8), defaults, options)


def heading(title: str) -> Json:
    """A row that can be folded."""
    return {"type": "row", "title": title, "collapsed": False, "panels": []}


def _panel(
    kind: str,
    title: str,
    told: str,
    queries: Sequence[Json],
    size: tuple[int, int],
    defaults: Json,
    options: Json,
    overrides: Sequence[Json] = (),
) -> Json:
    """A panel of `size` (width, height) on the grid of 24 columns."""
    return {
        "type": kind,
        "title": title,
        "description": told,
        "datasource": _DATASOURCE,
        "targets": [{**target, "refId": chr(ord("A") + i), "datasource": _DATASOURCE} for i, target in enumerate(queries)],
        "fieldConfig": {"defaults": defaults, "overrides": list(overrides)},
        "options": options,
        "gridPos": {"w": size[0], "h": size[1]},
    }


def chosen(name: str, label: str, metric: str, *, within: str = "") -> Json:
    """A variable: the values of one label, any number of them; `within` are matchers that narrow the choice."""
    asked = f"label_values({metric}{{{within}}}, {name})" if within else f"label_values({metric}, {name})"
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": _DATASOURCE,
        "query": {"query": asked, "refId": name},
        "definition": asked,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


_SOURCE: Json = {
    "type": "datasource",
    "name": "datasource",
    "label": "Prometheus",
    "query": "prometheus",
    "current": {},
    "refresh": 1,
    "multi": False,
    "includeAll": False,
}


def dashboard(uid: str, title: str, told: str, variables: Sequence[Json], panels: Sequence[Json]) -> Json:
    """A dashboard; panels are placed from left to right and wrap."""
    x = y = lowest = 0
    placed = []
    for number_, panel in enumerate(panels, start=1):
        size = panel.get("gridPos", {"w": _COLUMNS, "h": 1})
        if x + size["w"] > _COLUMNS or panel["type"] == "row":
            x, y = 0, lowest
        placed.append({**panel, "id": number_, "gridPos": {**size, "x": x, "y": y}})
        x += size["w"]
        lowest = max(lowest, y + size["h"])
    links = [
        {
            "type": "dashboards",
            "title": "margin-monitor",
            "tags": ["margin-monitor"],
            "asDropdown": False,
            "includeVars": True,
            "keepTime": True,
        }
    ]
    return {
        "uid": uid,
        "title": title,
        "description": told,
        "tags": ["margin-monitor"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-30m", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "links": links,
        "annotations": {"list": []},
        "templating": {"list": [_SOURCE, *variables]},
        "panels": placed,
    }


_HERE = '{venue=~"$venue", group=~"$group"}'

RISK = dashboard(
    "margin-monitor-risk",
    "Margin monitor: Risk",
    "The desk's risk: how many margin pools stand at which level, how close to liquidation, with how much equity.",
    [
        chosen("venue", "Venue", "margin_monitor_equity_usd"),
        chosen("group", "Group", "margin_monitor_equity_usd", within='venue=~"$venue"'),
    ],
    [
        number(
            "Ready",
            "Whether every process says that it can be relied on (/readyz).",
            "short",
            "min(margin_monitor_ready)",
            steps=_BAD_GOOD,
            words={"0": "no", "1": "yes"},
        ),
        number("Accounts", "Accounts watched.", "short", "sum(margin_monitor_accounts)"),
        number("Positions", "Positions watched.", "short", "sum(margin_monitor_positions)"),
        number(
            "In margin call",
            "Margin pools at level margin_call now.",
            "short",
            'sum(margin_monitor_pools{level="margin_call"})',
            steps=[{"color": "green", "value": None}, {"color": "orange", "value": 1}],
        ),
        number(
            "In liquidation",
            "Margin pools at level liquidation or bankrupt now.",
            "short",
            'sum(margin_monitor_pools{level=~"liquidation|bankrupt"})',
            steps=_GOOD_BAD,
        ),
        number(
            "Unknown",
            "Margin pools whose level cannot be claimed now: an input is missing or stale. They are not healthy.",
            "short",
            "sum(margin_monitor_pools_unknown)",
            steps=_GOOD_BAD,
        ),
        heading("Levels"),
        series(
            "Margin pools by level",
            "Pools at each level; unknown ones are not among them.",
            "short",
            [query("sum by (level) (margin_monitor_pools)", "{{level}}")],
            stacked=True,
            colours=_LEVEL_COLOURS,
        ),
        series(
            "Margin pools above healthy",
            "The same without the healthy ones, which would hide them.",
            "short",
            [query('sum by (level) (margin_monitor_pools{level!="healthy"})', "{{level}}")],
            stacked=True,
            colours=_LEVEL_COLOURS,
        ),
        series(
            "Level changes by level reached",
            "Events a minute, by the level after the change. Falls count as well as rises.",
            "short",
            [query('60 * sum by (level) (rate(margin_monitor_events_total{kind="level"}[$__rate_interval]))', "{{level}}")],
            stacked=True,
            colours=_LEVEL_COLOURS,
        ),
        series(
            "Unknown pools by reason",
            "Pools whose level cannot be claimed, by what is missing.",
            "short",
            [query("sum by (reason) (margin_monitor_pools_unknown)", "{{reason}}")],
            stacked=True,
        ),
        heading("Distance to liquidation"),
        heat(
            "Margin ratio of all pools over time",
            "How many pools stand at which margin ratio: (maintenance margin + fees) / equity. 100% is liquidation.",
            "percentunit",
            "sum by (le) (margin_monitor_margin_ratio_pools_bucket)",
        ),
        distribution(
            "Margin ratio of all pools now",
            "How many pools stand in each band of margin ratio.",
            "sum by (le) (margin_monitor_margin_ratio_pools_bucket)",
        ),
        table(
            "Worst pools",
            "The worst margin ratios, bounded by evaluator.worst_accounts. 100% is liquidation.",
            "percentunit",
            "topk(20, max by (account, pool) (margin_monitor_worst_margin_ratio))",
            ["account", "pool"],
            gauge=True,
        ),
        series(
            "Distance to liquidation of the worst pools",
            "1 - margin ratio: the share of its equity that a pool can still lose at unchanged maintenance margin. 0 is liquidation.",
            "percentunit",
            [query("bottomk(10, min by (account, pool) (1 - margin_monitor_worst_margin_ratio))", "{{account}} {{pool}}")],
            width=24,
            lowest=None,
        ),
        heading("Equity and maintenance margin"),
        series(
            "Equity by venue",
            "Sum of equity of the chosen groups. Pools in another currency are taken at par with USD.",
            "currencyUSD",
            [query(f"sum by (venue) (margin_monitor_equity_usd{_HERE})", "{{venue}}")],
            stacked=True,
            lowest=None,
        ),
        series(
            "Maintenance margin by venue",
            "Sum of maintenance margin and fees of the chosen groups.",
            "currencyUSD",
            [query(f"sum by (venue) (margin_monitor_maintenance_margin_usd{_HERE})", "{{venue}}")],
            stacked=True,
        ),
        series(
            "Equity by group",
            "Sum of equity on the chosen venues.",
            "currencyUSD",
            [query(f"sum by (group) (margin_monitor_equity_usd{_HERE})", "{{group}}")],
            stacked=True,
            lowest=None,
        ),
        series(
            "Maintenance margin by group",
            "Sum of maintenance margin and fees on the chosen venues.",
            "currencyUSD",
            [query(f"sum by (group) (margin_monitor_maintenance_margin_usd{_HERE})", "{{group}}")],
            stacked=True,
        ),
        series(
            "Maintenance margin over equity, by group",
            "Margin ratio of a whole group, as if its pools could help each other: a measure of the desk, not of any account.",
            "percentunit",
            [
                query(
                    f"sum by (group) (margin_monitor_maintenance_margin_usd{_HERE}) / sum by (group) (margin_monitor_equity_usd{_HERE})",
                    "{{group}}",
                )
            ],
            width=24,
            lowest=None,
        ),
    ],
)

_VENUE = '{venue=~"$venue"}'

FEEDS = dashboard(
    "margin-monitor-feeds",
    "Margin monitor: Feeds",
    "The prices: do they arrive, how fast, how late, and what is wrong with them.",
    [chosen("venue", "Venue", "margin_monitor_feed_connected")],
    [
        number(
            "Connected", "Venues whose feed is connected and complete.", "short", f"sum(margin_monitor_feed_connected{_VENUE})", width=6
        ),
        number(
            "Not connected",
            "Venues whose feed is not connected or lacks a symbol.",
            "short",
            f"count(margin_monitor_feed_connected{_VENUE} == 0) or vector(0)",
            steps=_GOOD_BAD,
            width=6,
        ),
        number(
            "Stale now",
            "Symbols whose price is too old to be used.",
            "short",
            f"sum(margin_monitor_feed_stale_symbols{_VENUE})",
            steps=_GOOD_BAD,
            width=6,
        ),
        number(
            "Prices a second",
            "Prices taken from frames, all venues.",
            "cps",
            f"sum(rate(margin_monitor_feed_prices_total{_VENUE}[$__rate_interval]))",
            width=6,
        ),
        heading("Do they arrive"),
        states(
            "Connected and complete",
            "One lane a venue: green while it was connected and had every symbol.",
            f"min by (venue) (margin_monitor_feed_connected{_VENUE})",
            "{{venue}}",
        ),
        series(
            "Reconnects",
            "Connections opened again, an hour, by reason. A venue's own 24 h cut is one of them.",
            "short",
            [
                query(
                    f"3600 * sum by (venue, reason) (rate(margin_monitor_feed_reconnects_total{_VENUE}[$__rate_interval]))",
                    "{{venue}} {{reason}}",
                )
            ],
        ),
        series(
            "Frames",
            "Frames received a second.",
            "cps",
            [query(f"sum by (venue) (rate(margin_monitor_feed_messages_total{_VENUE}[$__rate_interval]))", "{{venue}}")],
        ),
        series(
            "Prices",
            "Prices taken from frames a second.",
            "cps",
            [query(f"sum by (venue) (rate(margin_monitor_feed_prices_total{_VENUE}[$__rate_interval]))", "{{venue}}")],
        ),
        series(
            "Symbols", "Symbols that have a price.", "short", [query(f"sum by (venue) (margin_monitor_feed_symbols{_VENUE})", "{{venue}}")]
        ),
        series(
            "Stale symbols",
            "Symbols whose price is too old to be used. Pools that hold them are unknown.",
            "short",
            [query(f"sum by (venue) (margin_monitor_feed_stale_symbols{_VENUE})", "{{venue}}")],
        ),
        heading("How late"),
        series(
            "Delay",
            "Receive time minus the venue's event time: median and 99th percentile.",
            "s",
            quantiles("margin_monitor_feed_delay_seconds", "venue"),
            lowest=None,
        ),
        series(
            "Clock skew",
            "Smallest recent delay. Negative: a clock is wrong. Above 2 s either way an alert is raised.",
            "s",
            [query(f"max by (venue) (margin_monitor_feed_clock_skew_seconds{_VENUE})", "{{venue}}")],
            lowest=None,
        ),
        heat(
            "Delay of all chosen venues",
            "How many prices had which delay.",
            "s",
            f"sum by (le) (increase(margin_monitor_feed_delay_seconds_bucket{_VENUE}[$__rate_interval]))",
        ),
        heading("What is wrong with them"),
        series(
            "Rejected",
            "Frames or prices that could not be used, a minute, by reason. The last good price stays in place.",
            "short",
            [
                query(
                    f"60 * sum by (venue, reason) (rate(margin_monitor_feed_rejected_total{_VENUE}[$__rate_interval]))",
                    "{{venue}} {{reason}}",
                )
            ],
        ),
        series(
            "Suspicious",
            "Last prices to doubt, by reason: a jump, far from the index or other venues, or one source only. They count all the same.",
            "short",
            [query(f"sum by (venue, reason) (margin_monitor_suspicious_prices{_VENUE})", "{{venue}} {{reason}}")],
        ),
        series(
            "Conflated",
            "Prices a second that were overtaken by a newer one before they could be written: something here is slower than the venue.",
            "cps",
            [query(f"sum by (venue) (rate(margin_monitor_feed_conflated_total{_VENUE}[$__rate_interval]))", "{{venue}}")],
        ),
    ],
)

ENGINE = dashboard(
    "margin-monitor-engine",
    "Margin monitor: Engine and alerts",
    "The machine: from tick to event, from event to receiver, and what it costs.",
    [chosen("sink", "Sink", "margin_monitor_outbox_lag_events")],
    [
        number(
            "Tick to event, p99",
            "From a tick's receipt to its event in Redis, 99th percentile over the rate interval.",
            "s",
            "histogram_quantile(0.99, sum by (le) (rate(margin_monitor_event_latency_seconds_bucket[$__rate_interval])))",
        ),
        number(
            "Behind",
            "Price messages written and not yet evaluated, worst process.",
            "short",
            "max(margin_monitor_tick_lag_messages)",
            steps=[{"color": "green", "value": None}, {"color": "red", "value": 20}],
        ),
        number(
            "Outbox now",
            "Events written and not yet delivered, worst sink.",
            "short",
            "max(margin_monitor_outbox_lag_events)",
            steps=[{"color": "green", "value": None}, {"color": "orange", "value": 100}, {"color": "red", "value": 1000}],
        ),
        number(
            "Dead letters now", "Updates and events that could not be used.", "short", "sum(margin_monitor_dead_letters)", steps=_GOOD_BAD
        ),
        number(
            "Band misses",
            "Level changes that a tick had missed. Must stay 0.",
            "short",
            "sum(margin_monitor_engine_band_misses_total)",
            steps=_GOOD_BAD,
        ),
        number(
            "Mismatches",
            "Events or records that did not verify. Must stay 0.",
            "short",
            "sum(margin_monitor_verify_mismatches_total)",
            steps=_GOOD_BAD,
        ),
        heading("From tick to event"),
        series("Tick received to event in Redis", "Median and 99th percentile.", "s", quantiles("margin_monitor_event_latency_seconds")),
        series(
            "Evaluation of one price message",
            "All accounts, median and 99th percentile.",
            "s",
            quantiles("margin_monitor_evaluate_seconds"),
        ),
        series(
            "Messages evaluated",
            "Price messages a second.",
            "cps",
            [query("sum by (instance) (rate(margin_monitor_tick_messages_total[$__rate_interval]))", "{{instance}}")],
            width=8,
        ),
        series(
            "Ticks evaluated",
            "Prices a second.",
            "cps",
            [query("sum by (instance) (rate(margin_monitor_ticks_total[$__rate_interval]))", "{{instance}}")],
            width=8,
        ),
        series(
            "Messages behind",
            "Written to the ticks stream and not yet evaluated.",
            "short",
            [query("max by (instance) (margin_monitor_tick_lag_messages)", "{{instance}}")],
            width=8,
        ),
        series(
            "Events",
            "Rows written to the event stream, a second, by kind.",
            "cps",
            [query("sum by (kind) (rate(margin_monitor_events_total[$__rate_interval]))", "{{kind}}")],
            width=8,
        ),
        series(
            "Position on the ticks stream",
            "Number of the last message evaluated. It must rise; it starts anew with the feed process.",
            "short",
            [query("max by (instance) (margin_monitor_tick_position)", "{{instance}}")],
            width=8,
            lowest=None,
        ),
        series(
            "Gaps in the tick log",
            "Times in an hour that the ticks did not join on, and a blind row was written.",
            "short",
            [query("sum by (instance) (increase(margin_monitor_tick_gaps_total[1h]))", "{{instance}}")],
            width=8,
        ),
        heading("Engine"),
        series(
            "Pools hot and cold",
            "Hot pools stand near a threshold and are updated at every tick; cold ones are skipped while safe. A storm makes pools hot.",
            "short",
            [query("sum by (temperature) (margin_monitor_engine_pools)", "{{temperature}}")],
            stacked=True,
            colours={"hot": "red", "cold": "blue"},
        ),
        series(
            "Width below which a band is hot",
            "Relative price move. It follows the market.",
            "percentunit",
            [query("max by (kind) (margin_monitor_engine_epsilon)", "{{kind}}")],
        ),
        series(
            "Background pass",
            "Duration of the last pass over the whole book.",
            "s",
            [query("max by (instance) (margin_monitor_engine_pass_seconds)", "{{instance}}")],
            width=8,
        ),
        series(
            "Exact decisions",
            "Decisions a second that were too close for floating point.",
            "cps",
            [query("sum by (instance) (rate(margin_monitor_engine_exact_decisions_total[$__rate_interval]))", "{{instance}}")],
            width=8,
        ),
        series(
            "Pools evaluated exactly only",
            "Pools whose rules the columns do not hold.",
            "short",
            [query("sum by (instance) (margin_monitor_engine_exact_pools)", "{{instance}}")],
            width=8,
        ),
        heading("Ledger"),
        series(
            "Commit",
            "Duration of a transaction in Redis, median and 99th percentile.",
            "s",
            quantiles("margin_monitor_ledger_commit_seconds"),
        ),
        series(
            "Commits",
            "Transactions a second. A quiet market still makes a heartbeat.",
            "cps",
            [query("sum by (instance) (rate(margin_monitor_ledger_commits_total[$__rate_interval]))", "{{instance}}")],
        ),
        series(
            "Waiting for the ledger",
            "Verdicts in memory that are not committed yet.",
            "short",
            [query("sum by (instance) (margin_monitor_ledger_queue_rows)", "{{instance}}")],
            width=8,
        ),
        series(
            "Outcomes found out",
            "Commits an hour whose outcome was not known at first, by what it was.",
            "short",
            [query("3600 * sum by (outcome) (rate(margin_monitor_ledger_settles_total[$__rate_interval]))", "{{outcome}}")],
            width=8,
        ),
        series(
            "Memory of the ledger's Redis",
            "Share of its limit. At 50% a ticket, at 70% the slowest sink's backlog goes to a file.",
            "percentunit",
            [query("max by (instance) (margin_monitor_ledger_memory_ratio)", "{{instance}}")],
            width=8,
        ),
        states("Ledger can be written", "Green while it can.", "1 - max by (instance) (margin_monitor_ledger_degraded)", "{{instance}}"),
        series(
            "Account documents",
            "Updates applied, and not applied by reason, a minute.",
            "short",
            [
                query("60 * sum(rate(margin_monitor_updates_applied_total[$__rate_interval]))", "applied"),
                query("60 * sum by (reason) (rate(margin_monitor_updates_dropped_total[$__rate_interval]))", "dropped: {{reason}}"),
            ],
        ),
        heading("Alerts"),
        series(
            "Outbox",
            "Events written and not yet delivered, by sink.",
            "short",
            [query('max by (sink) (margin_monitor_outbox_lag_events{sink=~"$sink"})', "{{sink}}")],
        ),
        series(
            "Delivered",
            "Events delivered a second, by sink.",
            "cps",
            [query('sum by (sink) (rate(margin_monitor_sink_delivered_total{sink=~"$sink"}[$__rate_interval]))', "{{sink}}")],
        ),
        series(
            "Receiver not reached",
            "Failed attempts a minute, by sink and reason. They are tried again for ever.",
            "short",
            [
                query(
                    '60 * sum by (sink, reason) (rate(margin_monitor_sink_unavailable_total{sink=~"$sink"}[$__rate_interval]))',
                    "{{sink}} {{reason}}",
                )
            ],
            width=8,
        ),
        series(
            "Refused",
            "Events an hour that the receiver refused; they are in the dead letters.",
            "short",
            [
                query(
                    '3600 * sum by (sink, reason) (rate(margin_monitor_sink_refused_total{sink=~"$sink"}[$__rate_interval]))',
                    "{{sink}} {{reason}}",
                )
            ],
            width=8,
        ),
        series(
            "Dead letters",
            "Updates and events that could not be used, by source.",
            "short",
            [query("sum by (source) (margin_monitor_dead_letters)", "{{source}}")],
            width=8,
        ),
        series(
            "Standing by the alert policy",
            "Levels, unknown pools and rules that stand, by severity.",
            "short",
            [query("sum by (severity) (margin_monitor_alerts_firing)", "{{severity}}")],
            stacked=True,
            colours=_LEVEL_COLOURS,
        ),
        series(
            "Notices waiting, records unreadable",
            "Notices of the policy that a receiver does not have yet; records and requests an hour that could not be read.",
            "short",
            [
                query("sum by (instance) (margin_monitor_notices_outstanding)", "waiting {{instance}}"),
                query("3600 * sum by (instance) (rate(margin_monitor_policy_damaged_total[$__rate_interval]))", "unreadable {{instance}}"),
            ],
        ),
        series(
            "A round of the rules",
            "How long the policy's rules took for the whole book.",
            "s",
            [query("max by (instance) (margin_monitor_rules_round_seconds)", "{{instance}}")],
        ),
        series(
            "Pools read by the rules",
            "Pools a minute, and of these the ones whose liquidation prices were solved.",
            "short",
            [
                query("60 * sum(rate(margin_monitor_rules_read_total[$__rate_interval]))", "read"),
                query("60 * sum(rate(margin_monitor_rules_solved_total[$__rate_interval]))", "solved"),
            ],
        ),
        heading("Process"),
        series(
            "Memory", "Resident memory.", "bytes", [query('process_resident_memory_bytes{job="margin-monitor"}', "{{instance}}")], width=8
        ),
        series(
            "Processor",
            "Cores used.",
            "short",
            [query('rate(process_cpu_seconds_total{job="margin-monitor"}[$__rate_interval])', "{{instance}}")],
            width=8,
        ),
        series(
            "Event loop lag",
            "How late the event loop woke up, worst of the last seconds.",
            "s",
            [query("max by (instance) (margin_monitor_loop_lag_seconds)", "{{instance}}")],
            width=8,
        ),
        series(
            "Since the evaluator's last progress",
            "Above 15 s the process is taken for stuck.",
            "s",
            [query("time() - max by (instance) (margin_monitor_heartbeat_timestamp_seconds)", "{{instance}}")],
            width=8,
        ),
        series(
            "Open files",
            "Sockets and files held open.",
            "short",
            [query('process_open_fds{job="margin-monitor"}', "{{instance}}")],
            width=8,
        ),
        states(
            "Last reload of the settings succeeded",
            "Red: the settings before the reload are still in force.",
            "min by (instance) (margin_monitor_config_last_reload_successful)",
            "{{instance}}",
            width=8,
        ),
        table(
            "Versions and settings",
            "Version of each process; processes of one service should agree.",
            "short",
            "max by (instance, version) (margin_monitor_build_info)",
            ["instance", "version"],
            width=8,
        ),
        table(
            "Settings in force",
            "A number that changes with the effective settings; shards should agree.",
            "none",
            "max by (instance) (margin_monitor_config_hash)",
            ["instance"],
            width=8,
        ),
        number(
            "Settings loaded",
            "How long ago the settings were last loaded with success.",
            "s",
            "time() - min(margin_monitor_config_last_reload_success_timestamp_seconds)",
            width=8,
        ),
    ],
)

DASHBOARDS: dict[str, Json] = {"risk.json": RISK, "feeds.json": FEEDS, "engine-and-alerts.json": ENGINE}
"""File name -> dashboard."""


def render(content: Json) -> str:
    """The text of a dashboard's file."""
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in DASHBOARDS.items():
        (FOLDER / name).write_text(render(content), encoding="utf-8")
        print(f"{name}: {sum(panel['type'] != 'row' for panel in content['panels'])} panels")

"""Queries in the words of the metric catalogue: what a PromQL expression names, and what of it does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import promql_parser

from monitor.service.metrics import CATALOGUE, PREFIX

__all__ = ["named_series", "unknown_names", "with_variables"]

_TARGET_LABELS = {"instance", "job"}
"""What Prometheus itself puts on every series of a scrape."""

_PROCESS_METRICS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds", "up"}
_VARIABLES = {"$__rate_interval": "1m", "$venue": ".*", "$group": ".*", "$sink": ".*"}


def with_variables(expression: str) -> str:
    """The expression with Grafana's variables replaced by values."""
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"a variable that nobody sets: {expression}"
    return expression


def named_series(expression: str) -> set[str]:
    """The metrics that an expression selects. Raises ValueError for what is no PromQL."""
    return {str(node.name) for node in _nodes(promql_parser.parse(expression)) if isinstance(node, promql_parser.VectorSelector)}


def unknown_names(expression: str) -> Iterator[str]:
    """One line for each metric or label of an expression that the catalogue does not have, and for each misuse of a kind."""
    parsed = promql_parser.parse(expression)
    over_time = {str(node.vector_selector.name) for node in _nodes(parsed) if isinstance(node, promql_parser.MatrixSelector)}
    for selector in _nodes(parsed):
        if not isinstance(selector, promql_parser.VectorSelector) or selector.name in _PROCESS_METRICS:
            continue
        full = str(selector.name)
        name = full.removeprefix(PREFIX)
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        described = CATALOGUE.get(name) or CATALOGUE.get(base)
        if described is None:
            yield f"{full} is no metric"
            continue
        if (described.kind == "histogram") != (base != name):
            yield f"{full} is a {described.kind}"
        labels = {*described.labels, *_TARGET_LABELS, *({"le"} if described.kind == "histogram" else ())}
        used = {matcher.name for matcher in selector.matchers.matchers} | _grouped(parsed, full)
        yield from (f"{full} has no label {label}" for label in sorted(used - labels))
        if described.kind == "counter" and full not in over_time and "must stay 0" not in described.help:
            yield f"{full} is a counter without rate or increase"


def _grouped(parsed: Any, name: str) -> set[str]:
    """Labels by which the metric is grouped or matched anywhere above it."""
    labels: set[str] = set()
    for node in _nodes(parsed):
        if isinstance(node, promql_parser.AggregateExpr):
            given = node.modifier.labels if node.modifier is not None else ()
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None and node.modifier.matching is not None:
            given = node.modifier.matching.labels
        else:
            continue
        if any(isinstance(below, promql_parser.VectorSelector) and below.name == name for below in _nodes(node)):
            labels.update(given)
    return labels


def _nodes(expression: Any) -> list[Any]:
    found: list[Any] = []

    def visit(node: Any) -> bool:
        found.append(node)
        return True

    promql_parser.walk(expression, visit)
    return found

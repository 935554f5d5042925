"""Writes prometheus-rule.yaml, the rules of deploy/prometheus as the Prometheus operator wants them. Run by `make generated`."""

from __future__ import annotations

from pathlib import Path

__all__ = ["TARGET", "render"]

_RULES = Path(__file__).resolve().parents[1] / "prometheus" / "rules" / "margin-monitor.yml"

TARGET = Path(__file__).resolve().with_name("prometheus-rule.yaml")


def render() -> str:
    """The text of prometheus-rule.yaml: the rules, indented under `spec`."""
    _, groups = _RULES.read_text(encoding="utf-8").split("groups:\n")
    indented = "".join(f"  {line}" if line.strip() else line for line in groups.splitlines(keepends=True))
    return (
        "# Written by generate.py from deploy/prometheus/rules/margin-monitor.yml: change it there, then run `make generated`.\n"
        "apiVersion: monitoring.coreos.com/v1\n"
        "kind: PrometheusRule\n"
        "metadata:\n"
        "  name: margin-monitor\n"
        "spec:\n"
        "  groups:\n" + indented
    )


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
    print(TARGET.name)

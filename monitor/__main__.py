"""Runs the command line: `python -m monitor`."""

from monitor.service.cli import main

__all__: list[str] = []

main()

"""Runs the command line: `python -m monitor`."""

from monitor.service.entry import main

__all__: list[str] = []

main()

"""margin-monitor: a streaming cross-margin risk monitor.

The flow, the folders and the words are told in docs/design.md; start there, or at `monitor.service.wiring`.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]

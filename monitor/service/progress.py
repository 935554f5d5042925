"""Progress of what takes longer than a second: a bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from monitor.service.logs import log

__all__ = ["Progress"]

QUIET_S = 1.0
LINE_EVERY_S = 5.0
WIDTH = 30


class Progress:
    """Called with (what, done, total) as often as one likes."""

    def __init__(self) -> None:
        self._what = ""
        self._started = self._shown = 0.0
        self._terminal = sys.stderr.isatty()

    def __call__(self, what: str, done: int, total: int, /) -> None:
        """Shows `done` of `total`, once a second has passed."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._started, self._shown = what, now, now
        ended = done >= total
        if now - self._started < QUIET_S or (not ended and now - self._shown < (0.1 if self._terminal else LINE_EVERY_S)):
            return
        self._shown = now
        share = done / total if total else 1.0
        left_s = (now - self._started) * (1 - share) / share if share else 0.0
        if self._terminal:
            bar = "#" * round(WIDTH * share)
            text = f"\r{what}: [{bar:<{WIDTH}}] {done:,} of {total:,}, {left_s:.0f} s left "
            sys.stderr.write(text + ("\n" if ended else ""))
            sys.stderr.flush()
        else:
            log.info("loading", what=what, done=done, total=total, left_s=round(left_s))

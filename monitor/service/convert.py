"""`margin-monitor tables convert`: a venue's public answers, saved to files, into a table file."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from monitor.errors import ConfigError, RefusedError
from monitor.margin.numbers import decimal_of
from monitor.wire.metadata import CONVERTERS, convert

__all__ = ["convert_command"]


def convert_command(venue: str, files: Sequence[Path], out: Path | None, *, taker_fee: str | None = None, verbose: bool = False) -> int:
    """Writes the table file to `out` (None: standard output) and says on standard error what is in it and what was left out. Returns 0.

    Args:
        taker_fee: Rate for instruments that bring none (bybit and okx count it and do not publish it).
        verbose: Name everything that was left out, not only how many for which reason.

    Raises:
        ConfigError: No converter for the venue, a file that cannot be read, an answer of something else, a fee that is no rate.
    """
    if venue not in CONVERTERS:
        raise ConfigError(source="tables convert", key="VENUE", value=venue, expected=f"one of {', '.join(CONVERTERS)}")
    if taker_fee is not None:
        rate = decimal_of(taker_fee)
        if rate is None or not 0 <= rate < 1:
            raise ConfigError(
                source="tables convert", key="--taker-fee", value=taker_fee, expected="a rate as a fraction: 0.055 % is 0.00055"
            )
    answers = []
    for path in files:
        try:
            answers.append((path.name, path.read_bytes()))
        except OSError as error:
            raise ConfigError(source=str(path), key="FILE", value=error.strerror or str(error), expected="a saved answer") from None
    try:
        data, left_out, converted = convert(venue, answers, read=datetime.now(UTC).date().isoformat(), taker_fee=taker_fee)
    except RefusedError as error:
        raise ConfigError(source="tables convert", key=error.path, value=error.value, expected=error.expected) from None
    if out is None:
        sys.stdout.buffer.write(data)
    else:
        out.write_bytes(data)
    bare = [name for name, entry in converted.instruments.items() if "tiers" not in entry and "option" not in entry["kind"]]
    told = f"{len(converted.instruments)} instruments, {len(converted.assets)} assets"
    print(f"{venue}: {told}{f'; {len(bare)} futures without tiers: their pools are unknown' if bare else ''}", file=sys.stderr)
    if verbose:
        for name in sorted(left_out):
            print(f"left out {name}: {left_out[name]}", file=sys.stderr)
    else:
        for reason, count in Counter(left_out.values()).most_common():
            print(f"left out {count}: {reason}", file=sys.stderr)
    return 0

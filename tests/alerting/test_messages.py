"""Messages: nothing that a person needs is missing, no number looks safer than it is, no name does anything."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.alerting.messages import LIVE_SIGNS, Markup, clean, headline, line, literal, money, percent, price, render, utc
from tests.support.events import event

PAYLOADS = (
    "@everyone",
    "<!channel>",
    "<script>alert(1)</script>",
    "[click](https://evil.example)",
    "https://evil.example",
    "**bold** _it_ `code` ~~s~~ ||spoiler||",
    "# heading\n- list",
    "\x1b[31mred\x07",
    "\u202egnp.exe",
    "a\u2028b\u0000c",
    "%s%n{0}${HOME}",
    ":smile: #channel",
)


STRANGE = {
    **event()["cause"],
    "suspicious": [
        {"reason": "jump", "reference": "30000", "deviation": "-0.12277034"},
        {"reason": "venue_deviation", "reference": "29500", "deviation": "-0.10790204"},
    ],
}


@pytest.mark.parametrize("markup", Markup)
def test_a_suspicious_price_is_told_as_such(markup: Markup) -> None:
    """Why to doubt it, what it would be elsewhere, and that it counts; nothing of it where nothing speaks against the price."""
    body = event(cause=STRANGE, level_at_median="watch", margin_ratio_at_median="0.71")
    text = render(body, markup).body.replace("\\", "").replace("**", "")

    assert "Suspicious price: jump, 12.28% below 30,000; venue deviation, 10.80% below 29,500" in text
    assert "At the other venues' prices: watch, 71.00%. The venue liquidates by its own price all the same: check there first." in text
    assert "suspicious=jump,venue_deviation" in line(body)
    assert "uspicious" not in render(event(), markup).body + line(event())
    assert "jump" in render(event(cause={**STRANGE, "suspicious": [{"reason": "jump"}]}), markup).body


def test_a_message_says_all_that_is_needed_to_act() -> None:
    """Level, account, ratio, liquidation price and how far, what hurts, cure, cause and event are in the text."""
    message = render(event())

    assert message.title == "MARGIN CALL acme-1 cross:USDT"
    for expected in (
        "Margin ratio 82.16%",
        "level before: watch",
        "Equity 1,030,895.55 USDT",
        "headroom 184,000.45 USDT",
        "Missing to leave margin call: 27,723.31 USDT",
        "all marks fall by 6.11%",
        "BTCUSDT 109.488: mark 26,316.89, liquidation 24,316.892 (7.59% below), unrealized -56,354.57",
        "ETHUSDT long 3683.979: mark 1,327.3, no liquidation price, unrealized -448,192.89",
        "Cure: deposit 27,723.31 USDT, or close 12.5 of BTCUSDT, to get below margin call",
        "Cause: mark BTCUSDT 26,316.89 at 2026-11-20T22:47:37.062Z",
        "Event 0/7-1795214857062, revision 3, rules binance_usdm since 2026-01-01",
    ):
        assert expected in message.body


def test_unknown_is_never_shown_as_its_last_level() -> None:
    """An unknown pool is called unknown, in line, title and text, with the reason, and its ratio is not shown."""
    body = event(level="healthy", unknown="mark BTCUSDT is stale")

    assert headline(body) == "UNKNOWN acme-1 cross:USDT: mark BTCUSDT is stale"
    assert "ratio" not in line(body)
    assert "must not be relied on" in render(body).body
    assert "Margin ratio" not in render(body).body


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"level": "watch", "previous": "liquidation"}, "BETTER acme-1 cross:USDT: watch, was liquidation"),
        ({"level": "healthy", "previous": "watch"}, "BETTER acme-1 cross:USDT: healthy, was watch"),
        ({"level": "watch", "previous": "watch", "previous_unknown": "stale"}, "WATCH acme-1 cross:USDT, known again"),
        ({"level": "liquidation", "previous": "watch", "previous_unknown": "stale"}, "LIQUIDATION acme-1 cross:USDT, known again"),
        ({"kind": "blind"}, "BLIND partition 0: a stretch of prices was never seen"),
    ],
)
def test_headlines(changes: dict[str, Any], expected: str) -> None:
    """Better, worse, known again and blind have headlines of their own."""
    assert headline(event(**changes)) == expected


def test_a_used_up_equity_has_no_ratio() -> None:
    """With equity <= 0 there is no ratio to print; the message says why and warns that the venue may have acted."""
    message = render(event(level="bankrupt", equity="-3", margin_ratio=None))

    assert "Equity is used up" in message.body
    assert "may already have closed" in message.body
    assert "ratio=none" in line(event(level="bankrupt", equity="-3", margin_ratio=None))


def test_a_blind_row_has_a_message() -> None:
    """A row without an account is still a message that can be read."""
    body = {"id": "3/9-5", "kind": "blind", "from": [1, 2, 3], "to": [1, 9, 0], "reason": "ticks trimmed", "chain": "x"}

    assert "BLIND partition 3" in line(body)
    assert "may be missing" in render(body).body


def test_only_the_positions_that_tell_something_are_listed() -> None:
    """Of many positions the nearest to liquidation and the largest losses are shown, and the rest counted."""
    position = event()["positions"][0]
    many = [{**position, "instrument": f"I{i}", "distance": f"-0.{i:03d}", "unrealized_pnl": str(-i)} for i in range(1, 101)]

    text = render(event(positions=many)).body

    assert all(f"I{i} " in text for i in (1, 2, 3, 99, 100))
    assert "and 95 more" in text


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("markup", list(Markup))
def test_hostile_names_are_shown_literally(payload: str, markup: Markup) -> None:
    """No name makes a mention, a tag, an address, a heading or a second line."""
    body = event(account=payload, group=payload, pool=payload, unknown=payload)
    benign = event(account="a", group="a", pool="a", unknown="a")

    message = render(body, markup)

    assert len(message.body.splitlines()) == len(render(benign, markup).body.splitlines())
    assert "\n" not in message.title
    for text in (message.title, message.body):
        assert not re.search(r"@(?!\u200b)|<(?!\u200b)|://", text)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e\u2028]", text)
    if markup is Markup.MARKDOWN:
        assert not re.search(r"(?<!\\)(?:\\\\)*[_`\[\]~|#]", message.body)


def test_a_notice_is_one_line_too() -> None:
    """Consoles tell a finished notice by its title."""
    notice = {"id": "0/1-1", "kind": "notice", "route": "desk", "title": "2 alerts\nfake", "at_ms": 1_795_214_857_062}

    assert line(notice) == "2026-11-20T22:47:37.062Z NOTICE desk: 2 alerts\\nfake id=0/1-1"


@given(st.text(max_size=400))
def test_clean_text_is_one_printable_line(text: str) -> None:
    """Whatever comes in, one line of at most 160 original characters comes out, and nothing in it is invisible."""
    shown = clean(text)

    assert shown.isprintable() or all(character.isprintable() or character.isspace() for character in shown)
    assert len(shown.splitlines()) <= 1
    assert clean(text[:100]).count("\u200b") == 0


@given(st.text(alphabet=st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), max_size=100))
def test_markdown_escapes_are_reversible(text: str) -> None:
    """Taking the backslashes and the zero-width spaces away gives the name again: nothing is lost or changed."""
    shown = literal(text, Markup.MARKDOWN).replace("\u200b", "")

    assert re.sub(r"\\(.)", r"\1", shown) == text
    assert LIVE_SIGNS.sub("", text) == LIVE_SIGNS.sub("", literal(text, Markup.TEXT)).replace("\u200b", "")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**15), max_value=10**15))
def test_rounding_never_makes_it_look_safer(number: Decimal) -> None:
    """Up never shows less than the value, down never more, and both stay within the last place shown."""
    up, down = (Decimal(money(number, up=way).replace(",", "")) for way in (True, False))

    assert down <= number <= up
    assert up - down <= max(Decimal("1e-8"), abs(number) * Decimal("0.0001"))
    assert Decimal(percent(number, up=True).replace(",", "")[:-1]) >= number * 100


@pytest.mark.parametrize(
    ("number", "expected"), [("24316.891234567", "24,316.891"), ("0.0000123456789", "0.000012345678"), ("1e9", "1,000,000,000")]
)
def test_prices_have_eight_digits(number: str, expected: str) -> None:
    """Prices of any size keep eight significant digits."""
    assert price(number) == expected


@pytest.mark.parametrize("value", [None, "", "nan", "1_000", True, [], "1e999"])
def test_what_is_no_number_is_a_question_mark(value: Any) -> None:
    """A field that is missing or broken does not break the message."""
    assert money(value, up=True) == percent(value, up=True) == price(value) == "?"


@pytest.mark.parametrize("value", [None, 0, -1, 10**20, "x", 1.5])
def test_what_is_no_time_is_empty(value: Any) -> None:
    """A venue that gives no time gets none printed."""
    assert utc(value) == ""


@pytest.mark.parametrize("key", sorted(event()))
@pytest.mark.parametrize("value", [None, 0, -5, 1.5, True, "x", "", [], [1, None], {}, {"kind": 7, "deposit": [], "reduce": 1}])
def test_no_body_breaks_a_message(key: str, value: Any) -> None:
    """Whatever a field holds, there is a line and a message."""
    body = event(**{key: value})

    assert line(body)
    assert render(body).body
    assert render(body, Markup.MARKDOWN).title

"""The live page in a real browser, against the running demo: what a trader sees, and what he must never see."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson
import pytest

from monitor.feeds.market import sample_symbols
from monitor.service.evaluate import evaluate_files
from monitor.service.sample_book import sample_tables
from monitor.service.tables import VenueTables

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.page.conftest import Demo

pytestmark = [pytest.mark.xdist_group("page"), pytest.mark.timeout(120)]

ACCOUNTS, SYMBOLS = 48, 6  # of the demo in conftest.py
PICTURES = Path(os.environ.get("MARGIN_MONITOR_PICTURES", Path(__file__).resolve().parents[2] / "build" / "pictures"))

WATCH_LEVELS = """() => {
  window.turned = [];
  const note = (changes) => { for (const {target, oldValue} of changes) {
    const {id, level} = target.dataset;
    if (target.matches("tr") && oldValue && level !== oldValue) window.turned.push([id, level, Date.now()]);
  } };
  const wanted = {subtree: true, attributes: true, attributeFilter: ["data-level"], attributeOldValue: true};
  new MutationObserver(note).observe(document.querySelector("#rows"), wanted);
}"""
ORDER = "() => [...document.querySelectorAll('#rows tr')].map((row) => row.dataset.id)"


@pytest.fixture
def page(browser: Browser, demo: Demo) -> Iterator[Page]:
    """The page with all accounts on it. Whatever the test, nothing is loaded from elsewhere and the console stays empty."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    said: list[str] = []
    asked: set[str] = set()
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
    page.goto(demo.address)
    until(page, f"() => document.querySelectorAll('#rows tr').length === {ACCOUNTS}")
    yield page
    context.close()
    assert said == []
    assert asked == {urlsplit(demo.address).netloc}


def until(page: Page, condition: str, argument: Any = None, *, within_s: float = 10.0) -> None:
    """Returns once a function of the page is true. Playwright's own way evaluates a text, which the page's policy forbids."""
    deadline = time.monotonic() + within_s
    while not page.evaluate(condition, argument):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def picture(page: Page, name: str) -> None:
    """Keeps what the page looks like, as build output."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def test_the_worst_come_first_and_the_order_follows_the_prices(page: Page) -> None:
    """The rows stand in the API's order, and change places as ratios change."""
    before = page.evaluate(ORDER)
    until(page, f"(before) => ({ORDER})().join() !== before", ",".join(before), within_s=20)
    after = page.evaluate(ORDER)
    assert sorted(before) == sorted(after)
    places = page.evaluate("() => [...document.querySelectorAll('#rows tr')].map((row) => row.dataset.level)")
    order = ["bankrupt", "liquidation", "unknown", "margin_call", "watch", "healthy"]
    assert places == sorted(places, key=order.index)
    picture(page, "board-light")


def test_an_account_turns_red_within_a_second_of_its_event(page: Page, demo: Demo) -> None:
    """The moment of the decision, as the ledger has it, against the moment at which the row changed."""
    page.evaluate(WATCH_LEVELS)
    until(page, "() => window.turned.some((turn) => turn[1] === 'liquidation' || turn[1] === 'bankrupt')", within_s=40)
    red = [turn for turn in page.evaluate("() => window.turned") if turn[1] in ("liquidation", "bankrupt")]
    events = page.request.get(f"{demo.address}/api/events?limit=1000").json()["events"]
    for account, level, at_ms in red:
        decided = [event["decided_at_ns"] / 1e6 for event in events if event.get("account") == account and event.get("level") == level]
        assert decided, (account, level)
        assert min(abs(at_ms - moment) for moment in decided) < 1_000


def test_the_what_if_slider_gives_the_numbers_of_evaluate(page: Page, demo: Demo, tmp_path: Path) -> None:
    """The ratio beside the slider is, digit for digit, that of `evaluate` on the document the answer names."""
    page.locator("#rows tr").first.focus()
    page.keyboard.press("Enter")
    slider = page.locator("#what-move")
    slider.wait_for()
    slider.evaluate("(slider) => { slider.value = '-12.5'; slider.dispatchEvent(new Event('input', {bubbles: true})); }")
    with page.expect_response(lambda answer: "move=-12.5" in answer.url and "deposit=USDT%3A250" in answer.url) as answers:
        page.fill("#what-deposit", "250")
    shown = answers.value.json()
    (tmp_path / "tables.json").write_bytes(orjson.dumps(sample_tables(sample_symbols(SYMBOLS))))
    (tmp_path / "changed.json").write_bytes(orjson.dumps(shown["document"]))
    data, code = evaluate_files([tmp_path / "changed.json"], tables=VenueTables([tmp_path / "tables.json"]), now=datetime.now(UTC))
    assert code == 0, data
    assert orjson.loads(data)["accounts"][0] == shown["account"]
    ratios = {pool["margin_ratio"] or "" for pool in shown["account"]["pools"]}
    until(page, "(ratios) => ratios.includes(document.querySelector('.answer [data-exact]').dataset.exact)", sorted(ratios))
    picture(page, "account-light")


def test_filters_and_keys(page: Page) -> None:
    """Search, group, level and the keys do what the help says."""
    rows = page.locator("#rows tr")
    page.keyboard.press("/")
    page.keyboard.type("00001")
    until(page, "() => document.querySelectorAll('#rows tr').length === 11")
    page.keyboard.press("Escape")
    until(page, f"() => document.querySelectorAll('#rows tr').length === {ACCOUNTS}")
    page.select_option("#group", "prime")
    until(page, f"() => document.querySelectorAll('#rows tr').length === {ACCOUNTS // 4}")
    assert all("prime" in text for text in rows.locator("small").all_inner_texts())
    page.locator("#group").blur()
    page.keyboard.press("Escape")
    until(page, f"() => document.querySelectorAll('#rows tr').length === {ACCOUNTS}")
    page.keyboard.press("6")
    until(page, "() => document.querySelector('#levels [aria-pressed=true]')?.dataset.level === 'healthy'")
    until(page, "() => [...document.querySelectorAll('#rows tr')].every((row) => row.dataset.level === 'healthy')")
    page.keyboard.press("0")
    until(page, f"() => document.querySelectorAll('#rows tr').length === {ACCOUNTS}")
    page.keyboard.press("j")
    page.keyboard.press("j")
    focused = page.evaluate("() => document.activeElement.dataset.id")
    assert focused
    page.keyboard.press("Enter")
    page.locator(f"#account h1:text-is('{focused}')").wait_for()
    page.keyboard.press("Escape")
    page.locator("#overview").wait_for()


def test_a_lost_connection_is_said_loudly_and_mends(page: Page, demo: Demo) -> None:
    """A daemon that says nothing is told within seconds, with the time of what stands there; and it is over when it speaks again."""
    banner = page.locator("#lost")
    assert banner.is_hidden()
    demo.freeze()
    try:
        banner.wait_for(timeout=6_000)
        assert "No connection to the daemon since" in banner.inner_text()
        assert page.evaluate("() => document.body.dataset.link") == "lost"
        picture(page, "lost")
    finally:
        demo.thaw()
    banner.wait_for(state="hidden", timeout=10_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser: Browser, demo: Demo, scheme: Any) -> None:
    """Nothing is wider than the screen, on the board and on an account's page, in light and dark."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    page = context.new_page()
    page.goto(demo.address)
    page.locator("#rows tr").first.wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    picture(page, f"phone-{scheme}")
    page.locator("#rows tr").first.click()
    page.locator("#what-move").wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    picture(page, f"phone-account-{scheme}")
    context.close()


def test_dark(browser: Browser, demo: Demo) -> None:
    """In the dark the page is dark, and its text is light."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    page = context.new_page()
    page.goto(demo.address)
    page.locator("#rows tr").first.wait_for()

    def brightness(what: str) -> float:
        colour = page.evaluate(f"() => getComputedStyle(document.body).{what}")
        return float(sum(Decimal(part) for part in colour[colour.index("(") + 1 : -1].replace(",", " ").split()[:3]))

    assert brightness("color") > 450
    assert brightness("backgroundColor") < 150
    picture(page, "board-dark")
    page.locator("#rows tr").first.click()
    page.locator("#what-move").wait_for()
    picture(page, "account-dark")
    context.close()

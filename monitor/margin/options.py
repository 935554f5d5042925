"""Black-76: the price of an option on a forward, and how it moves.

    d1 = (ln(F/K) + v^2 T / 2) / (v sqrt T),  d2 = d1 - v sqrt T
    call = e^(-rT) (F N(d1) - K N(d2)),       put = e^(-rT) (K N(-d2) - F N(-d1))

F forward and K strike in the quote currency, v volatility and r interest rate a year as fractions, T years of 365 days. An inverse option
is priced in its coin: price / F (Deribit: r = 0, expiry 08:00 UTC; reproduced within the venue's own rounding).

Everything is Decimal. ln, exp and sqrt of `decimal` are correctly rounded and N is summed here, so a price is right to about 45 digits and
the same on every machine. A float64 erf is right to 16 and differs in the last place between C libraries: an event written on one machine
could fail `verify` on another. One price costs about 0.1 ms.

Source: F. Black, "The pricing of commodity contracts", Journal of Financial Economics 3 (1976), 167-179.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow, localcontext

from monitor.margin.instruments import Instrument, Kind
from monitor.margin.numbers import ZERO
from monitor.margin.prices import Prices

__all__ = ["Black76", "Greeks", "black76", "model_mark", "model_of", "normal_cdf", "years_between"]

MODEL = Context(prec=50, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow])
"""Ten digits more than are printed."""

ONE, TWO, HALF = Decimal(1), Decimal(2), Decimal("0.5")
YEAR_MICROSECONDS = 365 * 86_400 * 1_000_000
SQRT_TWO_PI = Decimal("2.5066282746310005024157652848110452530069867406099383166299235763")
TAIL = Decimal(16)
"""Beyond it N is 0 or 1 to more digits than are kept: N(-16) = 6e-58."""


def years_between(now: datetime, then: datetime) -> Decimal:
    """(then - now) / 365 days, exact up to one division; 0 when `then` has passed."""
    span = then - now
    microseconds = (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds
    return max(ZERO, MODEL.divide(Decimal(microseconds), Decimal(YEAR_MICROSECONDS)))


def _density(x: Decimal) -> Decimal:
    """exp(-x^2/2) / sqrt(2 pi)."""
    return (-x * x / TWO).exp() / SQRT_TWO_PI


def normal_cdf(x: Decimal) -> Decimal:
    """N(x), the standard normal distribution; absolute error below 1e-48.

    N(x) = 1/2 + density(x) * (x + x^3/3 + x^5/(3*5) + x^7/(3*5*7) + ...): all terms of one sign, so nothing cancels inside the sum.

    Source: G. Marsaglia, "Evaluating the normal distribution", Journal of Statistical Software 11(4), 2004.
    """
    with localcontext(MODEL):
        if abs(x) >= TAIL:
            return ONE if x > 0 else ZERO
        square, term, total, odd = x * x, x, x, 1
        while True:
            odd += 2
            term = term * square / odd
            more = total + term
            if more == total:
                return HALF + _density(x) * total
            total = more


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeks:
    """How a price moves, per unit of the underlying, in the quote currency.

    Attributes:
        delta: By the forward: e^(-rT) N(d1), minus e^(-rT) for a put. Between -1 and 1.
        gamma: Delta by the forward.
        vega: Price by volatility (1.00 = 100 points).
        theta: Price by time passing, a year (forward, volatility and rate held).
    """

    delta: Decimal
    gamma: Decimal
    vega: Decimal
    theta: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Black76:
    """One option with everything but the forward fixed, so that scenarios share the work.

    Attributes:
        strike: Quote currency, > 0.
        deviation: volatility * sqrt(years), >= 0.
        discount: e^(-rate * years).
        volatility, years, rate: As given.
        inverse: Priced in coin.
    """

    call: bool
    inverse: bool
    strike: Decimal
    volatility: Decimal
    years: Decimal
    rate: Decimal
    deviation: Decimal
    discount: Decimal

    @classmethod
    def of(
        cls, *, call: bool, strike: Decimal, volatility: Decimal, years: Decimal, rate: Decimal = ZERO, inverse: bool = False
    ) -> Black76:
        """Fixes what no scenario moves. `volatility` > 0, `years` >= 0 (0: worth its exercise value)."""
        with localcontext(MODEL):
            return cls(
                call=call,
                inverse=inverse,
                strike=strike,
                volatility=volatility,
                years=years,
                rate=rate,
                deviation=volatility * years.sqrt(),
                discount=(-rate * years).exp() if rate and years else ONE,
            )

    def price(self, forward: Decimal) -> Decimal:
        """Price of one unit at a forward > 0: quote currency, or coin where `inverse`. Never below 0."""
        with localcontext(MODEL):
            quote = self._quote(forward)
            return quote / forward if self.inverse else quote

    def _quote(self, forward: Decimal) -> Decimal:
        exercise = max(ZERO, forward - self.strike if self.call else self.strike - forward)
        if not self.deviation:
            return self.discount * exercise
        # The option that is out of the money has no cancellation of big sums; parity gives the other one: call - put = D (F - K).
        out_call = forward <= self.strike
        d1, d2 = self._distances(forward)
        if out_call:
            out = forward * normal_cdf(d1) - self.strike * normal_cdf(d2)
        else:
            out = self.strike * normal_cdf(-d2) - forward * normal_cdf(-d1)
        return self.discount * (max(ZERO, out) + exercise)

    def _distances(self, forward: Decimal) -> tuple[Decimal, Decimal]:
        d1 = (forward / self.strike).ln() / self.deviation + self.deviation / TWO
        return d1, d1 - self.deviation

    def delta(self, forward: Decimal) -> Decimal:
        """Quote price by the forward (see `Greeks.delta`), also where `inverse`. At expiry 1, 0 or -1; half of it at the strike."""
        with localcontext(MODEL):
            if self.deviation:
                above = normal_cdf(self._distances(forward)[0])
            else:
                above = HALF if forward == self.strike else ONE if forward > self.strike else ZERO
            return self.discount * (above if self.call else above - ONE)

    def greeks(self, forward: Decimal) -> Greeks:
        """Delta, gamma, vega and theta of the quote price. At expiry gamma, vega and theta are 0."""
        with localcontext(MODEL):
            if not self.deviation:
                return Greeks(delta=self.delta(forward), gamma=ZERO, vega=ZERO, theta=ZERO)
            density = _density(self._distances(forward)[0]) * self.discount
            decay = -forward * density * self.volatility / (TWO * self.years.sqrt())
            return Greeks(
                delta=self.delta(forward),
                gamma=density / (forward * self.deviation),
                vega=forward * density * self.years.sqrt(),
                theta=decay + self.rate * self._quote(forward),
            )


def black76(*, call: bool, forward: Decimal, strike: Decimal, volatility: Decimal, years: Decimal, rate: Decimal = ZERO) -> Decimal:
    """Price of one unit in the quote currency; formula, units and error in the module's docstring."""
    return Black76.of(call=call, strike=strike, volatility=volatility, years=years, rate=rate).price(forward)


def model_of(instrument: Instrument, prices: Prices, as_of: datetime) -> tuple[Black76, Decimal] | str:
    """The model of an option and its forward; or, as a text, which input is missing.

    Inputs: `forward` and `volatility` by instrument, `interest_rate` by settle asset (absent: 0, as Deribit does).
    """
    forward, volatility = prices.forward.get(instrument.name), prices.volatility.get(instrument.name)
    if forward is None or volatility is None:
        return f"{'forward' if forward is None else 'volatility'} of {instrument.name} is missing"
    assert instrument.strike is not None and instrument.expiry is not None
    model = Black76.of(
        call=instrument.option_type == "call",
        strike=instrument.strike,
        volatility=volatility,
        years=years_between(as_of, instrument.expiry),
        rate=prices.interest_rate.get(instrument.settle, ZERO),
        inverse=instrument.kind is Kind.INVERSE_OPTION,
    )
    return model, forward


def model_mark(instrument: Instrument, prices: Prices, as_of: datetime) -> Decimal | str:
    """The mark price of an option: given, else by Black-76 (in coin for an inverse option); or, as a text, which input is missing."""
    mark = prices.mark.get(instrument.name)
    if mark is not None:
        return mark
    model = model_of(instrument, prices, as_of)
    if isinstance(model, str):
        return f"mark price of {instrument.name} is missing, and so is what Black-76 needs: {model}"
    return model[0].price(model[1])

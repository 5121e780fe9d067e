"""How much privacy a training may spend, and what that buys: differential privacy of one row.

A randomised training M is (epsilon, delta)-differentially private if for all tables that differ in
one row, added or removed, and all sets S of results,
``P(M(table) in S) <= exp(epsilon) * P(M(other) in S) + delta`` (Dwork & Roth 2014).  Spending is
counted in rho of zero-concentrated differential privacy (Bun & Steinke 2016), which adds up:

* discrete Gaussian noise of variance ``v`` on counts of which one row changes ``k``, each by one,
  costs ``k / (2 v)`` (Canonne, Kamath & Steinke 2020, theorem 14);
* a choice by the exponential mechanism with parameter ``e`` costs ``e**2 / 8`` (Cesar & Rogers
  2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from cipherscore.errors import ConfigurationError

MIN_EPSILON, MAX_EPSILON = 0.01, 100.0
ROWS_PER_DELTA = 10
"""Without a delta it is one in this many times the rows."""
_HALVINGS = 100
_ROUNDING = 1e-9
"""Share of rho that is never spent, far above what floating-point numbers lose."""


@dataclass(frozen=True)
class PrivacyBudget:
    """The guarantee that a training must keep.

    Args:
        epsilon: Logarithm of how much likelier one row may make a result; 0.01 to 100.
        delta: Chance with which that may fail, above 0 and below 1.

    Raises:
        ConfigurationError: A number is outside its range.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not MIN_EPSILON <= self.epsilon <= MAX_EPSILON:
            raise ConfigurationError(
                f"epsilon {self.epsilon:g} is not allowed; allowed: {MIN_EPSILON:g} (strict) to "
                f"{MAX_EPSILON:g} (hardly private); 1 to 3 is usual"
            )
        if not 0 < self.delta < 1:
            raise ConfigurationError(
                f"delta {self.delta:g} is not allowed; allowed: above 0 and below 1"
            )

    @classmethod
    def for_rows(cls, epsilon: float, delta: float | None, rows: int) -> PrivacyBudget:
        """Return the budget of a table of ``rows`` rows; without ``delta`` it is 1 / (10 rows).

        Raises:
            ConfigurationError: A number is outside its range, or ``delta`` is so large that giving
                away some row in full would keep it.
        """
        if delta is not None and delta * rows >= 1:
            raise ConfigurationError(
                f"delta {delta:g} is not allowed for {rows} rows; allowed: below {1 / rows:.2g}, "
                "one in the number of rows; leave --delta out for a tenth of that"
            )
        return cls(epsilon, 1 / (ROWS_PER_DELTA * rows) if delta is None else delta)

    @cached_property
    def rho(self) -> float:
        """Largest rho of zero-concentrated differential privacy that keeps the guarantee."""
        low, high = 0.0, self.epsilon + 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if log_delta(middle, self.epsilon) <= math.log(self.delta):
                low = middle
            else:
                high = middle
        return low * (1 - _ROUNDING)

    def facts(self) -> dict[str, float]:
        """Return the guarantee as a run's metrics and a version's record hold it."""
        return {"epsilon": self.epsilon, "delta": self.delta, "rho": self.rho}


def log_delta(rho: float, epsilon: float) -> float:
    """Return the logarithm of the least delta such that rho-zCDP is (epsilon, delta)-private.

    Canonne, Kamath & Steinke 2020, corollary 13: the minimum over orders ``a > 1`` of
    ``(a - 1)(a rho - epsilon) + (a - 1) log(1 - 1/a) - log a``.
    """
    if rho <= 0:
        return -math.inf
    low, high = 1.0, 2.0 + (epsilon + 1) / (2 * rho)  # the slope is positive at the upper end
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle <= 1:
            break
        if (2 * middle - 1) * rho - epsilon + math.log1p(-1 / middle) < 0:
            low = middle
        else:
            high = middle
    bound = (high - 1) * (high * rho - epsilon + math.log1p(-1 / high)) - math.log(high)
    return min(0.0, bound)

"""The load at which the share of slow requests reaches what a service level allows, with its interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.statistics import Interval
from loadtest.analysis.statistics import t_quantile
from loadtest.slo.level import Slo, Trial

Floats = NDArray[np.float64]
SLOPE, SLOPE_DEVIATION = 15.0, 15.0
"""Mean and standard deviation of the slope before anything is measured: the change of the logit of the share of slow
requests per change of the logarithm of the load. Queues have slopes from 5 to 30 at a p99."""
WINDOW = 0.35
"""Distance in the logarithm of the load up to which a run tells something about the limit."""
NEAREST = 6
"""Runs that are used however far from the limit they are."""
ITERATIONS = 40
STEP = 2.0
"""Change of the logit at most in one iteration, which keeps Newton's method from jumping over the optimum."""
FAR = 10.0
"""Distance in the logarithm of the load beyond which a limit is no better known than by its side."""
POINTS = 500
"""Loads between the lowest and the highest run that are looked at for the answer."""
ENDS = 0.975
"""Student's t quantile of the ends of a 95 % interval."""
SAFE = 0.96
"""Student's t quantile of the answer. A search ends as soon as its answer looks precise, so more than 4 % of the
answers lie above the truth: up to 7 % in simulations."""


@dataclass(frozen=True)
class Limit:
    """The load at which a level is just held."""

    interval: Interval
    safe: float | None
    """The answer: a load that is above the limit in at most a tenth of the searches. None if there is no such load."""


def limit(trials: Sequence[Trial], slo: Slo, near: float) -> Limit | None:
    """Return the load at which the share of requests over the level is `1 - slo.q`, with its 95 % interval.

    The logit of the share is a straight line in the logarithm of the load around `near`. Slow requests cluster in busy
    periods, so one run is one observation, however many requests it has: the spread of the runs around the line scales
    the variance (quasi-likelihood; McCullagh and Nelder, "Generalized Linear Models", 1989, section 4.5). The interval
    for the load is Fieller's (1954), with Student's t. It has no ends where the runs show no slope.

    A slope prior (SLOPE) and half a slow request that is added at the allowed share keep the estimate finite where
    all runs are good or all are bad. None if there are fewer than three runs.
    """
    used = nearest(trials, near)
    if len(used) < 3:
        return None
    line = Line(used, slo, math.log(near))
    ends, safe = line.crossing(t_quantile(ENDS, len(used) - 2)), line.safe(t_quantile(SAFE, len(used) - 2))
    low, high = (near * math.exp(x) for x in ends) if ends else (None, None)
    return Limit(Interval(near * math.exp(line.estimate), low, high), None if safe is None else near * math.exp(safe))


def nearest(trials: Sequence[Trial], near: float) -> list[Trial]:
    """Return the runs within WINDOW of a load, and the NEAREST ones in any case."""
    distances = sorted(((abs(math.log(t.load / near)), i) for i, t in enumerate(trials) if t.requests), key=lambda d: d)
    return [trials[i] for rank, (distance, i) in enumerate(distances) if distance <= WINDOW or rank < NEAREST]


class Line:
    """The fitted line: logit of the share over the level = `intercept + slope * (ln(load) - centre)`."""

    def __init__(self, trials: Sequence[Trial], slo: Slo, centre: float) -> None:
        share = 1 - slo.q
        self._allowed = math.log(share / slo.q)
        x = np.log([t.load for t in trials]) - centre
        self._x = np.append(x, x.mean())
        self._n = np.append([float(t.requests) for t in trials], 0.5 / share)
        self._over = np.append([float(t.over) for t in trials], 0.5)
        self._beta = np.array([self._allowed, SLOPE])
        information = self._fit()
        residuals = (self._over - self._expected()) ** 2 / self._variance()
        self._dispersion = max(1.0, float(residuals[:-1].sum()) / (len(trials) - 2))
        self._covariance = np.linalg.inv(information) * self._dispersion

    @property
    def estimate(self) -> float:
        """Where the line crosses the allowed share, as the logarithm of the load from the centre."""
        return float(np.clip((self._allowed - self._beta[0]) / max(self._beta[1], 1e-9), -FAR, FAR))

    def safe(self, t: float) -> float | None:
        """Return the highest load within the tried ones whose share is below the allowed one by `t` standard errors."""
        x = np.concatenate([self._x, np.linspace(self._x.min(), self._x.max(), POINTS)])
        c = self._covariance
        error = np.sqrt(c[0, 0] + 2 * x * c[0, 1] + x * x * c[1, 1])
        held = x[self._beta[0] + self._beta[1] * x + t * error <= self._allowed]
        return float(held.max()) if len(held) else None

    def crossing(self, t: float) -> tuple[float, float] | None:
        """Return Fieller's interval of `t` standard errors for the estimate; None if the line may have no slope."""
        (intercept, slope), c = self._beta, self._covariance
        distance = intercept - self._allowed
        a = slope**2 - t * t * c[1, 1]
        half_b = distance * slope - t * t * c[0, 1]
        root = half_b**2 - a * (distance**2 - t * t * c[0, 0])
        if slope <= 0 or a <= 0 or root < 0:
            return None
        low, high = ((-half_b + sign * math.sqrt(root)) / a for sign in (-1, 1))
        return max(low, -FAR), min(high, FAR)

    def _fit(self) -> Floats:
        """Find the optimum by Newton's method. Return the information there."""
        design = np.stack([np.ones_like(self._x), self._x], axis=1)
        information = np.eye(2)
        for _ in range(ITERATIONS):
            gradient = design.T @ (self._over - self._expected())
            information = (design.T * self._variance()) @ design
            gradient[1] -= (self._beta[1] - SLOPE) / SLOPE_DEVIATION**2
            information[1, 1] += 1 / SLOPE_DEVIATION**2
            step = np.linalg.solve(information, gradient)
            size = float(np.abs(design @ step).max())
            self._beta = self._beta + step * min(1.0, STEP / max(size, 1e-12))
            if size < 1e-6:
                break
        return np.asarray(information)

    def _share(self) -> Floats:
        logit = np.clip(self._beta[0] + self._beta[1] * self._x, -20, 20)
        return np.asarray(1 / (1 + np.exp(-logit)))

    def _expected(self) -> Floats:
        return np.asarray(self._n * self._share())

    def _variance(self) -> Floats:
        share = self._share()
        return np.asarray(self._n * share * (1 - share))

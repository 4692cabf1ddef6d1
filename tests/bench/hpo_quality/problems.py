"""What a problem of the comparison is: a search space with conditions, a function of its parameters, and its known optimum.

A space is declared once. Optuna gets it as its users write it, by `suggest_...` calls inside of branches; we get the same parameters
and conditions in the form of the contract.
"""

import dataclasses
import random
import statistics
from collections.abc import Callable

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution


@dataclasses.dataclass(frozen=True)
class Parameter:
    name: str
    distribution: BaseDistribution
    # The parameter exists where the other one exists and has one of the values.
    when: tuple[str, tuple] | None = None

    def exists(self, params):
        return self.when is None or (self.when[0] in params and params[self.when[0]] in self.when[1])

    def suggest(self, trial):
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            return trial.suggest_categorical(self.name, d.choices)
        if isinstance(d, IntDistribution):
            return trial.suggest_int(self.name, d.low, d.high, step=d.step, log=d.log)
        return trial.suggest_float(self.name, d.low, d.high, step=d.step, log=d.log)

    def contract(self):
        d = self.distribution
        if isinstance(d, CategoricalDistribution):
            domain = {"categorical": {"choices": list(d.choices)}}
        elif isinstance(d, IntDistribution):
            domain = {"int": {"low": d.low, "high": d.high, "step": d.step, "log": d.log}}
        else:
            domain = {"float": {"low": d.low, "high": d.high, "log": d.log}}
            if d.step is not None:
                domain["float"]["step"] = d.step
        if self.when is not None:
            domain["condition"] = {"parameter": self.when[0], "values": list(self.when[1])}
        return {"name": self.name, **domain}


def real(name, low, high, when=None, **how):
    return Parameter(name, FloatDistribution(low, high, **how), when)


def whole(name, low, high, when=None, **how):
    return Parameter(name, IntDistribution(low, high, **how), when)


def choice(name, choices, when=None):
    return Parameter(name, CategoricalDistribution(choices), when)


def reals(n, low, high):
    return [real(f"x{i}", low, high) for i in range(n)]


@dataclasses.dataclass(frozen=True)
class Problem:
    """One objective."""

    function: Callable[[dict], float]
    space: list[Parameter]
    optimum: float
    maximize: bool = False
    # Standard deviation of the normal noise on what is told; what is judged is without it.
    noise: float = 0.0

    @property
    def directions(self):
        return ["maximize" if self.maximize else "minimize"]

    def median(self):
        """Of the values of uniform random points, always the same ones."""
        source = random.Random(20)
        return statistics.median(self.function(draw(self.space, source)) for _ in range(4001))


def suggest(trial, space):
    """All parameters of a trial of Optuna, by its branches."""
    params = {}
    for parameter in space:
        if parameter.exists(params):
            params[parameter.name] = parameter.suggest(trial)
    return params


class Uniform:
    """Has the suggesting methods of a trial of Optuna, and draws uniformly, in log space where a domain is logarithmic."""

    def __init__(self, source):
        self.source = source

    def suggest_categorical(self, _, choices):
        return self.source.choice(choices)

    def suggest_int(self, _, low, high, *, step, log):
        if log:
            return min(high, max(low, round((low - 0.5) * ((high + 0.5) / (low - 0.5)) ** self.source.random())))
        return self.source.randrange(low, high + 1, step)

    def suggest_float(self, _, low, high, *, step, log):
        if log:
            return low * (high / low) ** self.source.random()
        if step:
            return low + step * self.source.randint(0, round((high - low) / step))
        return self.source.uniform(low, high)


def draw(space, source):
    """The parameters of one uniform random point."""
    return suggest(Uniform(source), space)

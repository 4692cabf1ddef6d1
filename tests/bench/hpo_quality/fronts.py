"""The problems of several objectives, some with constraints; what is judged is the volume that the feasible trials dominate."""

import dataclasses
import functools
import itertools
import math
import random
import statistics
from collections.abc import Callable

import numpy as np
from optuna._hypervolume import compute_hypervolume
from problems import Parameter, choice, draw, real, reals, whole

N = 4


@dataclasses.dataclass(frozen=True)
class Front:
    # Gives the objectives and, when there are any, numbers of which those above 0 are broken constraints.
    function: Callable[[dict], tuple[list, list]]
    space: list[Parameter]
    # Volumes are measured to this point.
    reference: list[float]
    # Parameters of which the best are (nearly) the front.
    optimal: Callable[[], list[dict]]
    directions: list[str] = dataclasses.field(default_factory=lambda: ["minimize", "minimize"])

    def volume(self, results):
        signs = np.array([1.0 if direction == "minimize" else -1.0 for direction in self.directions])
        reference = signs * self.reference
        points = np.array([values for values, broken in results if all(x <= 0 for x in broken)])
        if len(points) == 0:
            return 0.0
        points = signs * points
        points = points[(points <= reference).all(axis=1)]
        if len(points) == 0:
            return 0.0
        return float(compute_hypervolume(nondominated(points), reference, assume_pareto=True))

    def best(self):
        return self.volume([self.function(params) for params in self.optimal()])

    def of_random(self, trials):
        """The median volume of random searches, always the same ones."""
        source = random.Random(20)
        runs = ([self.function(draw(self.space, source)) for _ in range(trials)] for _ in range(41))
        return statistics.median(self.volume(run) for run in runs)


def nondominated(points):
    """Sorted by the first objective."""
    points = np.unique(points, axis=0)
    if points.shape[1] == 2:
        lowest = np.minimum.accumulate(points[:, 1])
        return points[np.concatenate([[True], points[1:, 1] < lowest[:-1]])]
    dominated = [(np.all(points <= p, axis=1) & np.any(points < p, axis=1)).any() for p in points]
    return points[~np.array(dominated)]


def zdt(p):
    x = [p[f"x{i}"] for i in range(N)]
    return x[0], 1 + 9 * sum(x[1:]) / (N - 1)


def zdt1(p):
    f, g = zdt(p)
    return [f, g * (1 - math.sqrt(f / g))], []


def zdt2(p):
    f, g = zdt(p)
    return [f, g * (1 - (f / g) ** 2)], []


def zdt3(p):
    f, g = zdt(p)
    return [f, g * (1 - math.sqrt(f / g) - f / g * math.sin(10 * math.pi * f))], []


def zdt6(p):
    x = [p[f"x{i}"] for i in range(N)]
    f = 1 - math.exp(-4 * x[0]) * math.sin(6 * math.pi * x[0]) ** 6
    g = 1 + 9 * (sum(x[1:]) / (N - 1)) ** 0.25
    return [f, g * (1 - (f / g) ** 2)], []


def dtlz2(p):
    """Three objectives (Deb et al., 2002)."""
    x, y = p["x0"] * math.pi / 2, p["x1"] * math.pi / 2
    g = 1 + sum((p[f"x{i}"] - 0.5) ** 2 for i in range(2, 5))
    return [g * math.cos(x) * math.cos(y), g * math.cos(x) * math.sin(y), g * math.sin(x)], []


def fonseca(p):
    """Both maximised (Fonseca and Fleming, 1995, with the sign turned)."""
    x = [p[f"x{i}"] for i in range(3)]
    near = [math.exp(-sum((v - s / math.sqrt(3)) ** 2 for v in x)) for s in (1, -1)]
    return near, []


def kursawe(p):
    x = [p[f"x{i}"] for i in range(3)]
    first = sum(-10 * math.exp(-0.2 * math.sqrt(a * a + b * b)) for a, b in zip(x, x[1:]))
    return [first, sum(abs(v) ** 0.8 + 5 * math.sin(v**3) for v in x)], []


def binh_korn(p):
    """Two objectives, two constraints of which one is active along a part of the front (Binh and Korn, 1997)."""
    x, y = p["x"], p["y"]
    constraints = [(x - 5) ** 2 + y * y - 25, 7.7 - (x - 8) ** 2 - (y + 3) ** 2]
    return [4 * x * x + 4 * y * y, (x - 5) ** 2 + (y - 5) ** 2], constraints


def srinivas(p):
    """Most of the box breaks one of the two constraints (Srinivas and Deb, 1994)."""
    x, y = p["x"], p["y"]
    constraints = [x * x + y * y - 225, x - 3 * y + 10]
    return [2 + (x - 2) ** 2 + (y - 1) ** 2, 9 * x - (y - 1) ** 2], constraints


def encoder(p):
    """Shaped like the tuning of an encoder: the loss against the cost, over the usual mixture of domains; a limit on memory."""
    loss = 0.6 * (math.log10(p["lr"]) + 4.3) ** 2 + 2 / (1 + p["layers"]) + 0.15 * (p["dropout"] - 0.15) ** 2
    loss += {"linear": 0.05, "cosine": 0.0, "constant": 0.2}[p["schedule"]] + 8 / p["width"]
    cost = p["layers"] * (p["width"] / 64) ** 1.5 * {"linear": 1.0, "cosine": 1.05, "constant": 1.0}[p["schedule"]]
    return [loss, cost], [p["layers"] * p["width"] * p["batch"] / 60000 - 1, 0.2 - p["batch"] / 64]


def score_and_cost(p):
    """[`encoder`] as a score to be maximised and a cost to be minimised, without limits."""
    (loss, cost), _ = encoder(p)
    return [3 - loss, cost], []


def bits(p):
    """Whole numbers and choices alone: two sums that pull apart."""
    ones = sum(p[f"b{i}"] for i in range(8))
    turns = sum(p[f"b{i}"] != p[f"b{i + 1}"] for i in range(7))
    return [ones + p["n"] * (p["kind"] == "a"), 2 * turns + abs(p["n"] - 5) + (p["kind"] == "b")], []


def families(p):
    """A branch for each family of models: accuracy against size."""
    if p["family"] == "trees":
        size = p["trees"] * p["depth"] / 40
        return [0.93 - 0.5 / (1 + size) - 0.002 * abs(p["depth"] - 9), math.log2(1 + size)], []
    if p["family"] == "linear":
        return [0.70 - 0.02 * abs(math.log10(p["penalty"]) + 1), 0.3], []
    size = p["hidden"] / 8
    miss = 0.03 * abs(math.log10(p["rate"]) + 2.5)
    return [0.97 - 0.9 / (1 + size / 4) - miss, math.log2(1 + size)], []


def grid(space, points):
    """Evenly over a box of real parameters."""
    axes = [np.linspace(q.distribution.low, q.distribution.high, points) for q in space]
    return [dict(zip((q.name for q in space), map(float, point))) for point in itertools.product(*axes)]


def line(n, rest=0.0, parts=2001):
    return [{"x0": i / (parts - 1), **{f"x{j}": rest for j in range(1, n)}} for i in range(parts)]


def encoders():
    for layers, width, schedule in itertools.product(range(1, 13), range(64, 769, 64), ["linear", "cosine", "constant"]):
        yield {"lr": 10**-4.3, "layers": layers, "width": width, "dropout": 0.15, "schedule": schedule, "batch": 16}


def all_families():
    yield {"family": "linear", "penalty": 0.1}
    for trees, depth in itertools.product(range(10, 501), range(2, 17)):
        yield {"family": "trees", "trees": trees, "depth": depth}
    for hidden in range(4, 257):
        yield {"family": "net", "hidden": hidden, "rate": 10**-2.5}


def all_bits():
    for word, n, kind in itertools.product(range(256), range(11), "ab"):
        yield {**{f"b{i}": word >> i & 1 for i in range(8)}, "n": n, "kind": kind}


UNIT, PLANE = reals(N, 0, 1), [real("x", -20, 20), real("y", -20, 20)]
CORNER = [real("x", 0, 5), real("y", 0, 3)]
ENCODER = [
    real("lr", 1e-6, 1e-2, log=True),
    whole("layers", 1, 12),
    whole("width", 64, 768, step=64),
    choice("batch", [8, 16, 32, 64]),
    real("dropout", 0.0, 0.5, step=0.05),
    choice("schedule", ["linear", "cosine", "constant"]),
]
TREES, LINEAR, NET = (("family", (name,)) for name in ("trees", "linear", "net"))
FAMILIES = [
    choice("family", ["trees", "linear", "net"]),
    whole("trees", 10, 500, TREES, log=True),
    whole("depth", 2, 16, TREES),
    real("penalty", 1e-4, 1e2, LINEAR, log=True),
    whole("hidden", 4, 256, NET, log=True),
    real("rate", 1e-5, 1e-1, NET, log=True),
]
SPHERE = [{"x0": i / 40, "x1": j / 40, "x2": 0.5, "x3": 0.5, "x4": 0.5} for i in range(41) for j in range(41)]
BITS = [*(whole(f"b{i}", 0, 1) for i in range(8)), whole("n", 0, 10), choice("kind", ["a", "b"])]

FRONTS = {
    "zdt1": lambda: Front(zdt1, UNIT, [1.1, 6.0], functools.partial(line, N)),
    "zdt2": lambda: Front(zdt2, UNIT, [1.1, 6.0], functools.partial(line, N)),
    "zdt3": lambda: Front(zdt3, UNIT, [1.1, 6.0], functools.partial(line, N)),
    "zdt6": lambda: Front(zdt6, UNIT, [1.1, 10.0], functools.partial(line, N)),
    "dtlz2": lambda: Front(dtlz2, reals(5, 0, 1), [2.0, 2.0, 2.0], lambda: SPHERE, ["minimize"] * 3),
    "fonseca": lambda: Front(
        fonseca,
        reals(3, -2, 2),
        [0.0, 0.0],
        lambda: [{f"x{i}": t / 1000 / math.sqrt(3) for i in range(3)} for t in range(-1000, 1001)],
        ["maximize", "maximize"],
    ),
    "kursawe": lambda: Front(kursawe, reals(3, -5, 5), [-5.0, 12.0], lambda: grid(reals(3, -1.5, 0.1), 41)),
    "binh-korn": lambda: Front(binh_korn, CORNER, [140.0, 50.0], lambda: grid(CORNER, 301)),
    "srinivas": lambda: Front(srinivas, PLANE, [250.0, 0.0], lambda: grid(PLANE, 401)),
    "encoder": lambda: Front(encoder, ENCODER, [3.0, 120.0], lambda: list(encoders())),
    "score-and-cost": lambda: Front(
        score_and_cost, ENCODER, [0.0, 120.0], lambda: list(encoders()), ["maximize", "minimize"]
    ),
    "bits": lambda: Front(bits, BITS, [0.0, 25.0], lambda: list(all_bits()), ["maximize", "minimize"]),
    "families": lambda: Front(families, FAMILIES, [0.0, 10.0], lambda: list(all_families()), ["maximize", "minimize"]),
}

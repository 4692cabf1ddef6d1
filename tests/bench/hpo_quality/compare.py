"""Compares hpo-svc's samplers with Optuna's: what is found after a number of trials, paired by problem and seed.

    cargo build --release -p hpo-svc --example ask_tell
    python tests/bench/hpo_quality/compare.py target/release/examples/ask_tell [--sampler tpe] [--problems branin,tuning]
        [--seeds 20] [--trials 100] [--parallel 8] [--jobs 1] [--limit SECONDS] [--json FILE] [--peer FILE]

Needs optuna 5.0.0; for --sampler cmaes and cmaes-margin also cmaes 0.13.1, for qmc also scipy, for gp also torch and scipy.
Both sides run the same problems (functions.py; fronts.py with several objectives, for nsga2 or with --fronts) with their defaults.

The normalised regret of a run is 0 at the known optimum and 1 at the median of random points: (found - optimum) / (median - optimum),
the sign turned where a problem is maximised. What is found is the value of the best trial; on a noisy problem the value without noise
of the trial that seemed best. With several objectives it is the volume dominated by the feasible trials, 0 at the front's own volume
and 1 at the median of random searches of as many trials.

A win is the smaller regret of a pair, a tie counts half; the interval of the share of wins is Wilson's 95 % interval. --parallel 8
plays each study once more with 8 trials open that end in random order, and says what is lost. See figures.py for every figure.

Optuna's Gaussian process takes half a minute to five minutes a study. --peer FILE keeps what Optuna found: pairs that are in it are
not played again on Optuna's side, others are added, and without a program Optuna alone is played. optuna_gp.json beside this file
was made so; it can be gone on with at any time.
"""

import os

# One process is one thread, also in the peers' libraries.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import functools
import json
import math
import multiprocessing
import random
import time
import warnings

import optuna
from figures import lost, row, together
from fronts import FRONTS
from functions import FUNCTIONS
from players import SAMPLERS, Optunas, Ours, play
from problems import Problem, draw


class Single:
    """Plays problems of one objective."""

    def __init__(self, problem, _):
        self.problem = problem
        self.scale = problem.median() - problem.optimum

    def evaluate(self, seed, number, params):
        noise = random.Random(seed * 1_000_003 + number).gauss(0, self.problem.noise)
        return [self.problem.function(params) + noise], []

    def regret(self, ended):
        best = max if self.problem.maximize else min
        params, _, _ = best(ended, key=lambda end: end[1][0])
        return (self.problem.function(params) - self.problem.optimum) / self.scale


class Several:
    """Plays problems of several objectives."""

    def __init__(self, problem, trials):
        self.problem = problem
        self.best, self.of_random = problem.best(), problem.of_random(trials)

    def evaluate(self, _seed, _number, params):
        return self.problem.function(params)

    def regret(self, ended):
        volume = self.problem.volume([(values, constraints) for _, values, constraints in ended])
        return (self.best - volume) / (self.best - self.of_random)


@functools.cache
def game(name, trials):
    problem = {**FUNCTIONS, **FRONTS}[name]()
    return (Single if isinstance(problem, Problem) else Several)(problem, trials)


@functools.cache
def players(program):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    return {**({"ours": Ours(program)} if program else {}), "optuna": Optunas()}


def pair(task):
    """The regrets and seconds of both sides for one problem and seed, one trial at a time and with many open.

    `known` holds regrets that are not to be played for again, by player and number of open trials.
    """
    program, sampler, trials, widths, seed, name, known = task
    judge = game(name, trials)
    evaluate = functools.partial(judge.evaluate, seed)
    result = {"problem": name, "seed": seed, "regrets": dict(known), "seconds": {}}
    for who, player in players(program).items():
        for width in widths:
            if f"{who} {width}" in known:
                continue
            start = time.perf_counter()
            player.begin(judge.problem.space, judge.problem.directions, sampler, seed)
            ended = play(player, evaluate, trials, width, seed)
            result["seconds"][f"{who} {width}"] = time.perf_counter() - start
            result["regrets"][f"{who} {width}"] = judge.regret(ended)
    source = random.Random(seed)
    drawn = [draw(judge.problem.space, source) for _ in range(trials)]
    result["regrets"]["random"] = judge.regret([(params, *evaluate(i, params)) for i, params in enumerate(drawn)])
    return result


def played(tasks, jobs, limit):
    """The results of the tasks as they come, until the time is over."""
    start = time.monotonic()
    if jobs == 1:
        for task in tasks:
            if time.monotonic() - start > limit:
                return
            yield pair(task)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        results = pool.imap_unordered(pair, tasks)
        for _ in tasks:
            try:
                yield results.next(max(0.1, limit - (time.monotonic() - start)) if limit < math.inf else None)
            except multiprocessing.TimeoutError:
                return


def summary(results, names, widths):
    """The document's figures of what there is."""
    document = {"rows": [], "together": {}, "seconds": {}}
    for width in widths:
        by_problem = {}
        for name in names:
            mine = [result["regrets"] for result in results if result["problem"] == name]
            if mine:
                by_problem[name] = [(r[f"ours {width}"], r[f"optuna {width}"]) for r in mine]
                figures = row(*zip(*by_problem[name]))
                document["rows"].append({"problem": name, "open": width, **figures})
        document["together"][str(width)] = together(by_problem)
    keys = [f"{who} {width}" for who in ("ours", "optuna") for width in widths]
    document["seconds"] = {key: sum(result["seconds"].get(key, 0.0) for result in results) for key in keys}
    if len(widths) > 1:
        regrets = {key: [result["regrets"][key] for result in results] for key in [*keys, "random"]}
        document["lost"] = {
            who: lost(*(regrets[f"{who} {width}"] for width in widths), regrets["random"]) for who in ("ours", "optuna")
        }
    return document


def text(document):
    lines = []
    for r in [*document["rows"], *({"problem": "together", "open": w, **f} for w, f in document["together"].items())]:
        low, high = r["interval"]
        lines.append(
            f"{r['problem']:15} {r['open']} open: {r['share']:6.1%} of {r['pairs']} pairs [{low:.3f}, {high:.3f}],"
            f" regret {r['regret_ours']:.4g} and {r['regret_optuna']:.4g}, ratio {r['ratio']:.3f}"
        )
        if "ratio_interval" in r:
            low, high = r["ratio_interval"]
            lines[-1] += f" [{low:.3f}, {high:.3f}], geometric {r['geometric_ratio']:.3f}"
    for who, r in document.get("lost", {}).items():
        lines.append(
            f"lost by {who:7} regret {r['regret_one']:.4g} -> {r['regret_many']:.4g} (random search {r['regret_random']:.4g}):"
            f" {r['of_quality']:.1%} of the quality, {r['of_gain']:.1%} of the gain over random search"
        )
    lines.append("seconds         " + ", ".join(f"{key} open {value:.1f}" for key, value in document["seconds"].items()))
    return "\n".join(lines)


class Peer:
    """What Optuna found in earlier comparisons with the same version, sampler and number of trials, kept in a file."""

    def __init__(self, path, head):
        self.path, self.head, self.regrets = path, head, {}
        if path and os.path.exists(path):
            with open(path) as file:
                document = json.load(file)
            if (kept := {key: document.pop(key) for key in head}) != head:
                raise SystemExit(f"{path}: is of {kept}, not of {head}")
            self.regrets = document["regrets"]

    def known(self, name, seed):
        return self.regrets.get(name, {}).get(str(seed), {})

    def add(self, result):
        found = {key: regret for key, regret in result["regrets"].items() if key.startswith("optuna ")}
        self.regrets.setdefault(result["problem"], {})[str(result["seed"])] = found

    def write(self):
        if self.path:
            written({**self.head, "regrets": self.regrets}, self.path)


def written(document, path):
    with open(path + ".new", "w") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
    os.replace(path + ".new", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", help="the example ask_tell of hpo-svc; without it --peer's file is added to")
    parser.add_argument("--sampler", choices=SAMPLERS, default="tpe")
    parser.add_argument("--fronts", action="store_true", help="the problems of several objectives")
    parser.add_argument("--problems", help="names with commas between them; default: all of the sampler")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--parallel", type=int, default=1, help="play also with so many trials open")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--limit", type=float, default=math.inf, help="seconds after which no more is waited for")
    parser.add_argument("--json", help="file for all figures and every pair; written anew every ten seconds")
    parser.add_argument("--peer", help="file of what Optuna found, read and added to")
    arguments = parser.parse_args()
    if not arguments.program and not arguments.peer:
        parser.error("neither a program to compare nor a file for what Optuna finds")
    several = arguments.fronts or arguments.sampler.startswith("nsga2")
    names = (arguments.problems or ",".join(FRONTS if several else FUNCTIONS)).split(",")
    widths = sorted({1, arguments.parallel})
    # Seed by seed, so that what is there when the time is over is of all problems.
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    common = (arguments.program, arguments.sampler, arguments.trials, widths)
    head = {"optuna": optuna.__version__, "sampler": arguments.sampler, "trials": arguments.trials}
    peer = Peer(arguments.peer, head)
    tasks = [(*common, seed, name, peer.known(name, seed)) for seed in seeds for name in names]
    if not arguments.program:
        tasks = [task for task in tasks if any(f"optuna {width}" not in task[-1] for width in widths)]
    results, last = [], time.monotonic()

    def write():
        peer.write()
        if arguments.program and arguments.json and results:
            ordered = sorted(results, key=lambda result: (names.index(result["problem"]), result["seed"]))
            written({**head, **summary(results, names, widths), "pairs": ordered}, arguments.json)

    for result in played(tasks, arguments.jobs, arguments.limit):
        results.append(result)
        peer.add(result)
        if time.monotonic() - last > 10:
            write()
            last = time.monotonic()
    write()
    if arguments.program and results:
        print(f"{arguments.sampler}, {arguments.trials} trials, beside Optuna {optuna.__version__}")
        print(text(summary(results, names, widths)))


if __name__ == "__main__":
    main()

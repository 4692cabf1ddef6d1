"""Writes what Optuna itself computes with several objectives and constraints, for hpo-svc's unit tests to compare with.

    python tests/peers/optuna_pareto_golden.py crates/hpo-svc/testdata

`pareto.json`: ranks of non-domination, crowding, hypervolumes and subsets by it, and the partition of parameters into groups.
`tpe_multi.json`: TPE's split and densities. `nsga2.json`: generations and parents of NSGA-II.
Needs optuna 5.0.0. The output depends on the seeds below alone.
"""

import math
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import optuna
from optuna._hypervolume import _solve_hssp, compute_hypervolume
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json
from optuna.samplers._tpe.sampler import _get_reference_point, _split_trials
from optuna.samplers.nsgaii._elite_population_selection_strategy import _calc_crowding_distance, _crowding_distance_sort
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import TrialState, create_trial
from optuna_golden import number, write

SPACE = {
    "act": CategoricalDistribution(["relu", None, 3]),
    "depth": IntDistribution(1, 100, log=True),
    "drop": FloatDistribution(0.0, 0.5, step=0.05),
    "mom": FloatDistribution(-1.0, 2.0),
}


def values(rng, kind):
    """A loss: fine, coarse with many ties, or now and then infinite."""
    if kind == "coarse":
        return float(rng.randrange(0, 5))
    if kind == "odd" and rng.random() < 0.15:
        return rng.choice([math.inf, -math.inf, 0.0, -0.0])
    return rng.gauss(0, 1)


def pareto_case(seed):
    rng = random.Random(seed)
    dimension, kind = rng.randrange(1, 6), rng.choice(["fine", "coarse", "odd"])
    n = rng.randrange(1, 26)
    points = [[values(rng, kind) for _ in range(dimension)] for _ in range(n)]
    losses = np.array(points)
    penalty = [rng.choice([0.0, -1.0, 0.5, rng.random()]) for _ in points]
    n_below = rng.randrange(1, n + 1)
    case = {
        "points": [[number(x) for x in point] for point in points],
        "penalty": penalty,
        "n_below": n_below,
        "ranks": _fast_non_domination_rank(losses).tolist(),
        "ranks_below": _fast_non_domination_rank(losses, n_below=n_below).tolist(),
        "ranks_constrained": _fast_non_domination_rank(losses, penalty=np.array(penalty), n_below=n_below).tolist(),
    }
    trials = [create_trial(values=point) for point in points]
    for index, trial in enumerate(trials):
        trial.number = index
    distances = _calc_crowding_distance(list(trials))
    _crowding_distance_sort(trials)
    case["crowding"] = [number(float(distances[index])) for index in range(n)]
    case["by_crowding"] = [trial.number for trial in trials]
    reference = _get_reference_point(losses)
    case["reference"] = [number(x) for x in reference.tolist()]
    if dimension > 1:
        case["hypervolume"] = number(float(compute_hypervolume(losses, reference)))
        # The subset of a front, as its callers ask for it; of coarse points equal volumes are told apart by rounding alone.
        front = np.flatnonzero(_fast_non_domination_rank(losses) == 0)
        size = rng.randrange(0, len(front) + 1)
        if kind != "coarse":
            reference = _get_reference_point(losses[front])
            case["front"], case["size"] = front.tolist(), size
            case["subset"] = _solve_hssp(losses[front], front, size, reference).tolist() if size else []
    return case


def group_case(seed):
    rng = random.Random(seed)
    names = list("abcdefg")
    group = _SearchSpaceGroup()
    trials = []
    for _ in range(rng.randrange(0, 6)):
        # Some go together.
        chosen = [name for part in ("ab", "c", "def") if rng.random() < 0.6 for name in part if rng.random() < 0.95]
        trials.append(chosen)
        group.add_distributions({name: FloatDistribution(0, 1) for name in chosen})
    return {"names": names, "trials": trials, "parts": sorted(sorted(space) for space in group.search_spaces)}


def random_params(rng):
    return {
        "act": rng.choice(SPACE["act"].choices),
        "depth": rng.randrange(1, 101),
        "drop": round(rng.randrange(0, 11) * 0.05, 10),
        "mom": rng.uniform(-1.0, 2.0),
    }


def trial_json(trial):
    return {
        "number": trial.number,
        "state": trial.state.name,
        "values": [number(x) for x in trial.values] if trial.state == TrialState.COMPLETE else [],
        "params": {name: SPACE[name].to_internal_repr(value) for name, value in trial.params.items()},
        "attrs": trial.system_attrs,
    }


def attributes(rng, constrained):
    """Constraints as Optuna 5 keeps them, or as 4 did."""
    if not constrained or rng.random() < 0.1:
        return {}
    if rng.random() < 0.3:
        return {"constraints": [rng.gauss(-0.5, 1), rng.gauss(-1, 1)]}
    return {"constraints:size": rng.gauss(-0.5, 1), "constraints:time": rng.choice([-1.0, 0.0, rng.random()])}


def tpe_case(seed, objectives, n, constrained):
    rng = random.Random(seed)
    directions = [rng.choice(["minimize", "maximize"]) for _ in range(objectives)]
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.TPESampler(seed=0))
    for _ in range(n):
        state = rng.choices([TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL], [12, 2, 1, 1])[0]
        complete = state == TrialState.COMPLETE
        params = random_params(rng)
        attrs = attributes(rng, constrained) if state in (TrialState.COMPLETE, TrialState.PRUNED) else {}
        kind = rng.choice(["fine", "fine", "fine", "coarse"])
        study.add_trial(
            create_trial(
                state=state,
                values=[values(rng, kind) for _ in directions] if complete else None,
                params=params,
                distributions=SPACE,
                system_attrs=attrs,
            )
        )
    trials = [t for t in study.get_trials() if t.state != TrialState.FAIL]
    ended = sum(t.state != TrialState.RUNNING for t in trials)
    n_below = math.ceil(0.1 * ended) if objectives > 1 else min(math.ceil(0.1 * ended), 25)
    below, above = _split_trials(study, trials, n_below)
    good = study.sampler._build_parzen_estimator(study, SPACE, below, handle_below=True)
    bad = study.sampler._build_parzen_estimator(study, SPACE, above, handle_below=False)
    points = [random_params(rng) for _ in range(6)]
    samples = {name: np.array([d.to_internal_repr(p[name]) for p in points], dtype=float) for name, d in SPACE.items()}
    return {
        "directions": directions,
        "trials": [trial_json(t) for t in study.get_trials()],
        "best": [t.number for t in study.best_trials],
        "below": [t.number for t in below],
        "above": [t.number for t in above],
        "points": [[float(samples[name][i]) for name in SPACE] for i in range(len(points))],
        "log_below": [number(v) for v in good.log_pdf(samples).tolist()],
        "log_above": [number(v) for v in bad.log_pdf(samples).tolist()],
    }


def nsga_case(seed):
    """A study with generations of which some are not full, and the parents of the generation that is sampled next."""
    rng = random.Random(seed)
    directions = [rng.choice(["minimize", "maximize"]) for _ in range(rng.randrange(1, 4))]
    size, constrained = rng.randrange(2, 7), rng.random() < 0.5
    sampler = optuna.samplers.NSGAIISampler(population_size=size, seed=0)
    study = optuna.create_study(directions=directions, sampler=sampler)
    kind = rng.choice(["fine", "coarse", "odd"])
    for generation in range(rng.randrange(1, 5)):
        for _ in range(size if rng.random() < 0.5 else rng.randrange(1, size + 3)):
            state = rng.choices([TrialState.COMPLETE, TrialState.FAIL], [8, 1])[0]
            attrs = attributes(rng, constrained)
            if rng.random() < 0.9:
                attrs["NSGAIISampler:generation"] = generation
            study.add_trial(
                create_trial(
                    state=state,
                    values=[values(rng, kind) for _ in directions] if state == TrialState.COMPLETE else None,
                    system_attrs=attrs,
                )
            )
    trial_id = study._storage.create_new_trial(study._study_id)
    next_generation = sampler.get_trial_generation(study, study._storage.get_trial(trial_id))
    # One generation after the other, as a study goes: what is asked for again comes from the study's attributes.
    parents = [[t.number for t in sampler.get_parent_population(study, g)] for g in range(next_generation + 1)]
    return {
        "directions": directions,
        "population_size": size,
        "trials": [trial_json(t) for t in study.get_trials()[:-1]],
        "generation": next_generation,
        "parents": [sorted(numbers) for numbers in parents],
    }


def main():
    folder = Path(sys.argv[1])
    version = {"optuna": optuna.__version__}
    cases, groups = [pareto_case(seed) for seed in range(120)], [group_case(seed) for seed in range(30)]
    write(folder / "pareto.json", {**version, "cases": cases, "groups": groups})
    shapes = [(1, 60, True), (2, 1, False), (2, 8, True), (2, 70, False), (2, 120, True), (3, 90, False), (4, 50, True)]
    space = [[name, distribution_to_json(d)] for name, d in SPACE.items()]
    cases = [tpe_case(seed, *shape) for seed, shape in enumerate(shapes)]
    write(folder / "tpe_multi.json", {**version, "space": space, "cases": cases})
    write(folder / "nsga2.json", {**version, "cases": [nsga_case(seed) for seed in range(60)]})


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()

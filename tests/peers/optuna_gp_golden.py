"""Writes what Optuna's Gaussian process computes, for hpo-svc's unit tests to compare with.

    python tests/peers/optuna_gp_golden.py crates/hpo-svc/testdata

Needs optuna 5.0.0, torch and scipy. Kernel, likelihood with its gradient, posterior and acquisition functions are those of Optuna's
own classes at kernel parameters that are given; the normal numbers of the sampled ones are given too. The output depends on the
seeds below alone.
"""

import json
import math
import random
import sys
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna._gp import acqf as acqf_module
from optuna._gp import gp, prior
from optuna._gp.search_space import SearchSpace
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.samplers._gp.sampler import _standardize_values
from optuna.trial import TrialState, create_trial

SPACE = {
    "act": CategoricalDistribution(["relu", None, 3]),
    "batch": IntDistribution(8, 64, step=8),
    "drop": FloatDistribution(0.0, 0.5, step=0.05),
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "mom": FloatDistribution(-1.0, 2.0),
}
SAMPLES = 16
NORMALS = {}


def normals(dim, n_samples, seed):
    """In place of Optuna's scrambled Sobol sequence: numbers that can be written down."""
    rows = np.random.RandomState(seed).normal(size=(n_samples, dim)).round(6)
    NORMALS[f"{seed}:{dim}"] = rows.tolist()
    return torch.from_numpy(rows)


gp.sample_from_normal_sobol = normals
acqf_module.sample_from_normal_sobol = normals


def random_params(rng):
    return {
        "act": rng.choice(SPACE["act"].choices),
        "batch": rng.randrange(8, 65, 8),
        "drop": round(rng.randrange(0, 11) * 0.05, 10),
        "lr": math.exp(rng.uniform(math.log(1e-5), math.log(1e-1))),
        "mom": rng.uniform(-1.0, 2.0),
    }


def objectives(p):
    first = (math.log10(p["lr"]) + 3) ** 2 + 0.3 * p["mom"] + (p["act"] is None)
    return [first, -p["batch"] / 32 + p["drop"] * p["mom"]]


def constraints(p):
    return {"cost": p["batch"] / 40 - 1.0, "edge": p["mom"] - 1.2}


def internal(params):
    return {name: SPACE[name].to_internal_repr(value) for name, value in params.items()}


def regressor(X, y, space, rng):
    """A process with parameters that are given rather than fitted."""
    parameters = [round(rng.uniform(0.3, 4.0), 3) for _ in SPACE] + [round(rng.uniform(0.5, 2.0), 3), 0.01]
    model = gp.GPRegressor(
        is_categorical=torch.from_numpy(space.is_categorical),
        X_train=torch.from_numpy(X),
        y_train=torch.from_numpy(y),
        inverse_squared_lengthscales=torch.tensor(parameters[:-2], dtype=torch.float64),
        kernel_scale=torch.tensor(parameters[-2], dtype=torch.float64),
        noise_var=torch.tensor(parameters[-1], dtype=torch.float64),
    )
    return model, parameters


def loss(model, raw, deterministic):
    """As in GPRegressor._fit_kernel_params, with its gradient."""
    raw = torch.tensor(raw, dtype=torch.float64).requires_grad_(True)
    minimum = prior.DEFAULT_MINIMUM_NOISE_VAR
    model.inverse_squared_lengthscales = torch.exp(raw[:-2])
    model.kernel_scale = torch.exp(raw[-2])
    model.noise_var = torch.tensor(minimum, dtype=torch.float64) if deterministic else torch.exp(raw[-1]) + minimum
    value = -model.marginal_log_likelihood() - prior.default_log_prior(model)
    value.backward()
    return value.item(), raw.grad.tolist()


def fitted(X, y, space):
    model = gp.fit_kernel_params(
        X=X, Y=y, is_categorical=space.is_categorical, log_prior=prior.default_log_prior,
        minimum_noise=prior.DEFAULT_MINIMUM_NOISE_VAR, deterministic_objective=False,
    )
    return -(model.marginal_log_likelihood() + prior.default_log_prior(model)).item()


def case(seed, n, n_running):
    rng = random.Random(seed)
    NORMALS.clear()
    space = SearchSpace(SPACE)
    trials, done = [], []
    for number in range(n):
        params = random_params(rng)
        # Every trial of the second case is infeasible.
        shift = 5.0 if seed % 2 else 0.0
        limits = {name: value + shift for name, value in constraints(params).items()}
        values = objectives(params)
        done.append((params, values, limits))
        trials.append({"state": "COMPLETE", "params": internal(params), "values": values, "constraints": limits})
    running = [random_params(rng) for _ in range(n_running)]
    trials += [{"state": "RUNNING", "params": internal(p), "values": [], "constraints": {}} for p in running]
    frozen = [
        create_trial(state=TrialState.COMPLETE, values=v, params=p, distributions=SPACE) for p, v, _ in done
    ]
    X = space.get_normalized_params(frozen)
    pending = space.get_normalized_params(frozen[: len(running)], running)
    # The first objective is minimized, the second maximized.
    Y, _, _ = _standardize_values(np.array([[-1.0, 1.0]]) * np.array([v for _, v, _ in done]))
    limits = np.array([list(c.values()) for _, _, c in done])
    scores, means, stds = _standardize_values(-limits)
    feasible = np.all(limits <= 0, axis=1)
    thresholds = (-means / stds).tolist()

    models, parameters = zip(*(regressor(X, column, space, rng) for column in [*Y.T, *scores.T]))
    kernel = models[0].kernel().tolist()
    raw = np.log([*parameters[0][:-1], parameters[0][-1] - 1e-6]).tolist()
    losses = [loss(regressor(X, Y[:, 0], space, random.Random(0))[0], raw, d) for d in (False, True)]
    for model in models:
        model._cache_matrix()
    best = float(np.where(feasible, Y[:, 0], -np.inf).max())
    sampled = {"n_qmc_samples": SAMPLES, "qmc_seed": 100}
    plain = {"gpr": models[0], "search_space": space}
    many = {"gpr_list": list(models[:2]), "search_space": space}
    limited = {"constraints_gpr_list": list(models[2:]), "constraints_threshold_list": thresholds}
    waiting = {"normalized_params_of_running_trials": pending}
    tensor = torch.from_numpy(Y)
    some = torch.from_numpy(Y[feasible]) if feasible.any() else None
    functions = {
        "logei": acqf_module.LogEI(**plain, threshold=float(Y[:, 0].max())),
        "logcei": acqf_module.LogCEI(**plain, threshold=best, **limited),
        "qlogei": acqf_module.qLogEI(**plain, threshold=float(Y[:, 0].max()), **sampled, **waiting),
        "qlogcei": acqf_module.qLogCEI(**plain, threshold=best, **sampled, **limited, **waiting),
        "logehvi": acqf_module.LogEHVI(**many, Y_train=tensor, **sampled),
        "logcehvi": acqf_module.LogCEHVI(**many, Y_feasible=some, **sampled, **limited),
        "qlogehvi": acqf_module.qLogEHVI(**many, Y_train=tensor, **sampled, **waiting),
        "qlogcehvi": acqf_module.qLogCEHVI(**many, Y_feasible=some, **sampled, **limited, **waiting),
    }
    points = [list(space.get_normalized_params(frozen[:1], [random_params(rng)])[0]) for _ in range(6)]
    points.append(X[int(np.argmax(Y[:, 0]))].tolist())
    mean, variance = models[0].posterior(torch.tensor(points))
    return {
        "trials": trials,
        "rows": X.tolist(),
        "pending": pending.tolist(),
        "scores": Y.T.tolist(),
        "constraint_scores": scores.T.tolist(),
        "thresholds": thresholds,
        "parameters": parameters,
        "kernel": kernel,
        "raw": raw,
        "losses": losses,
        "fitted_loss": fitted(X, Y[:, 0], space),
        "points": points,
        "mean": mean.tolist(),
        "variance": variance.tolist(),
        "acquisitions": {
            name: [f.eval_acqf_with_grad(np.array(p)) for p in points] for name, f in functions.items()
        },
        "normals": dict(NORMALS),
    }


def main():
    folder = Path(sys.argv[1])
    z = [-1e6, -1e4, -300.0, -40.0, -25.1, -24.9, -10.0, -3.0, -0.5, 0.0, 0.5, 3.0, 10.0, 100.0]
    document = {
        "optuna": optuna.__version__,
        "space": [[name, distribution_to_json(d)] for name, d in SPACE.items()],
        "log_ei": list(zip(z, acqf_module.standard_logei(torch.tensor(z, dtype=torch.float64)).tolist())),
        "cases": [case(0, 14, 2), case(1, 12, 1), case(2, 40, 3)],
    }

    def plain(value):
        return value.tolist()

    text = json.dumps(document, separators=(",", ":"), allow_nan=False, default=plain)
    (folder / "gp.json").write_text(text + "\n")


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    main()

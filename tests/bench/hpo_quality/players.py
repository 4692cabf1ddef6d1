"""Who is compared: our samplers, by the program of the example `ask_tell`, and Optuna's; each runs a study with some trials open."""

import json
import random
import subprocess

import optuna
from problems import suggest

# By name: our sampler with its settings, and Optuna's for a seed.
SAMPLERS = {
    "tpe": ("tpe", {}, lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "tpe-joint": ("tpe", {"multivariate": True}, lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True)),
    "tpe-group": (
        "tpe",
        {"multivariate": True, "group": True},
        lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True),
    ),
    "cmaes": ("cmaes", {}, lambda seed: optuna.samplers.CmaEsSampler(seed=seed)),
    "cmaes-margin": (
        "cmaes",
        {"with_margin": True},
        lambda seed: optuna.samplers.CmaEsSampler(seed=seed, with_margin=True),
    ),
    "gp": ("gp", {}, lambda seed: optuna.samplers.GPSampler(seed=seed)),
    "qmc": ("qmc", {}, lambda seed: optuna.samplers.QMCSampler(seed=seed, scramble=True)),
    "nsga2": ("nsga2", {}, lambda seed: optuna.samplers.NSGAIISampler(seed=seed)),
    "nsga2-small": (
        "nsga2",
        {"population_size": 20},
        lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
    ),
    "random": ("random", {}, lambda seed: optuna.samplers.RandomSampler(seed=seed)),
}


class Ours:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def send(self, message):
        self.process.stdin.write(json.dumps(message) + "\n")

    def begin(self, space, directions, sampler, seed):
        name, settings, _ = SAMPLERS[sampler]
        space = [parameter.contract() for parameter in space]
        new = {"search_space": space, "seed": seed, "sampler": name, "settings": settings, "directions": directions}
        self.send({"new": new})

    def ask(self):
        self.send({"ask": True})
        answer = json.loads(self.process.stdout.readline())
        return answer["number"], answer["params"]

    def tell(self, number, values, constraints):
        self.send({"tell": values, "number": number, "constraints": constraints})


class Optunas:
    def begin(self, space, directions, sampler, seed):
        self.space = space
        self.study = optuna.create_study(directions=directions, sampler=SAMPLERS[sampler][2](seed))

    def ask(self):
        trial = self.study.ask()
        return trial, suggest(trial, self.space)

    def tell(self, trial, values, constraints):
        for index, value in enumerate(constraints):
            trial.set_constraint(str(index), value)
        self.study.tell(trial, values)


def play(player, evaluate, trials, width, seed):
    """Runs a study that was begun, with `width` trials open until no more are wanted; the next to end is any of those.

    `evaluate` gives what to tell, the values and the constraints, for a trial's number and parameters. Returns the parameters in the
    order in which their trials ended, with what was told.
    """
    source, opened, ended, asked = random.Random(seed), [], [], 0
    while len(ended) < trials:
        while asked < trials and len(opened) < width:
            opened.append((asked, *player.ask()))
            asked += 1
        number, trial, params = opened.pop(source.randrange(len(opened)))
        values, constraints = evaluate(number, params)
        player.tell(trial, values, constraints)
        ended.append((params, values, constraints))
    return ended

"""Several processes of unmodified Optuna on one study over `GrpcStorageProxy`, one of them killed on the way.

    python tests/peers/optuna_workers.py 127.0.0.1:7700 STUDY --workers 8 --trials 2000

Some trials are queued beforehand. Prints as JSON which trial numbers each surviving worker was given. Needs optuna 5.0.0, grpcio.
"""

import argparse
import json
import os
import random
import subprocess
import sys

import optuna
from optuna.storages import GrpcStorageProxy
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState


def proxy(address):
    host, port = address.rsplit(":", 1)
    storage = GrpcStorageProxy(host=host, port=int(port))
    storage.wait_server_ready(timeout=30)
    return storage


def load(arguments, seed):
    sampler = optuna.samplers.RandomSampler(seed=seed)
    return optuna.load_study(study_name=arguments.study, storage=proxy(arguments.address), sampler=sampler)


def work(arguments):
    study, given = load(arguments, arguments.worker), []

    def objective(trial):
        given.append(trial.number)
        if arguments.dies and len(given) == 5:
            os.kill(os.getpid(), 9)
        x = trial.suggest_float("x", -10, 10)
        n = trial.suggest_int("n", 1, 3)
        kind = trial.suggest_categorical("kind", ["a", "b", None])
        trial.report(x * x, step=1)
        trial.set_user_attr("worker", arguments.worker)
        return x * x + n + (kind == "a")

    ended = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
    study.optimize(objective, callbacks=[MaxTrialsCallback(arguments.trials, states=ended)])
    print(json.dumps(given))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("study")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--worker", type=int)
    parser.add_argument("--dies", action="store_true")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if arguments.worker is not None:
        work(arguments)
        return
    study = optuna.create_study(study_name=arguments.study, storage=proxy(arguments.address))
    queued = [random.Random(seed).uniform(-10, 10) for seed in range(min(40, arguments.trials // 2))]
    for x in queued:
        study.enqueue_trial({"x": x})
    processes = []
    for worker in range(arguments.workers):
        command = [sys.executable, __file__, arguments.address, arguments.study, "--trials", str(arguments.trials)]
        command += ["--worker", str(worker)] + (["--dies"] if worker == 0 else [])
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in processes]
    statuses = [process.returncode for process in processes]
    given = [json.loads(output) if output else None for output in outputs]
    trials = study.get_trials(deepcopy=False)
    print(
        json.dumps(
            {
                "statuses": statuses,
                "given": given,
                "queued": queued,
                "trials": [
                    {
                        "id": trial._trial_id,
                        "number": trial.number,
                        "state": trial.state.name,
                        "x": trial.params.get("x"),
                        "reports": len(trial.intermediate_values),
                        "worker": trial.user_attrs.get("worker"),
                    }
                    for trial in trials
                ],
            }
        )
    )


if __name__ == "__main__":
    main()

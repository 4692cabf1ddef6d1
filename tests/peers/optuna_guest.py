"""A script that adds trials of its own to a study that a sweep is at work on.

    python tests/peers/optuna_guest.py 127.0.0.1:7700 STUDY --trials 3

Waits for the study. Prints the numbers of its trials as JSON. Needs optuna 5.0.0, grpcio.
"""

import argparse
import json
import time

import optuna
from optuna.storages import GrpcStorageProxy


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("study")
    parser.add_argument("--trials", type=int, default=3)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    host, port = arguments.address.rsplit(":", 1)
    storage = GrpcStorageProxy(host=host, port=int(port))
    storage.wait_server_ready(timeout=30)
    deadline = time.monotonic() + 30
    while arguments.study not in {study.study_name for study in storage.get_all_studies()}:
        assert time.monotonic() < deadline, "there is no such study"
        time.sleep(0.05)
    study = optuna.load_study(study_name=arguments.study, storage=storage)
    numbers = []
    for _ in range(arguments.trials):
        trial = study.ask()
        x = trial.suggest_float("x", 0.0, 1.0)
        study.tell(trial, (x - 0.3) ** 2)
        numbers.append(trial.number)
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()

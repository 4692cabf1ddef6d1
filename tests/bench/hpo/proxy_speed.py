"""Trials a second of an unmodified Optuna client over the storage proxy: our server beside Optuna's own on SQLite.

    python tests/bench/hpo/proxy_speed.py --quintet target/release/quintet --trials 200

5 floats and 2 categoricals, random sampler, everything durable. Both servers run in turn, `--repeat` times; medians and their
ratio are printed, with the CPU time that each server used for a trial. Needs optuna 5.0.0 and grpcio.
"""

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
from optuna.storages import GrpcStorageProxy

OPTUNA_SERVER = """
import sys, optuna
optuna.storages.run_grpc_proxy_server(optuna.storages.RDBStorage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def objective(trial):
    x = [trial.suggest_float(f"x{i}", 0.0, 1.0) for i in range(5)]
    kinds = [trial.suggest_categorical(f"c{i}", ["a", "b", "c"]) for i in range(2)]
    return sum(x) + kinds.count("a")


def cpu_seconds(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def measure(command, port, trials):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        storage = GrpcStorageProxy(host="127.0.0.1", port=port)
        storage.wait_server_ready(timeout=60)
        study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=1))
        study.optimize(objective, n_trials=10)
        start, cpu = time.perf_counter(), cpu_seconds(process)
        study.optimize(objective, n_trials=trials)
        elapsed, cpu = time.perf_counter() - start, cpu_seconds(process) - cpu
        storage.close()
        return trials / elapsed, cpu / trials * 1e3
    finally:
        process.kill()
        process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quintet", default="target/release/quintet")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    results = {"quintet": [], "optuna": []}
    with tempfile.TemporaryDirectory(dir=Path(arguments.quintet).resolve().parents[1]) as folder:
        for turn in range(arguments.repeat):
            port = free_port()
            ours = [arguments.quintet, "serve", "--services", "hpo", "--data-dir", f"{folder}/{turn}"]
            results["quintet"].append(measure([*ours, "--listen", f"127.0.0.1:{port}"], port, arguments.trials))
            port = free_port()
            theirs = [sys.executable, "-c", OPTUNA_SERVER, f"sqlite:///{folder}/{turn}.db", str(port)]
            results["optuna"].append(measure(theirs, port, arguments.trials))
    rates = {}
    for name, figures in results.items():
        rates[name] = statistics.median(rate for rate, _ in figures)
        cpu = statistics.median(cpu for _, cpu in figures)
        print(f"{name}: {rates[name]:.1f} trials/s, {cpu:.2f} ms of the server's CPU a trial")
    print(f"ratio: {rates['quintet'] / rates['optuna']:.2f}")


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    main()

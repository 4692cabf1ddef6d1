"""A study of very many trials behind the storage proxy: time of the first look at them, and of the calls after it.

    python tests/bench/hpo/long_history.py --server target/release/hpo-svc --quintet target/debug/quintet --trials 100000

Imports a study with 7 parameters a trial into a fresh server, restarts it, and calls it as Optuna's client does. Prints times and
the server's resident memory. Needs grpcio and optuna (for its generated client).
"""

import argparse
import json
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import grpc
from optuna.storages._grpc.auto_generated import api_pb2, api_pb2_grpc


def document(trials):
    generator = random.Random(1)
    float_ = {"name": "FloatDistribution", "attributes": {"step": None, "low": 0.0, "high": 1.0, "log": False}}
    choice = {"name": "CategoricalDistribution", "attributes": {"choices": ["a", "b", "c"]}}

    def trial(number):
        params = {f"x{i}": generator.random() for i in range(5)} | {f"c{i}": generator.choice("abc") for i in range(2)}
        return {
            "id": number + 1,
            "number": number,
            "state": "COMPLETE",
            "values": [generator.random()],
            "params": params,
            "distributions": {name: choice if name[0] == "c" else float_ for name in params},
            "intermediate_values": {},
            "user_attrs": {},
            "system_attrs": {},
            "datetime_start": "2026-01-01T00:00:00Z",
            "datetime_complete": "2026-01-01T00:00:01Z",
        }

    rows = [trial(number) for number in range(trials)]
    study = {"format": 1, "id": 1, "name": "long", "directions": ["MINIMIZE"], "user_attrs": {}, "system_attrs": {}}
    return {**study, "trials": rows}


class Server:
    def __init__(self, program, folder):
        self.ready = Path(folder) / "ready"
        self.ready.unlink(missing_ok=True)
        arguments = [program, "--data-dir", f"{folder}/data", "--listen", "127.0.0.1:0", "--ready-file", str(self.ready)]
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not self.ready.exists():
            assert self.process.poll() is None, "the server has ended"
            time.sleep(0.01)
        self.url = self.ready.read_text().strip()

    def resident_mib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self):
        self.process.terminate()
        self.process.wait()


def timed(call, rounds):
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", default="target/release/hpo-svc")
    parser.add_argument("--quintet", default="target/release/quintet")
    parser.add_argument("--trials", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path(arguments.server).resolve().parents[1]) as folder:
        file = Path(folder) / "long.json"
        file.write_text(json.dumps(document(arguments.trials)))
        server = Server(arguments.server, folder)
        start = time.perf_counter()
        subprocess.run([arguments.quintet, "hpo", "import", str(file), "--server", server.url], check=True)
        print(f"import of {arguments.trials} trials: {time.perf_counter() - start:.1f} s")
        server.stop()

        server = Server(arguments.server, folder)
        print(f"resident before: {server.resident_mib():.0f} MiB")
        options = [("grpc.max_receive_message_length", -1)]
        stub = api_pb2_grpc.StorageServiceStub(grpc.insecure_channel(server.url.split("://")[-1], options))
        study = stub.GetStudyIdFromName(api_pb2.GetStudyIdFromNameRequest(study_name="long")).study_id
        everything = api_pb2.GetTrialsRequest(study_id=study, included_trial_ids=[], trial_id_greater_than=-1)
        start = time.perf_counter()
        trials = stub.GetTrials(everything).trials
        print(f"first GetTrials: {time.perf_counter() - start:.2f} s, {len(trials)} trials")
        start = time.perf_counter()
        stub.GetTrials(everything)
        print(f"second GetTrials: {time.perf_counter() - start:.2f} s")
        last = trials[-1].trial_id
        print(f"resident after: {server.resident_mib():.0f} MiB")

        new = api_pb2.CreateNewTrialRequest(study_id=study, template_trial_is_none=True)
        fresh = [stub.CreateNewTrial(new).trial_id]
        since = api_pb2.GetTrialsRequest(study_id=study, included_trial_ids=fresh, trial_id_greater_than=last)
        print(f"GetTrials of what is new: {timed(lambda: stub.GetTrials(since), 50):.2f} ms")
        print(f"GetTrial: {timed(lambda: stub.GetTrial(api_pb2.GetTrialRequest(trial_id=last)), 50):.2f} ms")
        print(f"CreateNewTrial: {timed(lambda: stub.CreateNewTrial(new), 50):.2f} ms")
        report = api_pb2.SetTrialIntermediateValueRequest(trial_id=fresh[0], step=1, intermediate_value=0.5)
        print(f"SetTrialIntermediateValue: {timed(lambda: stub.SetTrialIntermediateValue(report), 50):.2f} ms")
        server.stop()


if __name__ == "__main__":
    main()

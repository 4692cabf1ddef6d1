"""Asks Optuna's dashboard about a study, in a file or through the storage proxy, and lets it change one.

    python tests/peers/optuna_dashboard_api.py FILE_OR_ADDRESS STUDY [--change]

Checks what its interface shows against the study itself and prints the number of trials; `--change` writes a note, an attribute of a
user, tells a trial, and renames the study. Needs optuna 5.0.0, optuna-dashboard, and grpcio for an address.
"""

import argparse
import io
import json
import math
from pathlib import Path

import optuna
import optuna_dashboard
from optuna.storages import GrpcStorageProxy, RDBStorage
from optuna.trial import TrialState


def open_storage(text):
    if Path(text).exists():
        return RDBStorage(f"sqlite:///{text}")
    host, port = text.rsplit(":", 1)
    proxy = GrpcStorageProxy(host=host, port=int(port))
    proxy.wait_server_ready(timeout=30)
    return proxy


class Dashboard:
    def __init__(self, storage):
        self.app = optuna_dashboard.wsgi(storage)

    def ask(self, method, path, body=None):
        """The status and the JSON of the answer."""
        data = b"" if body is None else json.dumps(body).encode()
        errors, told = io.StringIO(), []
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(data)),
            "wsgi.input": io.BytesIO(data),
            "wsgi.errors": errors,
            "wsgi.url_scheme": "http",
        }
        chunks = self.app(environ, lambda status, headers, *_: told.append(status))
        text = b"".join(chunks)
        assert told[0].startswith("20"), (method, path, told, text, errors.getvalue())
        return json.loads(text) if text else None


def shown(value):
    """A number as the dashboard writes it."""
    if math.isnan(value):
        return "nan"
    return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")


def check(dashboard, study):
    summaries = dashboard.ask("GET", "/api/studies")["study_summaries"]
    summary = next(one for one in summaries if one["study_name"] == study.study_name)
    assert summary["study_id"] == study._study_id
    detail = dashboard.ask("GET", f"/api/studies/{study._study_id}")
    assert detail["directions"] == [direction.name.lower() for direction in study.directions], detail["directions"]
    assert len(detail["trials"]) == len(study.trials)
    for seen, trial in zip(detail["trials"], study.trials):
        assert (seen["number"], seen["state"]) == (trial.number, trial.state.name.capitalize())
        params = {param["name"]: param["param_external_value"] for param in seen["params"]}
        assert params == {name: str(value) for name, value in trial.params.items()}
        assert seen.get("values") == (None if trial.values is None else [shown(v) for v in trial.values]), seen
        steps = {report["step"]: report["value"] for report in seen["intermediate_values"]}
        assert steps == {step: shown(value) for step, value in trial.intermediate_values.items()}
        attributes = {attribute["key"] for attribute in seen["user_attrs"]}
        assert attributes == set(trial.user_attrs)
    assert {best["number"] for best in detail["best_trials"]} == {best.number for best in study.best_trials}
    return detail


def change(dashboard, study):
    note = {"body": "# looked at", "version": 1}
    dashboard.ask("PUT", f"/api/studies/{study._study_id}/note", note)
    trial = study.ask()
    dashboard.ask("PUT", f"/api/studies/{study._study_id}/{trial._trial_id}/note", note)
    dashboard.ask("POST", f"/api/trials/{trial._trial_id}/user-attrs", {"user_attrs": {"hint": 3}})
    told = {"state": "Complete", "values": [0.125] * len(study.directions)}
    dashboard.ask("POST", f"/api/trials/{trial._trial_id}/tell", told)
    ended = study.trials[trial.number]
    assert (ended.state, ended.user_attrs["hint"]) == (TrialState.COMPLETE, 3)
    # A dashboard looks for new trials every ten seconds; another one looks now.
    assert check(Dashboard(study._storage), study)["note"]["body"] == note["body"]
    name = study.study_name + " renamed"
    before = study.trials
    dashboard.ask("POST", f"/api/studies/{study._study_id}/rename", {"study_name": name})
    renamed = optuna.load_study(study_name=name, storage=study._storage)

    def fields(trial):
        return repr({key: value for key, value in sorted(vars(trial).items()) if key not in ("_trial_id", "_params", "_distributions")})

    assert [fields(trial) for trial in renamed.trials] == [fields(trial) for trial in before]
    return renamed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("storage")
    parser.add_argument("study")
    parser.add_argument("--change", action="store_true")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_storage(arguments.storage)
    dashboard = Dashboard(storage)
    study = optuna.load_study(study_name=arguments.study, storage=storage)
    check(dashboard, study)
    if arguments.change:
        study = change(dashboard, study)
        check(Dashboard(storage), study)
    print(len(study.trials))


if __name__ == "__main__":
    main()

"""Drives a tracking server with the unmodified mlflow client: everything that a training script does, and reading it back.

Usage: mlflow_client.py TRACKING_URI JOB_RUN_ID
JOB_RUN_ID is an existing run of a job, with the published output `checkpoint/config.json` (`{}`) among its artifacts.
Ends with status 0 and prints `ok` when every expectation holds.
"""

import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# A refusal must not be repeated, nor a failure for minutes.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException


def refused(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except MlflowException as error:
        assert error.error_code == code, (error.error_code, str(error))
        return str(error)
    raise AssertionError(f"{call} was not refused")


def experiments(client):
    first = mlflow.set_experiment("peer")
    assert mlflow.set_experiment("peer").experiment_id == first.experiment_id
    other = client.create_experiment("other", tags={"team": "nlp"})
    assert client.get_experiment(other).tags["team"] == "nlp"
    refused("RESOURCE_ALREADY_EXISTS", client.create_experiment, "other")
    refused("RESOURCE_DOES_NOT_EXIST", client.get_experiment, "404")
    assert client.get_experiment_by_name("no such") is None
    client.set_experiment_tag(other, "stage", "x")
    client.rename_experiment(other, "renamed")
    names = lambda **kwargs: [e.name for e in client.search_experiments(**kwargs)]
    assert names(order_by=["name ASC"]) == ["Default", "peer", "renamed"], names(order_by=["name ASC"])
    assert names(filter_string="tags.stage = 'x' AND name LIKE 're%'") == ["renamed"]
    client.delete_experiment(other)
    assert "renamed" not in names() and "renamed" in names(view_type=ViewType.DELETED_ONLY)
    client.restore_experiment(other)
    page = client.search_experiments(max_results=2, order_by=["name ASC"])
    rest = client.search_experiments(max_results=2, order_by=["name ASC"], page_token=page.token)
    assert [e.name for e in page] == ["Default", "peer"] and [e.name for e in rest] == ["renamed"]
    return first.experiment_id


def logging(client, experiment_id):
    with mlflow.start_run(run_name="parent", tags={"mine": "1"}) as parent:
        run_id = parent.info.run_id
        mlflow.log_param("lr", 0.1)
        mlflow.log_param("lr", 0.1)
        mlflow.log_params({f"p{i}": i for i in range(100)})
        assert "0.1" in refused("INVALID_PARAMETER_VALUE", mlflow.log_param, "lr", 0.2)
        mlflow.log_metric("loss", 3.0)
        for step in range(1, 5):
            mlflow.log_metric("loss", 1.0 / step, step=step)
        mlflow.log_metric("odd", float("nan"), step=-1)
        mlflow.log_metric("odd", float("inf"), step=2)
        mlflow.log_metrics({"eval/f1": 0.5, "eval/größe": 0.25}, step=3)
        mlflow.log_metrics({"late": 1.0}, step=1, synchronous=False).wait()
        now = int(time.time() * 1000)
        client.log_batch(
            run_id,
            metrics=[Metric("batch", float(i), now + i, i) for i in range(900)],
            params=[Param("batch", "yes")],
            tags=[RunTag("batch", "yes")],
        )
        mlflow.set_tag("a.b", "c")
        mlflow.set_tags({"x": "1", "y": "2"})
        mlflow.delete_tag("y")
        refused("RESOURCE_DOES_NOT_EXIST", mlflow.delete_tag, "y")
        refused("INVALID_PARAMETER_VALUE", client.log_metric, run_id, "a*b", 1.0)
        with mlflow.start_run(run_name="child", nested=True) as child:
            mlflow.log_metric("loss", 9.0)
        assert client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == run_id

    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.info.end_time >= run.info.start_time
    assert run.info.run_name == "parent" and run.info.experiment_id == experiment_id
    assert len(run.data.params) == 102 and run.data.params["lr"] == "0.1" and run.data.params["p7"] == "7"
    assert run.data.metrics["loss"] == 0.25 and run.data.metrics["batch"] == 899.0
    assert run.data.metrics["eval/größe"] == 0.25 and run.data.metrics["late"] == 1.0
    assert run.data.tags["a.b"] == "c" and run.data.tags["x"] == "1" and "y" not in run.data.tags
    history = client.get_metric_history(run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(0, 3.0), (1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)], history
    odd = client.get_metric_history(run_id, "odd")
    assert math.isnan(odd[0].value) and odd[0].step == -1 and odd[1].value == sys.float_info.max
    assert [m.value for m in client.get_metric_history(run_id, "batch")] == [float(i) for i in range(900)]
    assert client.get_metric_history(run_id, "never") == []
    client.update_run(run_id, name="renamed parent")
    assert client.get_run(run_id).data.tags["mlflow.runName"] == "renamed parent"
    return run_id


def failing(client):
    try:
        with mlflow.start_run(run_name="failing") as run:
            raise ValueError("on purpose")
    except ValueError:
        pass
    assert client.get_run(run.info.run_id).info.status == "FAILED"


def searching(client, experiment_id, parent):
    runs = []
    for i in range(7):
        run = client.create_run(experiment_id, run_name=f"s{i}", tags={"series": "s"})
        client.log_metric(run.info.run_id, "score", i % 4 if i < 6 else math.nan)
        client.log_param(run.info.run_id, "kind", "even" if i % 2 == 0 else "odd")
        client.set_terminated(run.info.run_id, "KILLED" if i == 0 else "FINISHED")
        runs.append(run.info.run_id)

    def names(filter_string, **kwargs):
        return [r.info.run_name for r in client.search_runs([experiment_id], filter_string, **kwargs)]

    order = ["metrics.score DESC", "attributes.run_name ASC"]
    assert names("tags.series = 's'", order_by=order) == ["s3", "s2", "s1", "s5", "s0", "s4", "s6"]
    assert names("metrics.score >= 1 AND params.kind = 'odd'", order_by=["metrics.score"])[-1] == "s3"
    assert names("attributes.status = 'KILLED'") == ["s0"]
    assert names("params.kind LIKE 'ev%' AND tags.series = 's' AND metrics.score != 0", order_by=["run_name"]) == ["s2", "s6"]
    assert names(f"run_id IN ('{runs[1]}', '{runs[2]}')", order_by=["run_name"]) == ["s1", "s2"]
    assert names(f"tags.`mlflow.parentRunId` = '{parent}'") == ["child"]
    assert names("metrics.`eval/f1` = 0.5 AND params.p3 = '3'") == ["renamed parent"]
    refused("INVALID_PARAMETER_VALUE", client.search_runs, [experiment_id], "metrics.a > 1 OR metrics.b > 1")
    refused("INVALID_PARAMETER_VALUE", client.search_runs, [experiment_id], "", order_by=["metric.a", "metric.a"])
    refused("INVALID_PARAMETER_VALUE", client.search_runs, [experiment_id], "", page_token="garbage")
    found, token = [], None
    while True:
        page = client.search_runs([experiment_id], "tags.series = 's'", max_results=3, order_by=["run_name"], page_token=token)
        assert len(page) <= 3
        found += [r.info.run_name for r in page]
        token = page.token
        if not token:
            break
    assert found == [f"s{i}" for i in range(7)], found
    client.delete_run(runs[0])
    client.delete_run(runs[0])
    refused("INVALID_PARAMETER_VALUE", client.log_metric, runs[0], "score", 1.0)
    assert "s0" not in names("")
    assert names("", run_view_type=ViewType.DELETED_ONLY) == ["s0"]
    client.restore_run(runs[0])
    assert "s0" in names("")
    listed = mlflow.search_runs([experiment_id], "tags.series = 's'", output_format="list", order_by=["start_time DESC"])
    assert len(listed) == 7


def artifacts(client, run_id):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "tree/sub").mkdir(parents=True)
        (root / "tree/a.txt").write_text("a")
        (root / "tree/sub/größe 1+1%.txt").write_text("ü")
        (root / "tree/sub/manifest.json").write_text("{}")
        large = os.urandom(20 << 20)
        (root / "large.bin").write_bytes(large)
        with mlflow.start_run(run_id=run_id):
            mlflow.log_artifact(str(root / "large.bin"))
            mlflow.log_artifact(str(root / "tree/a.txt"), "copies/deep")
            mlflow.log_artifacts(str(root / "tree"), "tree")
            mlflow.log_text("text ü", "notes/text.txt")
            mlflow.log_dict({"a": [1]}, "notes/dict.json")
            assert mlflow.get_artifact_uri("notes") == f"mlflow-artifacts:/{client.get_run(run_id).info.experiment_id}/{run_id}/artifacts/notes"
        paths = lambda path=None: [(f.path, f.is_dir, f.file_size) for f in client.list_artifacts(run_id, path)]
        assert paths() == [("copies", True, None), ("large.bin", False, 20 << 20), ("notes", True, None), ("tree", True, None)], paths()
        assert paths("tree") == [("tree/a.txt", False, 1), ("tree/sub", True, None)]
        assert paths("tree/sub") == [("tree/sub/größe 1+1%.txt", False, 2), ("tree/sub/manifest.json", False, 2)], paths("tree/sub")
        assert paths("tree/a.txt") == [] and paths("never") == []
        target = root / "download"
        target.mkdir()
        local = Path(client.download_artifacts(run_id, "", str(target)))
        assert (local / "large.bin").read_bytes() == large
        assert (local / "tree/sub/größe 1+1%.txt").read_text() == "ü"
        assert (local / "tree/sub/manifest.json").read_text() == "{}"
        assert mlflow.artifacts.load_dict(f"runs:/{run_id}/notes/dict.json") == {"a": [1]}
        assert mlflow.artifacts.load_text(f"runs:/{run_id}/notes/text.txt") == "text ü"
        uri = f"mlflow-artifacts:/{client.get_run(run_id).info.experiment_id}/{run_id}/artifacts/copies"
        assert [f.path for f in mlflow.artifacts.list_artifacts(artifact_uri=uri)] == ["copies/deep"]


# A user's program as a command job runs it: told of server and run by its environment alone.
JOB = """
import mlflow
with mlflow.start_run():
    for step in range(3):
        mlflow.log_metric("f1", step / 10, step=step)
    mlflow.log_param("from", "client")
    mlflow.log_text("seen", "notes.txt")
"""


def job_run(client, run_id):
    environment = os.environ | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_RUN_ID": run_id}
    subprocess.run([sys.executable, "-c", JOB], env=environment, check=True)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.info.artifact_uri == f"mlflow-artifacts:/jobs/{run_id}"
    assert [(f.path, f.is_dir) for f in client.list_artifacts(run_id)] == [("checkpoint", True), ("notes.txt", False)]
    assert [f.path for f in client.list_artifacts(run_id, "checkpoint")] == ["checkpoint/config.json"]
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(run_id, "checkpoint", folder)
        assert Path(path, "config.json").read_text() == "{}"
    try:
        client.log_text(run_id, "other", "checkpoint/config.json")
    except Exception as error:
        assert "409" in str(error), error
    else:
        raise AssertionError("a published output was overwritten")


def logged_models(client, experiment_id, run_id):
    model = client.create_logged_model(experiment_id, name="tagger", source_run_id=run_id, tags={"a": "1"}, params={"lr": "0.1"})
    assert model.status == "PENDING" and model.model_id.startswith("m-")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "MLmodel").write_text("flavors: {}")
        client.log_model_artifacts(model.model_id, folder)
    client.finalize_logged_model(model.model_id, "READY")
    client.set_logged_model_tags(model.model_id, {"b": "2"})
    client.delete_logged_model_tag(model.model_id, "a")
    model = client.get_logged_model(model.model_id)
    assert model.status == "READY" and model.tags == {"b": "2"} and model.params == {"lr": "0.1"}
    assert [f.path for f in client.list_logged_model_artifacts(model.model_id)] == ["MLmodel"]
    found = client.search_logged_models([experiment_id], filter_string="name = 'tagger'", order_by=[{"field_name": "creation_time"}])
    assert [m.model_id for m in found] == [model.model_id]
    client.delete_logged_model(model.model_id)
    assert list(client.search_logged_models([experiment_id])) == []


def main():
    uri, job_run_id = sys.argv[1:]
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    experiment_id = experiments(client)
    parent = logging(client, experiment_id)
    failing(client)
    searching(client, experiment_id, parent)
    artifacts(client, parent)
    job_run(client, job_run_id)
    logged_models(client, experiment_id, parent)
    print("ok")


if __name__ == "__main__":
    main()

"""Checks what a run left with the libraries that its users have: the checkpoint in transformers, the models in onnx and ONNX Runtime.

QUINTET_RUN_JSON names the result document of `quintet run --json`; `cargo xtask test --peers` sets it. Prints one JSON object a check;
exits with 1 when a bar is missed.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy
import onnx
import onnxruntime
from safetensors.numpy import load_file

LARGEST_LOGIT_DIFFERENCE = 1e-4


def folder(document, kind, output):
    """The local folder of an output of the stage of a kind."""
    stage = next(stage for stage in document["stages"] if stage["kind"] == kind)
    return pathlib.Path(stage["outputs"][output]["path"])


def check_models(models, evaluation):
    """onnx.checker on each model, and the fp32 model's logits against the trainer's."""
    count = json.loads((evaluation / "rows.json").read_text())["logit_rows"]
    rows = load_file(evaluation / "rows.safetensors")
    good = True
    for path in sorted(models.glob("*.onnx")):
        onnx.checker.check_model(str(path), full_check=True)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        inputs = {name: rows[name][:count] for name in ("input_ids", "attention_mask", "token_type_ids")}
        (logits,) = session.run(["logits"], inputs)
        used = inputs["attention_mask"].astype(bool)
        difference = float(numpy.abs(logits - rows["logits"][:count])[used].max())
        fp32 = path.name == "model.onnx"
        good &= not fp32 or difference <= LARGEST_LOGIT_DIFFERENCE
        print(json.dumps({"model": path.name, "checked": True, "rows": count, "largest_logit_difference": difference}))
    return good


def main():
    document = json.loads(pathlib.Path(os.environ["QUINTET_RUN_JSON"]).read_text())
    checkpoint, evaluation = folder(document, "train", "checkpoint"), folder(document, "train", "evaluation")
    parity = pathlib.Path(__file__).with_name("checkpoint_parity.py")
    command = [sys.executable, str(parity), "--checkpoint", str(checkpoint), "--evaluation", str(evaluation)]
    trained = subprocess.run(command, check=False).returncode == 0
    models = check_models(folder(document, "convert", "model"), evaluation)
    sys.exit(0 if trained and models else 1)


if __name__ == "__main__":
    main()

"""Quality of a training beside the same recipe in PyTorch and `transformers` (train_reference.py), over several seeds.

    python tests/peers/quality.py --worker target/release/train-worker --python PYTHON --checkpoint MODEL --data FOLDER \\
        --out RESULTS [--seeds 42,43,44,45,46] [--epochs 3] [--only ours|reference]

PYTHON and FOLDER are those of train_reference.py. Each run's scores of the test split stay in RESULTS, where a later call finds them: a
comparison that was broken off is gone on with. Prints every seed, the means, and by how much ours is ahead.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "TOKENIZERS_PARALLELISM": "false"}


def data(folder):
    """The data of a specification, and the scores to compare."""
    if (folder / "train.conll").exists():
        files = {"train": "train.conll", "validation": "dev.conll", "test": "test.conll"}
        paths = {split: str(folder / name) for split, name in files.items()}
        return {"data": paths}, ["f1", "f1_strict"]
    with open(folder / "train.csv", encoding="utf-8") as file:
        text, label = file.readline().strip().split(",")[:2]
    paths = {split: str(folder / f"{split}.csv") for split in ("train", "test")}
    columns = {"text_column": text, "label_column": label, "validation_fraction": 0.1}
    return {"text_classification": {**paths, **columns}}, ["f1", "accuracy"]


def ours(args, seed, run):
    source, names = data(Path(args.data))
    hyperparameters = {
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "max_length": 128,
        "weight_decay": 0.01,
        "precision": args.precision,
        "seed": seed,
    }
    spec = run / "spec.json"
    spec.write_text(json.dumps({"checkpoint": args.checkpoint, **source, "hyperparameters": hyperparameters}))
    command = [args.worker, "local", "--spec", spec, "--out", run / "out", "--threads", str(args.threads), "--device", "cpu"]
    report = json.loads(subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.PIPE).stdout)
    return {name: report["evaluation"]["metrics"][name] for name in names}


def reference(args, seed, run):
    command = [args.python, HERE / "train_reference.py", "--checkpoint", args.checkpoint, "--data", args.data]
    command += ["--json", run / "report.json", "--seed", str(seed), "--epochs", str(args.epochs)]
    command += ["--batch-size", str(args.batch_size), "--learning-rate", str(args.learning_rate)]
    command += ["--threads", str(args.threads)]
    subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    test = json.loads((run / "report.json").read_text())["test"]
    return {name: test[name] for name in data(Path(args.data))[1]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", required=True, help="the program train-worker, built with --release")
    parser.add_argument("--python", default=sys.executable, help="Python with what train_reference.py needs")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True, help="folder of results")
    parser.add_argument("--seeds", default="42,43,44,45,46")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--precision", default="fp32", help="of ours; the reference is fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["ours", "reference"])
    args = parser.parse_args()

    found = {"ours": [], "reference": []}
    for seed in map(int, args.seeds.split(",")):
        for side, train in {"reference": reference, "ours": ours}.items():
            run = Path(args.out) / f"{side}-{seed}"
            scores = run / "scores.json"
            if not scores.exists() and args.only in (None, side):
                run.mkdir(parents=True, exist_ok=True)
                scores.write_text(json.dumps(train(args, seed, run)) + "\n")
            if scores.exists():
                found[side].append(json.loads(scores.read_text()))
                print(f"seed {seed}, {side}: {found[side][-1]}", flush=True)
    for name in data(Path(args.data))[1]:
        means = {side: statistics.mean(run[name] for run in runs) for side, runs in found.items() if runs}
        line = ", ".join(f"{side} {mean:.4f} (n {len(found[side])})" for side, mean in means.items())
        ahead = f", ours ahead by {100 * (means['ours'] - means['reference']):+.2f} points" if len(means) == 2 else ""
        print(f"{name}: mean {line}{ahead}")


if __name__ == "__main__":
    main()

"""Training rows a CPU second of `train-worker` beside the Trainer of `transformers`, on the same rows and weights.

    python tests/bench/train_speed/compare.py --worker target/release/train-worker --python PYTHON \
        --checkpoint MODEL --train train.conll [--test test.conll --epochs 3 --rows 100000]

PYTHON needs torch, transformers and accelerate, with `--test` seqeval too. All variants run one after the other in each round, the order turned by one from round to
round; medians and ratios are printed, with `--test` also the F1 of the last weights on that file. Both sides wait passively for their threads.
Reading the data, loading the weights and evaluation are not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "TOKENIZERS_PARALLELISM": "false"}


def run(command):
    """Runs a program; its output and its peak resident memory in MiB."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, env=ENVIRONMENT)
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{command[0]} failed:\n{errors.decode(errors='replace')[-3000:]}")
        output.seek(0)
        return output.read().decode(), usage.ru_maxrss / 1024


def first_rows(path, rows):
    sentences = [part for part in "\n".join(line.strip() for line in path.open(encoding="utf-8")).split("\n\n") if part.strip()]
    return [sentence.strip() + "\n\n" for sentence in sentences[:rows]]


def ours(args, precision, folder):
    hyperparameters = {
        "epochs": args.epochs,
        "batch_size": args.batch_size,
        "max_length": args.max_length,
        "learning_rate": 5e-5,
        "weight_decay": 0.01,
        "precision": precision,
        "load_best_model": False,
    }
    rows = first_rows(Path(args.train), args.rows)
    (folder / "train.conll").write_text("".join(rows), encoding="utf-8")
    # Evaluation is not counted, but it has to be there.
    (folder / "dev.conll").write_text("".join(rows[:16]), encoding="utf-8")
    data = {"train": str(folder / "train.conll"), "validation": str(folder / "dev.conll")}
    if args.test:
        data["test"] = args.test
    spec = {
        "checkpoint": args.checkpoint,
        "data": data,
        "hyperparameters": hyperparameters,
        "metrics_only": not args.test,
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [args.worker, "local", "--spec", folder / "spec.json", "--out", folder / "out"]
    command += ["--threads", str(args.threads), "--device", args.device]
    output, peak = run(command)
    report = json.loads(output)
    total = lambda key: sum(epoch[key] for epoch in report["epochs"])
    result = {"rows": len(rows) * args.epochs, "cpu_seconds": total("cpu_seconds"), "seconds": total("seconds"), "peak": peak}
    return {**result, "f1": report["metrics"]["test_f1"]} if args.test else result


def theirs(args, variant, folder):
    command = [args.python, HERE / "hf_trainer.py", "--checkpoint", args.checkpoint, "--train", args.train]
    command += ["--rows", str(args.rows), "--batch-size", str(args.batch_size), "--max-length", str(args.max_length)]
    command += ["--threads", str(args.threads), "--variant", variant, "--out", folder, "--device", args.device]
    command += ["--epochs", str(args.epochs), *(["--test", args.test] if args.test else [])]
    output, peak = run(command)
    return {**json.loads(output.strip().splitlines()[-1]), "peak": peak}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", required=True, help="the program train-worker, built with --release")
    parser.add_argument("--python", default=sys.executable, help="Python with torch, transformers and accelerate")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--train", required=True, help="CoNLL file: a word and its tag a line, separated by a tab")
    parser.add_argument("--test", help="CoNLL file that the trained models are scored on")
    parser.add_argument("--rows", type=int, default=640, help="of the file, from its first on")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--variants", default="ours fp32,ours bf16,hf plain,hf fp32,hf bf16")
    args = parser.parse_args()

    variants = [tuple(variant.split()) for variant in args.variants.split(",")]
    results = {variant: [] for variant in variants}
    for turn in range(args.rounds):
        for at in range(len(variants)):
            side, kind = variant = variants[(at + turn) % len(variants)]
            with tempfile.TemporaryDirectory() as folder:
                result = (ours if side == "ours" else theirs)(args, kind, Path(folder))
            results[variant].append(result)
            print(f"round {turn + 1}: {side} {kind}: {result['rows'] / result['cpu_seconds']:.1f} rows a CPU second", file=sys.stderr)

    rate = {v: statistics.median(r["rows"] / r["cpu_seconds"] for r in runs) for v, runs in results.items()}
    wall = {v: statistics.median(r["rows"] / r["seconds"] for r in runs) for v, runs in results.items()}
    print(f"{'':12}{'rows/CPU s':>12}{'rows/s':>10}{'peak MiB':>10}{'F1' if args.test else '':>10}")
    for variant in variants:
        peak = max(result["peak"] for result in results[variant])
        f1 = f"{statistics.median(r['f1'] for r in results[variant]):10.4f}" if args.test else ""
        print(f"{' '.join(variant):12}{rate[variant]:12.2f}{wall[variant]:10.2f}{peak:10.0f}{f1}")
    for kind, peer in [("fp32", "fp32"), ("bf16", "bf16"), ("fp32", "plain"), ("bf16", "plain"), ("bf16", "fp32")]:
        own, other = ("ours", kind), ("hf", peer)
        if own in rate and other in rate:
            print(f"ours {kind} / hf {peer}: {rate[own] / rate[other]:.2f} by CPU, {wall[own] / wall[other]:.2f} by wall clock")


if __name__ == "__main__":
    main()

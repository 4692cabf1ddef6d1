"""Memory of a training on a data set that is larger than memory: peak of `train-worker` for a large set and for a small one.

    python tests/bench/train_memory/large_set.py --worker target/release/train-worker --tokenizer MODEL --texts train.csv \
        --folder FOLDER [--gigabytes 5]

Needs torch and transformers, and three times the set's size in FOLDER. TEXTS holds texts in its first column and labels in its second; rows of
about 2 kB are made of them until the set has its size. The encoder is tiny and random, with the tokenizer of MODEL, so that reading,
encoding and keeping the rows is what is measured: everything of the process beyond what the small set needs is the set's.
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path


def tiny(tokenizer, folder):
    """Runs in a process of its own: a child's peak counts from that of the process that started it."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    BertModel(BertConfig(vocab_size=vocabulary, max_position_embeddings=64, **sizes)).save_pretrained(folder)
    shutil.copy(tokenizer / "tokenizer.json", folder)


def write(path, source, size, seed):
    """Rows of texts until the file has its size in bytes; the label is that of the first text."""
    draw = random.Random(seed)
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        count = 0
        # Telling the position writes what is buffered: not after every row.
        while count % 1000 or file.tell() < size:
            texts = draw.choices(source, k=35)
            rows.writerow([" ".join(text for text, _ in texts), texts[0][1]])
            count += 1
    return count


def train(args, folder, name):
    spec = {
        "checkpoint": str(folder / "tiny"),
        "text_classification": {
            "train": str(folder / f"{name}.csv"),
            "validation": str(folder / "validation.csv"),
            "text_column": "text",
            "label_column": "label",
        },
        "hyperparameters": {"epochs": 1, "batch_size": 256, "max_length": 32, "precision": "fp32"},
        "metrics_only": True,
    }
    (folder / f"{name}.json").write_text(json.dumps(spec))
    out = folder / f"{name}-out"
    shutil.rmtree(out, ignore_errors=True)
    command = [args.worker, "local", "--spec", folder / f"{name}.json", "--out", out, "--threads", str(args.threads), "--device", "cpu"]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"training on {name}.csv failed")
    return usage.ru_maxrss / 1024, time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", required=True, help="the program train-worker, built with --release")
    parser.add_argument("--tokenizer", required=True, type=Path, help="folder with tokenizer.json and config.json")
    parser.add_argument("--texts", required=True, help="CSV file of texts and labels")
    parser.add_argument("--folder", required=True, type=Path, help="where the sets are made")
    parser.add_argument("--gigabytes", type=float, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()

    args.folder.mkdir(parents=True, exist_ok=True)
    with open(args.texts, encoding="utf-8", newline="") as file:
        source = [tuple(row[:2]) for row in list(csv.reader(file))[1:]]
    made = multiprocessing.get_context("spawn").Process(target=tiny, args=(args.tokenizer, args.folder / "tiny"))
    made.start()
    made.join()
    if made.exitcode != 0:
        sys.exit("the encoder could not be made")
    # Every label is in both sets, however small.
    write(args.folder / "validation.csv", source, 2e6, 1)
    peaks = {}
    for name, size in [("small", 5e6), ("large", args.gigabytes * 1e9)]:
        rows = write(args.folder / f"{name}.csv", source, size, 2)
        peaks[name], seconds = train(args, args.folder, name)
        print(f"{name}: {size / 1e9:.3f} GB, {rows} rows, peak {peaks[name]:.0f} MiB, {seconds:.0f} s", flush=True)
    print(f"the large set needs {peaks['large'] - peaks['small']:.0f} MiB more")


if __name__ == "__main__":
    main()

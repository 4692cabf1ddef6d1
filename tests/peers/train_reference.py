"""The training recipe in PyTorch and transformers: what `train-worker` is compared with.

python3 -m venv VENV
VENV/bin/pip install torch==2.11.0 transformers==4.57.6 seqeval==1.2.2 scikit-learn==1.9.1
VENV/bin/python tests/peers/train_reference.py --checkpoint MODEL --data FOLDER --json RESULT.json

FOLDER holds train.conll, dev.conll and test.conll: a word and its IOB2 tag a line, separated by a tab. Or it holds train.csv and
test.csv, texts in their first column and labels in the second; then a tenth of the training rows is held out, by the seed.
`quality.py` runs it and `train-worker` with several seeds.
"""

import argparse
import csv
import json
import math
import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import conll
import torch
from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, f1_score as macro_f1_score
from sklearn.model_selection import train_test_split
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
    set_seed,
)
from transformers.trainer_pt_utils import get_length_grouped_indices


class Words:
    """Words with tags."""

    model = AutoModelForTokenClassification

    def __init__(self, folder, _seed):
        self.splits = {name: conll.read(f"{folder}/{name}.conll") for name in ("train", "dev", "test")}
        kinds = sorted({tag[2:] for _, tags in self.splits["train"] for tag in tags if tag != "O"})
        self.labels = ["O"] + [f"{prefix}-{kind}" for kind in kinds for prefix in "BI"]

    def encode(self, sentence, tokenizer, max_length):
        words, tags = sentence
        ids = {label: index for index, label in enumerate(self.labels)}
        row, labels, owners = conll.encode(words, tags, tokenizer, ids, max_length)
        return {"ids": row, "labels": labels, "owners": owners, "tags": tags}

    def targets(self, rows, length):
        return torch.tensor([row["labels"] + [-100] * (length - len(row["labels"])) for row in rows])

    def scores(self, rows, chosen):
        """Words the model does not see count as predicted `O`, as in the project."""
        predicted = [["O"] * len(row["tags"]) for row in rows]
        for tags, row, choice in zip(predicted, rows, chosen):
            for label, gold, owner in zip(choice, row["labels"], row["owners"]):
                if gold != -100:
                    tags[owner] = self.labels[label]
        gold = [row["tags"] for row in rows]
        report = classification_report(gold, predicted, output_dict=True)
        return {
            "f1": f1_score(gold, predicted),
            "precision": precision_score(gold, predicted),
            "recall": recall_score(gold, predicted),
            "f1_strict": f1_score(gold, predicted, mode="strict", scheme=IOB2),
            "report": {name: {key: float(value) for key, value in row.items()} for name, row in report.items()},
        }


class Texts:
    """One label a text."""

    model = AutoModelForSequenceClassification

    def __init__(self, folder, seed):
        train, test = self.read(f"{folder}/train.csv"), self.read(f"{folder}/test.csv")
        self.labels = sorted({label for _, label in train})
        train, dev = train_test_split(train, test_size=0.1, random_state=seed, stratify=[label for _, label in train])
        self.splits = {"train": train, "dev": dev, "test": test}

    @staticmethod
    def read(path):
        with open(path, encoding="utf-8", newline="") as file:
            return [tuple(row[:2]) for row in list(csv.reader(file))[1:]]

    def encode(self, row, tokenizer, max_length):
        text, label = row
        ids = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
        return {"ids": ids, "label": self.labels.index(label)}

    def targets(self, rows, _length):
        return torch.tensor([row["label"] for row in rows])

    def scores(self, rows, chosen):
        gold = [row["label"] for row in rows]
        return {"f1": macro_f1_score(gold, chosen, average="macro"), "accuracy": accuracy_score(gold, chosen)}


def collate(task, rows, pad):
    length = max(len(row["ids"]) for row in rows)
    fill = lambda values, value: values + [value] * (length - len(values))
    return {
        "input_ids": torch.tensor([fill(row["ids"], pad) for row in rows]),
        "attention_mask": torch.tensor([fill([1] * len(row["ids"]), 0) for row in rows]),
        "labels": task.targets(rows, length),
    }


def evaluate(task, model, rows, pad):
    model.eval()
    chosen = [None] * len(rows)
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]["ids"]))
    with torch.inference_mode():
        for start in range(0, len(order), 32):
            chunk = order[start : start + 32]
            batch = collate(task, [rows[row] for row in chunk], pad)
            for row, choice in zip(chunk, model(batch["input_ids"], batch["attention_mask"]).logits.argmax(-1).tolist()):
                chosen[row] = choice
    return task.scores(rows, chosen)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--json", required=True)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--group-by-length", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--load-best-model", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    set_seed(options.seed)

    words = os.path.exists(f"{options.data}/train.conll")
    task = (Words if words else Texts)(options.data, options.seed)
    labels = task.labels
    tokenizer = AutoTokenizer.from_pretrained(options.checkpoint)
    model = task.model.from_pretrained(
        options.checkpoint,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    rows = {
        name: [task.encode(row, tokenizer, options.max_length) for row in split] for name, split in task.splits.items()
    }
    pad = tokenizer.pad_token_id

    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    others = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    optimizer = torch.optim.AdamW(
        [{"params": others, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=options.learning_rate, fused=True,
    )
    train = rows["train"]
    steps = math.ceil(len(train) / options.batch_size) * options.epochs
    schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
    lengths = [len(row["ids"]) for row in train]

    result = {"epochs": [], "labels": labels}
    best = (-1.0, None)
    began, used = time.time(), time.process_time()
    for epoch in range(1, options.epochs + 1):
        model.train()
        if options.group_by_length:
            order = get_length_grouped_indices(lengths, options.batch_size)
        else:
            order = torch.randperm(len(train)).tolist()
        total = 0.0
        count = 0
        for start in range(0, len(order), options.batch_size):
            batch = collate(task, [train[row] for row in order[start : start + options.batch_size]], pad)
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.item()
            count += 1
        seconds, cpu = time.time() - began, time.process_time() - used
        scores = evaluate(task, model, rows["dev"], pad)
        scores.pop("report", None)
        result["epochs"].append({"epoch": epoch, "train_loss": total / count, "seconds": seconds, "cpu": cpu, **scores})
        print(result["epochs"][-1], flush=True)
        if scores["f1"] > best[0] or not options.load_best_model:
            best = (scores["f1"], {name: value.clone() for name, value in model.state_dict().items()})
    model.load_state_dict(best[1])
    result["test"] = evaluate(task, model, rows["test"], pad)
    report = result["test"].pop("report", None)
    if report is not None:
        result["report"] = report
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    print(result["test"])


if __name__ == "__main__":
    main()

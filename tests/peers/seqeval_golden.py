"""Writes crates/nlp/testdata/seqeval.json: tag sequences and what seqeval 1.2.2 makes of them.

python3 -m venv VENV && VENV/bin/pip install seqeval==1.2.2 && VENV/bin/python tests/peers/seqeval_golden.py
"""

import json
import pathlib
import random
import warnings

from seqeval.metrics import accuracy_score, classification_report
from seqeval.scheme import IOB2

TARGET = pathlib.Path(__file__).parents[2] / "crates/nlp/testdata/seqeval.json"
TAGS = ["O", "B-a", "I-a", "B-b", "I-b", "B-c-d", "I-c-d"]


def entry(scores):
    return {
        "precision": float(scores["precision"]),
        "recall": float(scores["recall"]),
        "f1-score": float(scores["f1-score"]),
        "support": int(scores["support"]),
    }


def report(gold, predicted, **mode):
    found = classification_report(gold, predicted, output_dict=True, **mode)
    averages = {name: entry(found.pop(f"{name} avg")) for name in ("micro", "macro", "weighted")}
    return {"rows": {name: entry(row) for name, row in sorted(found.items())}, **averages}


def noisy(rng, tags, rate):
    return [rng.choice(TAGS) if rng.random() < rate else tag for tag in tags]


def main():
    warnings.simplefilter("ignore")
    rng = random.Random(20)
    cases = []
    while len(cases) < 80:
        weight = rng.choice([1, 3, 8])
        gold = [
            rng.choices(TAGS, weights=[weight] + [1] * (len(TAGS) - 1), k=rng.randint(1, 12))
            for _ in range(rng.randint(1, 8))
        ]
        predicted = [noisy(rng, tags, rng.choice([0.0, 0.1, 0.4, 1.0])) for tags in gold]
        modes = {}
        try:
            modes["default"] = report(gold, predicted)
            modes["strict"] = report(gold, predicted, mode="strict", scheme=IOB2)
        except (ValueError, ZeroDivisionError):
            # No entity in either list: seqeval cannot make its report.
            continue
        if any(average["f1-score"] != average["f1-score"] for mode in modes.values() for average in
               (mode["micro"], mode["macro"], mode["weighted"])):
            continue  # NaN, for the same reason
        cases.append({"gold": gold, "predicted": predicted, "accuracy": accuracy_score(gold, predicted), **modes})
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps({"seqeval": "1.2.2", "cases": cases}, separators=(",", ":")) + "\n")
    print(f"{TARGET}: {len(cases)} cases")


if __name__ == "__main__":
    main()

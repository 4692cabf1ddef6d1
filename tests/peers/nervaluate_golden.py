"""Writes crates/nlp/testdata/nervaluate.json: tag sequences and what nervaluate 1.2.1 makes of them.

python3 -m venv VENV && VENV/bin/pip install nervaluate==1.2.1 && VENV/bin/python tests/peers/nervaluate_golden.py
"""

import json
import pathlib
import random

from nervaluate import Evaluator

TARGET = pathlib.Path(__file__).parents[2] / "crates/nlp/testdata/nervaluate.json"
TYPES = ["a", "b", "c-d"]
KEYS = ["correct", "incorrect", "partial", "missed", "spurious", "precision", "recall", "f1"]


def sentence(rng, longest):
    tags = []
    while len(tags) < longest:
        kind = rng.choice(["O"] * 2 + TYPES)
        if kind == "O":
            tags += ["O"] * rng.randint(1, 3)
        else:
            tags += [f"B-{kind}"] + [f"I-{kind}"] * rng.randint(0, 4)
    return tags[:longest]


def noisy(rng, tags, rate):
    """Moves borders, changes types and drops entities by changing single tags."""
    choices = ["O"] + [f"{prefix}-{kind}" for prefix in "BI" for kind in TYPES]
    return [rng.choice(choices) if rng.random() < rate else tag for tag in tags]


def row(result):
    return {key: getattr(result, key) for key in KEYS}


def main():
    rng = random.Random(9)
    cases = []
    for number in range(80):
        # Some entities of over 100 words: a hundredth of them must be covered to count as an overlap.
        longest = 12 if number % 8 else 240
        gold = [sentence(rng, rng.randint(1, longest)) for _ in range(rng.randint(1, 6))]
        if number % 16 == 8:
            gold.append(["B-a"] + ["I-a"] * 180)
        predicted = [noisy(rng, tags, rng.choice([0.0, 0.1, 0.3, 1.0])) for tags in gold]
        if number % 16 == 8:
            predicted[-1] = ["O", "B-a", "O", "B-b", "I-b"] + ["O"] * 176
        result = Evaluator(gold, predicted, tags=TYPES, loader="list").evaluate()
        cases.append({
            "gold": [" ".join(tags) for tags in gold],
            "predicted": [" ".join(tags) for tags in predicted],
            "overall": {name: row(value) for name, value in result["overall"].items()},
            "entities": {
                kind: {name: row(value) for name, value in schemas.items()}
                for kind, schemas in sorted(result["entities"].items())
            },
        })
    TARGET.write_text(json.dumps({"nervaluate": "1.2.1", "cases": cases}, separators=(",", ":")) + "\n")
    print(f"{TARGET}: {len(cases)} cases")


if __name__ == "__main__":
    main()

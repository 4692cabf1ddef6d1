"""Compares predictions.jsonl with what the pipeline of transformers gives for the same checkpoint and texts.

python3 -m venv VENV && VENV/bin/pip install torch==2.11.0 transformers==4.57.6
VENV/bin/python tests/peers/predict_parity.py CHECKPOINT TEXTS.jsonl PREDICTIONS.jsonl STRATEGY [--stride N --max-length N]

Prints the number of texts and entities compared, the largest difference of a score, and every text whose spans differ; fails if
there is one.
"""

import argparse
import json
import pathlib
import sys

import torch
from transformers import pipeline


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("texts", type=pathlib.Path)
    parser.add_argument("predictions", type=pathlib.Path)
    parser.add_argument("strategy")
    parser.add_argument("--stride", type=int)
    parser.add_argument("--max-length", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe = pipeline("token-classification", model=options.checkpoint, aggregation_strategy=options.strategy)
    pipe.tokenizer.model_max_length = options.max_length
    arguments = {} if options.stride is None else {"stride": options.stride}
    texts = [json.loads(line)["text"] for line in options.texts.read_text().splitlines()]
    ours = [json.loads(line)["entities"] for line in options.predictions.read_text().splitlines()]
    assert len(texts) == len(ours), (len(texts), len(ours))
    keys = ("entity_group", "entity", "index", "word", "start", "end")
    entities, largest, differing = 0, 0.0, 0
    for number, (text, found) in enumerate(zip(texts, ours)):
        expected = pipe(text, **arguments) if text.strip() else []
        same = [{key: entity.get(key) for key in keys} for entity in expected]
        if same != [{key: entity.get(key) for key in keys} for entity in found]:
            differing += 1
            print(f"row {number}: {found}\n  instead of {expected}")
            continue
        entities += len(found)
        scores = [abs(float(theirs["score"]) - mine["score"]) for theirs, mine in zip(expected, found)]
        largest = max([largest, *scores])
    print(f"{len(texts)} texts, {entities} entities, {differing} texts differ, largest difference of a score {largest:.2e}")
    sys.exit(differing > 0)


if __name__ == "__main__":
    main()

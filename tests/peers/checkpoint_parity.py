"""Loads a trained checkpoint with transformers and compares it with what the trainer left: logits of the first rows, and seqeval's
scores of the predictions. Prints one JSON object; exits with 1 when a bar is missed.

python3 -m venv VENV && VENV/bin/pip install torch==2.11.0 transformers==4.57.6 seqeval==1.2.2
VENV/bin/python tests/peers/checkpoint_parity.py --checkpoint OUT/checkpoint --evaluation OUT/evaluation [--report REPORT.json]
"""

import argparse
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2
from transformers import AutoModelForTokenClassification, AutoTokenizer, BertForTokenClassification

LARGEST_LOGIT_DIFFERENCE = 1e-4
LARGEST_SCORE_DIFFERENCE = 5e-7


def predicted_tags(model, rows, labels, gold):
    """The model's tags by word; `O` for words without a sub-token."""
    predicted = []
    with torch.inference_mode():
        for row, tags in enumerate(gold):
            length = int(rows["attention_mask"][row].sum())
            chosen = model(rows["input_ids"][row : row + 1, :length]).logits[0].argmax(-1).tolist()
            words = rows["word_index"][row].tolist()
            found = ["O"] * len(tags)
            for at in range(length):
                if words[at] >= 0 and words[at] != words[at - 1]:
                    found[words[at]] = labels[chosen[at]]
            predicted.append(found)
    return predicted


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--evaluation", type=pathlib.Path, required=True)
    parser.add_argument("--report", type=pathlib.Path)
    options = parser.parse_args()

    description = json.loads((options.evaluation / "rows.json").read_text())
    rows = load_file(options.evaluation / "rows.safetensors")
    model, loading = BertForTokenClassification.from_pretrained(options.checkpoint, output_loading_info=True)
    model.eval()
    AutoTokenizer.from_pretrained(options.checkpoint)
    labels = [model.config.id2label[index] for index in range(model.config.num_labels)]
    result = {
        "class": type(AutoModelForTokenClassification.from_pretrained(options.checkpoint)).__name__,
        "missing": loading["missing_keys"],
        "unexpected": loading["unexpected_keys"],
        "labels_equal": labels == description["labels"],
    }
    count = description["logit_rows"]
    with torch.inference_mode():
        logits = model(
            input_ids=rows["input_ids"][:count],
            attention_mask=rows["attention_mask"][:count],
            token_type_ids=rows["token_type_ids"][:count],
        ).logits
    used = rows["attention_mask"][:count].bool()
    result["logit_rows"] = count
    result["largest_logit_difference"] = float((logits - rows["logits"]).abs()[used].max())

    gold = description["gold_tags"]
    ours = description["predicted_tags"]
    theirs = predicted_tags(model, rows, labels, gold)
    result["f1"] = float(f1_score(gold, ours))
    result["f1_strict"] = float(f1_score(gold, ours, mode="strict", scheme=IOB2))
    result["f1_of_transformers"] = float(f1_score(gold, theirs))
    pairs = [(a, b) for left, right in zip(ours, theirs) for a, b in zip(left, right)]
    result["equal_tags"] = sum(a == b for a, b in pairs) / len(pairs)
    good = (
        not result["missing"]
        and not result["unexpected"]
        and result["labels_equal"]
        and result["largest_logit_difference"] <= LARGEST_LOGIT_DIFFERENCE
    )
    if options.report:
        evaluation = json.loads(options.report.read_text())["evaluation"]
        result["reported_f1"] = evaluation["default"]["micro"]["f1"]
        result["reported_f1_strict"] = evaluation["strict"]["micro"]["f1"]
        good &= abs(result["reported_f1"] - result["f1"]) <= LARGEST_SCORE_DIFFERENCE
        good &= abs(result["reported_f1_strict"] - result["f1_strict"]) <= LARGEST_SCORE_DIFFERENCE
    result["good"] = good
    print(json.dumps(result, indent=1))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

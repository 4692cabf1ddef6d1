"""Writes crates/nlp/testdata/metrics.json: predictions and what scikit-learn, SciPy and torchmetrics make of them.

python3 -m venv VENV && VENV/bin/pip install scikit-learn==1.9.1 scipy==1.17.1 torchmetrics==1.9.0 torch==2.11.0
VENV/bin/python tests/peers/metrics_golden.py
"""

import json
import pathlib
import warnings

import numpy as np
import sklearn
import torch
from scipy import stats
from sklearn import metrics
from torchmetrics.functional.classification import multiclass_calibration_error

TARGET = pathlib.Path(__file__).parents[2] / "crates/nlp/testdata/metrics.json"
TAGS = ["B-a", "B-b", "I-a", "I-b", "O"]


def averages(gold, predicted, labels=None):
    rows = {}
    for name in ("micro", "macro", "weighted"):
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            gold, predicted, labels=labels, average=name, zero_division=0
        )
        rows[name] = {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
    return rows


def by_class(gold, predicted, labels):
    values = metrics.precision_recall_fscore_support(gold, predicted, labels=labels, zero_division=0)
    keys = ("precision", "recall", "f1", "support")
    return [dict(zip(keys, (float(value) for value in row))) for row in zip(*values)]


def tokens(rng):
    size = int(rng.integers(5, 80))
    some = TAGS[: int(rng.integers(2, 6))] if rng.random() < 0.5 else TAGS
    gold = rng.choice(some, size)
    predicted = np.where(rng.random(size) < 0.6, gold, rng.choice(TAGS, size))
    gold, predicted = gold.tolist(), predicted.tolist()
    labels = sorted(set(gold) | set(predicted))
    inside = [label for label in labels if label != "O"]
    return {
        "gold": " ".join(gold),
        "predicted": " ".join(predicted),
        "labels": labels,
        "accuracy": metrics.accuracy_score(gold, predicted),
        "classes": by_class(gold, predicted, labels),
        "averages": averages(gold, predicted),
        "averages_without_outside": averages(gold, predicted, inside),
        "macro_f1_of_gold": metrics.f1_score(
            gold, predicted, labels=sorted(set(gold)), average="macro", zero_division=0
        ),
        "confusion": metrics.confusion_matrix(gold, predicted, labels=labels).tolist(),
    }


def softmax(logits):
    values = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (values / values.sum(axis=1, keepdims=True)).astype(np.float32)


def equal_counts(confidences, right, bins=15):
    """Calibration error over bins of equal counts."""
    order = np.argsort(confidences, kind="stable")
    count = len(order)
    error = 0.0
    for number in range(bins):
        part = order[number * count // bins : (number + 1) * count // bins]
        if len(part):
            error += len(part) / count * abs(confidences[part].mean() - right[part].mean())
    return error


def classes(rng):
    labels, size = int(rng.choice([2, 3, 7])), int(rng.integers(20, 90))
    gold = rng.integers(0, labels - (1 if labels == 7 else 0), size)
    # Coarse logits, so that probabilities are equal now and then.
    logits = np.round(rng.normal(size=(size, labels)) * 2 + 2 * np.eye(labels)[gold] * (rng.random((size, 1)) < 0.7)) / 2
    probabilities = softmax(logits)
    predicted = probabilities.argmax(axis=1)
    wide = probabilities.astype(np.float64)
    wide /= wide.sum(axis=1, keepdims=True)
    confidence, right = wide.max(axis=1), (predicted == gold).astype(float)
    found = sorted(set(gold.tolist()) | set(predicted.tolist()))
    everything = list(range(labels))
    case = {
        "labels": labels,
        "gold": gold.tolist(),
        "probabilities": [float(value) for value in probabilities.ravel()],
        "accuracy": metrics.accuracy_score(gold, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(gold, predicted),
        "matthews_correlation": metrics.matthews_corrcoef(gold, predicted),
        "found": found,
        "classes": by_class(gold, predicted, found),
        "averages": averages(gold, predicted),
        "top_k": {
            str(k): metrics.top_k_accuracy_score(gold, wide, k=k, labels=everything)
            for k in (3, 5) if k < labels
        },
        "nll": metrics.log_loss(gold, wide, labels=everything),
        "brier": metrics.brier_score_loss(gold, wide, labels=everything, scale_by_half=False)
        if labels > 2
        else float(np.mean(np.sum((wide - np.eye(2)[gold]) ** 2, axis=1))),
        "ece": float(
            multiclass_calibration_error(torch.tensor(wide), torch.tensor(gold), labels, n_bins=15, norm="l1")
        ),
        "mce": float(
            multiclass_calibration_error(torch.tensor(wide), torch.tensor(gold), labels, n_bins=15, norm="max")
        ),
    }
    if len(np.unique(confidence)) == size:
        case["adaptive_ece"] = equal_counts(confidence, right)
    if labels == 2:
        case["f1"] = metrics.f1_score(gold, predicted, zero_division=0)
    return case


def multi_label(rng):
    labels, size = int(rng.integers(2, 6)), int(rng.integers(10, 60))
    gold = (rng.random((size, labels)) < rng.choice([0.1, 0.4])).astype(int)
    if rng.random() < 0.3:
        gold[:, 0] = 0
    scores = np.round(np.clip(0.3 * gold + rng.random((size, labels)) * 0.7, 0, 1), 2).astype(np.float32)
    predicted = (scores.astype(np.float64) >= 0.5).astype(int)
    return {
        "labels": labels,
        "gold": gold.ravel().tolist(),
        "probabilities": [float(value) for value in scores.ravel()],
        "averages": averages(gold, predicted),
        "f1_samples": metrics.f1_score(gold, predicted, average="samples", zero_division=0),
        "subset_accuracy": metrics.accuracy_score(gold, predicted),
        "hamming_loss": metrics.hamming_loss(gold, predicted),
        "average_precision": [
            float(metrics.average_precision_score(gold[:, label], scores[:, label])) for label in range(labels)
        ],
        "average_precision_macro": metrics.average_precision_score(gold, scores, average="macro"),
        "average_precision_micro": metrics.average_precision_score(gold, scores, average="micro"),
    }


def numbers(rng):
    size = int(rng.integers(3, 60))
    gold = np.round(rng.normal(size=size) * 3 + rng.choice([0, 1000]), 1).astype(np.float32)
    predicted = np.round(gold + rng.normal(size=size) * rng.choice([0.1, 2, 10]), 1).astype(np.float32)
    wide, found = gold.astype(np.float64), predicted.astype(np.float64)
    return {
        "gold": wide.tolist(),
        "predicted": found.tolist(),
        "mse": metrics.mean_squared_error(wide, found),
        "rmse": metrics.root_mean_squared_error(wide, found),
        "mae": metrics.mean_absolute_error(wide, found),
        "r2": metrics.r2_score(wide, found),
        "pearson": float(stats.pearsonr(wide, found).statistic),
        "spearman": float(stats.spearmanr(wide, found).statistic),
    }


def main():
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(5)
    content = {"scikit-learn": sklearn.__version__}
    for name, make in (("tokens", tokens), ("classes", classes), ("multi_label", multi_label), ("numbers", numbers)):
        content[name] = [make(rng) for _ in range(24)]
    TARGET.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()

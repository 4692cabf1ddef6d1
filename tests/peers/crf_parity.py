"""Compares the tags of a training with `crf: true` with what transformers, or ONNX Runtime, and pytorch-crf make of its outputs.

python3 -m venv VENV && VENV/bin/pip install torch==2.11.0 transformers==4.57.6 pytorch-crf==0.7.2 onnxruntime==1.32.0
VENV/bin/python tests/peers/crf_parity.py CHECKPOINT EVALUATION [MODEL.onnx ...]

EVALUATION is the training's output of that name. Each row is decoded over its labelled sub-tokens; a model in ONNX brings the scores of
neighbours in its metadata. Prints the share of words with the trainer's tag, F1 of both by seqeval, and fails where a tag of the checkpoint or of
an fp32 model differs.
"""

import argparse
import json
import pathlib
import sys

import onnxruntime
import torch
from crf_head import IGNORED, load
from safetensors.torch import load_file
from seqeval.metrics import f1_score
from torchcrf import CRF


def by_checkpoint(folder):
    model = load(folder).eval()

    @torch.no_grad()
    def logits(**inputs):
        inputs = inputs if model.config.model_type not in ("distilbert", "modernbert", "mpnet") else {
            key: value for key, value in inputs.items() if key != "token_type_ids"}
        return model.classify(**inputs).logits

    return logits, model.crf


def by_onnx(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scores = json.loads(session.get_modelmeta().custom_metadata_map["quintet.crf"])
    crf = CRF(len(scores["start_transitions"]), batch_first=True)
    crf.load_state_dict({name: torch.tensor(values) for name, values in scores.items()})
    names = [entry.name for entry in session.get_inputs()]

    def logits(**inputs):
        (found,) = session.run(["logits"], {name: inputs[name].numpy() for name in names})
        return torch.from_numpy(found)

    return logits, crf


def decoded(logits, crf, rows, names, gold):
    """Tags of each row's words; `O` for those that the model does not see."""
    tags = []
    for row, words in enumerate(gold):
        length = int(rows["attention_mask"][row].sum())
        inputs = {key: rows[key][row : row + 1, :length] for key in ("input_ids", "attention_mask", "token_type_ids")}
        kept = rows["labels"][row, :length] != IGNORED
        found = ["O"] * len(words)
        if kept.any():
            best = crf.decode(logits(**inputs)[:, kept])[0]
            for word, label in zip(rows["word_index"][row, :length][kept].tolist(), best):
                found[word] = names[label]
        tags.append(found)
    return tags


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("evaluation", type=pathlib.Path)
    parser.add_argument("models", nargs="*", type=pathlib.Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = load_file(options.evaluation / "rows.safetensors")
    told = json.loads((options.evaluation / "rows.json").read_text())
    gold, trainer = told["gold_tags"], told["predicted_tags"]
    print(f"trainer: F1 {f1_score(gold, trainer):.6f} of {len(gold)} rows")
    failed = False
    for path in [options.checkpoint, *options.models]:
        logits, crf = by_checkpoint(path) if path.is_dir() else by_onnx(path)
        tags = decoded(logits, crf, rows, told["labels"], gold)
        pairs = [(one, two) for ours, theirs in zip(trainer, tags) for one, two in zip(ours, theirs)]
        equal = sum(one == two for one, two in pairs)
        failed |= equal < len(pairs) and "int8" not in path.name
        print(f"{path.name}: {equal} of {len(pairs)} tags are the trainer's, F1 {f1_score(gold, tags):.6f}")
    sys.exit(failed)


if __name__ == "__main__":
    main()

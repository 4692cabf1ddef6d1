"""One training run by the Trainer of `transformers`, for `compare.py`: prints CPU and wall seconds of `train()`, and the F1 on a
test file where one is given, as JSON.

Variants: `plain` is the Trainer's default (random order, fp32, padding to the longest row of a batch), `fp32` its best ordinary settings
(fused AdamW, grouping by length), `bf16` the same under bf16 autocast.
"""

import argparse
import json
import pathlib
import sys
import time

import torch
from torch.utils.data import Dataset
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "peers"))
import conll


class Rows(Dataset):
    def __init__(self, sentences, tokenizer, ids, max_length):
        self.rows, self.owners = [], []
        for words, tags in sentences:
            row, labels, owners = conll.encode(words, tags, tokenizer, ids, max_length)
            self.rows.append({"input_ids": row, "attention_mask": [1] * len(row), "labels": labels})
            self.owners.append(owners)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def f1(trainer, sentences, rows, names):
    """Entity F1 of seqeval; words that the model does not see count as predicted `O`."""
    from seqeval.metrics import f1_score

    # Else the rows are evaluated by length, and come back in that order.
    trainer.args.group_by_length = False
    chosen = trainer.predict(rows).predictions.argmax(-1)
    predicted = [["O"] * len(tags) for _, tags in sentences]
    for tags, row, owners, choice in zip(predicted, rows.rows, rows.owners, chosen):
        for label, gold, owner in zip(choice, row["labels"], owners):
            if gold != -100:
                tags[owner] = names[label]
    return f1_score([tags for _, tags in sentences], predicted)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--train", required=True, help="CoNLL file: a word and its tag a line, separated by a tab")
    parser.add_argument("--test", help="CoNLL file that the trained model is scored on")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--variant", choices=["plain", "fp32", "bf16"], required=True)
    parser.add_argument("--out", required=True, help="folder that the Trainer may write to")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    sentences = conll.read(args.train)[: args.rows]
    names = sorted({tag for _, tags in sentences for tag in tags})
    ids = {name: at for at, name in enumerate(names)}
    tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)
    model = AutoModelForTokenClassification.from_pretrained(args.checkpoint, num_labels=len(names))
    best = args.variant != "plain"
    training = TrainingArguments(
        output_dir=args.out,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.batch_size,
        num_train_epochs=args.epochs,
        learning_rate=5e-5,
        weight_decay=0.01,
        optim="adamw_torch_fused" if best else "adamw_torch",
        group_by_length=best,
        bf16=args.variant == "bf16",
        use_cpu=args.device == "cpu",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=42,
    )
    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=Rows(sentences, tokenizer, ids, args.max_length),
        data_collator=DataCollatorForTokenClassification(tokenizer),
    )
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    if args.device == "cuda":
        torch.cuda.synchronize()
    result = {
        "rows": len(sentences) * args.epochs,
        "cpu_seconds": time.process_time() - cpu,
        "seconds": time.perf_counter() - wall,
        "peak_device_bytes": torch.cuda.max_memory_allocated() if args.device == "cuda" else 0,
    }
    if args.test:
        test = conll.read(args.test)
        result["f1"] = f1(trainer, test, Rows(test, tokenizer, ids, args.max_length), names)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

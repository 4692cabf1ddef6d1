"""Writes crates/train-worker/testdata/bert: a tiny random checkpoint and what PyTorch and transformers compute with it:
logits, loss, mean and deviation of the loss under dropout, gradients of one step, and the weights after three steps of AdamW
with clipping.

python3 -m venv VENV && VENV/bin/pip install torch==2.11.0 transformers==4.57.6
VENV/bin/python tests/peers/encoder_golden.py
"""

import copy
import pathlib

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForTokenClassification

TARGET = pathlib.Path(__file__).parents[2] / "crates/train-worker/testdata/bert"
LABELS = ["O", "B-a", "I-a", "B-b", "I-b"]


# One kind of dropout at a time, so that a missing place or a wrong rate shows in the spread of the loss.
DROPOUT = {"hidden": 0.3, "attention": 0.4, "head": 0.3}
DRAWS = 4000


def kind_of(name):
    return "head" if name == "dropout" else "attention" if "attention.self" in name else "hidden"


def loss_under_dropout(model, inputs, kind):
    """Mean and standard deviation of the loss over many draws, dropout of one kind on."""
    model = copy.deepcopy(model).float().train()
    for name, module in model.named_modules():
        rate = DROPOUT[kind] if kind_of(name) == kind else 0.0
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
        if hasattr(module, "dropout_prob"):  # of SDPA attention
            module.dropout_prob = rate
    torch.manual_seed(1)
    with torch.no_grad():
        losses = torch.stack([model(**inputs).loss for _ in range(DRAWS)]).double()
    return torch.stack([losses.mean(), losses.std()])


def main():
    torch.set_num_threads(1)
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=24, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, initializer_range=0.3,
        id2label=dict(enumerate(LABELS)), label2id={label: index for index, label in enumerate(LABELS)},
    )
    model = BertForTokenClassification(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(TARGET)
    # In double precision, so that the golden values have no rounding of their own.
    model.double()

    lengths = [9, 4, 7]
    ids = torch.zeros(3, 9, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(1, 40, (length,))
        mask[row, :length] = 1
        labels[row, 1 : length - 1] = torch.randint(0, 5, (length - 2,))
    labels[0, 3] = -100

    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    others = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": others, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    golden = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    inputs = dict(golden)
    golden |= {f"loss_under_dropout.{kind}": loss_under_dropout(model, inputs, kind) for kind in DROPOUT}
    model.train()
    for step in range(3):
        output = model(input_ids=ids, attention_mask=mask, labels=labels)
        optimizer.zero_grad()
        output.loss.backward()
        if step == 0:
            golden["logits"] = output.logits.detach().clone()
            golden["loss"] = output.loss.detach().reshape(1).clone()
            golden |= {f"grad.{name}": parameter.grad.clone() for name, parameter in model.named_parameters()}
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    golden |= {f"after.{name}": parameter.detach().clone() for name, parameter in model.named_parameters()}
    golden = {name: value.float() if value.is_floating_point() else value for name, value in golden.items()}
    save_file(golden, TARGET / "golden.safetensors", metadata={"format": "pt"})
    print(TARGET, [(path.name, path.stat().st_size) for path in sorted(TARGET.iterdir())])


if __name__ == "__main__":
    main()

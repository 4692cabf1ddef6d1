"""A CRF over the words behind a token classifier of transformers, as pytorch-crf computes it; for the scripts beside this one."""

import types

import torch
from safetensors.torch import load_file
from torchcrf import CRF
from transformers import AutoModelForTokenClassification

NAMES = ("transitions", "start_transitions", "end_transitions")
IGNORED = -100


def chains(values, labels):
    """Rows of what belongs to the labelled positions alone, padded at the end, and where a row has something."""
    kept = labels != IGNORED
    counts = kept.sum(1)
    rows = values.new_zeros(len(values), int(counts.max()), *values.shape[2:])
    mask = torch.arange(rows.shape[1]) < counts[:, None]
    rows[mask] = values[kept]
    filled = counts > 0
    return rows[filled], mask[filled]


def forward(self, labels=None, **inputs):
    """The classifier's logits, and the mean of the negative log-likelihood over labelled positions."""
    output = self.classify(**inputs)
    if labels is not None:
        emissions, mask = chains(output.logits, labels)
        tags, _ = chains(labels, labels)
        output.loss = -self.crf(emissions, tags, mask=mask, reduction="token_mean")
    return output


def with_crf(model):
    """The model with scores drawn as pytorch-crf draws them."""
    model.config.crf = True
    model.crf = CRF(model.config.num_labels, batch_first=True)
    model.classify = model.forward
    model.forward = types.MethodType(forward, model)
    return model


def load(folder, **options):
    """A saved classifier with its CRF; transformers passes over the tensors that it does not know."""
    model = with_crf(AutoModelForTokenClassification.from_pretrained(folder, **options))
    tensors = load_file(folder / "model.safetensors")
    model.crf.load_state_dict({name: tensors[f"crf.{name}"] for name in NAMES})
    return model

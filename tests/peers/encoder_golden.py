"""Writes crates/train-worker/testdata: tiny random checkpoints of every family and what PyTorch and transformers compute with them:
logits, loss, gradients of one step, the weights after three steps of AdamW with clipping, and of some the mean and the deviation of
the loss under dropout.

python3 -m venv VENV && VENV/bin/pip install torch==2.11.0 transformers==4.57.6 pytorch-crf==0.7.2
VENV/bin/python tests/peers/encoder_golden.py
"""

import copy
import shutil

import torch
import transformers
from safetensors.torch import save_file
from transformers_parity import CONFIGURATIONS, ROOT, auto_class, configuration, perturbed, reference, rows

TARGET = ROOT / "crates/train-worker/testdata"
TINY = dict(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
            max_position_embeddings=24, initializer_range=0.3)
DROPOUT = dict(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)
DISTIL = dict(vocab_size=40, dim=16, n_layers=2, n_heads=4, hidden_dim=24, max_position_embeddings=24, initializer_range=0.3)
DEBERTA = TINY | DROPOUT | dict(relative_attention=True, position_biased_input=False, position_buckets=4)
MODERN = TINY | dict(num_hidden_layers=3, global_attn_every_n_layers=2, local_attention=6, pad_token_id=0)

# Folder: family, settings, head, and whether the loss under dropout is written.
FIXTURES = {
    "bert": ("Bert", TINY, "token", False),
    "bert-relative": ("Bert", TINY | dict(position_embedding_type="relative_key_query"), "single", False),
    "roberta": ("Roberta", TINY | DROPOUT | dict(type_vocab_size=1, classifier_dropout=0.4), "regression", True),
    "xlm-roberta": ("XLMRoberta", TINY | dict(position_embedding_type="relative_key", pad_token_id=3), "token", False),
    "distilbert": ("DistilBert", DISTIL | dict(dropout=0.3, attention_dropout=0.2), "multi", True),
    "electra": ("Electra", TINY | DROPOUT | dict(embedding_size=12), "single", True),
    "mpnet": ("MPNet", TINY | DROPOUT, "token", True),
    "deberta": ("DebertaV2", DEBERTA | dict(pos_att_type="p2c|c2p", share_att_key=True, norm_rel_ebd="layer_norm"), "token", True),
    "deberta-conv": ("DebertaV2", DEBERTA | dict(pos_att_type=["c2p", "p2c"], conv_kernel_size=3, type_vocab_size=2,
                                                 pooler_dropout=0.1, cls_dropout=0.2), "single", True),
    "modernbert": ("ModernBert", MODERN | dict(attention_dropout=0.2, mlp_dropout=0.2, embedding_dropout=0.1,
                                               classifier_dropout=0.3), "token", True),
    "modernbert-mean": ("ModernBert", MODERN | dict(classifier_pooling="mean", norm_bias=True, attention_bias=True,
                                                    mlp_bias=True, classifier_bias=True), "regression", False),
}

# Of BERT one kind of dropout at a time, so that a missing place or a wrong rate shows in the spread of the loss.
KINDS = {"hidden": 0.3, "attention": 0.4, "head": 0.3}
DRAWS = 4000


def kind_of(name):
    return "head" if name == "dropout" else "attention" if "attention.self" in name else "hidden"


def one_kind(model, kind):
    """The model with dropout of one kind on."""
    model = copy.deepcopy(model)
    for name, module in model.named_modules():
        rate = KINDS[kind] if kind_of(name) == kind else 0.0
        if isinstance(module, torch.nn.Dropout):
            module.p = rate
        if hasattr(module, "dropout_prob"):  # of SDPA attention
            module.dropout_prob = rate
    return model


def loss_under_dropout(model, inputs):
    """Mean and standard deviation of the loss over many draws."""
    model.train()
    torch.manual_seed(1)
    with torch.no_grad():
        losses = torch.stack([model(**inputs).loss for _ in range(DRAWS)]).double()
    return torch.stack([losses.mean(), losses.std()]).float()


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for index, (name, (family, settings, head, dropout)) in enumerate(FIXTURES.items()):
        CONFIGURATIONS[name] = (family, settings)
        torch.manual_seed(5 + index)
        config, kind = configuration(name, head)
        model = perturbed(auto_class(kind).from_config(config))
        folder = TARGET / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        inputs, labels = rows(config, head, "right", torch.Generator().manual_seed(index))
        inputs = {key: value[:3, :14].contiguous() for key, value in inputs.items()}
        labels = labels[:3, :14].contiguous() if head == "token" else labels[:3].contiguous()
        golden = inputs | {"labels": labels}
        if dropout:
            golden["loss_under_dropout"] = loss_under_dropout(copy.deepcopy(model), golden)
        if name == "bert":
            for part in KINDS:
                golden[f"loss_under_dropout.{part}"] = loss_under_dropout(one_kind(model, part), inputs | {"labels": labels})
        found, _ = reference(model, inputs, labels)
        golden |= {key: value.float().contiguous() for key, value in found.items()}
        save_file(golden, folder / "golden.safetensors", metadata={"format": "pt"})
        print(name, [(path.name, path.stat().st_size) for path in sorted(folder.iterdir())])


if __name__ == "__main__":
    main()

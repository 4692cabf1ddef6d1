"""Compares encoders and heads with transformers, a CRF with pytorch-crf: logits, gradients of one step, weights after three steps of AdamW, and the checkpoint
that is written back.

    python3 -m venv VENV && VENV/bin/pip install torch==2.11.0 transformers==4.57.6 pytorch-crf==0.7.2
    VENV/bin/python tests/peers/transformers_parity.py [--worker train-worker] [--only NAME ...] [--seed N] [--drawn N]
    VENV/bin/python tests/peers/transformers_parity.py --checkpoint FOLDER ...

Without folders it makes random models of every family, in many configurations, with every head, on padded and unpadded rows; --drawn
adds so many configurations that are drawn at random. With folders (saved by transformers, with a head) it takes those models, on rows
that it draws. Prints a line for each comparison and exits with 1 when a bar is missed. What transformers computes is computed in
double precision, so that it has no rounding of its own. What is further off than its bar is taken where transformers itself, in single
precision, is more than a third as far off.
"""

import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from random import Random

import crf_head
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification
from transformers.trainer_pt_utils import get_parameter_names

ROOT = pathlib.Path(__file__).parents[2]
LOGITS = 1e-5  # absolute
LOSS = 1e-5  # absolute
GRADIENTS = 1e-5  # of the tensor's largest
WEIGHTS = 1e-5  # absolute, after the steps
ROUNDING, DRAWS = 2.0**-24, 6  # of single precision; see own_rounding
ZERO = 1e-13  # a tensor whose gradient is smaller than this in double precision has none
STEPS, LEARNING_RATE, WEIGHT_DECAY, MAX_NORM = 3, 1e-3, 0.1, 0.5
NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]

# Heads: the class, problem_type and number of labels.
HEADS = {
    "token": ("token", None, 5),
    "crf": ("token", None, 5),
    "single": ("sequence", "single_label_classification", 4),
    "multi": ("sequence", "multi_label_classification", 3),
    "regression": ("sequence", "regression", 1),
    "regressions": ("sequence", "regression", 3),
}

SIZE = dict(vocab_size=60, hidden_size=24, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40,
            max_position_embeddings=40, initializer_range=0.2)
WIDE = SIZE | dict(hidden_size=48, num_attention_heads=6, intermediate_size=33, num_hidden_layers=2)
ONE_HEAD = SIZE | dict(num_attention_heads=1, num_hidden_layers=1)
DISTIL = dict(vocab_size=60, dim=24, n_layers=3, n_heads=4, hidden_dim=40, max_position_embeddings=40, initializer_range=0.2)
V3 = SIZE | dict(relative_attention=True, position_biased_input=False, pos_att_type=["p2c", "c2p"], share_att_key=True,
                 norm_rel_ebd="layer_norm", position_buckets=8, max_relative_positions=-1)
MODERN = SIZE | dict(pad_token_id=0, global_attn_every_n_layers=2, local_attention=8, num_hidden_layers=4)

# Names, the configuration class and what is set in it.
CONFIGURATIONS = {
    "bert": ("Bert", SIZE),
    "bert-wide": ("Bert", WIDE | dict(hidden_act="gelu_new", type_vocab_size=3, layer_norm_eps=1e-6)),
    "bert-relu-one-head": ("Bert", ONE_HEAD | dict(hidden_act="relu", type_vocab_size=1, pad_token_id=7)),
    "bert-silu": ("Bert", SIZE | dict(hidden_act="silu", classifier_dropout=0.3)),
    "bert-no-pad": ("Bert", SIZE | dict(hidden_act="laplace", pad_token_id=None)),
    "bert-relative-key": ("Bert", SIZE | dict(position_embedding_type="relative_key")),
    "bert-relative-key-query": ("Bert", WIDE | dict(position_embedding_type="relative_key_query")),
    "roberta": ("Roberta", SIZE),
    "roberta-pad": ("Roberta", WIDE | dict(pad_token_id=5, type_vocab_size=1, layer_norm_eps=1e-5)),
    "roberta-relative": ("Roberta", SIZE | dict(position_embedding_type="relative_key", hidden_act="gelu_fast")),
    "xlm-roberta": ("XLMRoberta", SIZE | dict(type_vocab_size=1)),
    "xlm-roberta-relative": ("XLMRoberta", WIDE | dict(position_embedding_type="relative_key_query")),
    "distilbert": ("DistilBert", DISTIL),
    "distilbert-sinusoidal": ("DistilBert", DISTIL | dict(sinusoidal_pos_embds=True, activation="relu", n_heads=2)),
    "distilbert-one-layer": ("DistilBert", DISTIL | dict(n_layers=1, dim=32, hidden_dim=64, pad_token_id=3)),
    "electra": ("Electra", SIZE | dict(embedding_size=12)),
    "electra-same": ("Electra", WIDE | dict(embedding_size=48, hidden_act="gelu_new")),
    "electra-wider": ("Electra", SIZE | dict(embedding_size=40, position_embedding_type="relative_key_query")),
    "mpnet": ("MPNet", SIZE),
    "mpnet-wide": ("MPNet", WIDE | dict(hidden_act="relu", relative_attention_num_buckets=40, layer_norm_eps=1e-5)),
    "mpnet-pad": ("MPNet", ONE_HEAD | dict(pad_token_id=4)),
    "deberta-v3": ("DebertaV2", V3),
    "deberta-v3-own": ("DebertaV2", V3 | dict(share_att_key=False, norm_rel_ebd="none")),
    "deberta-c2p": ("DebertaV2", V3 | dict(pos_att_type="c2p", position_buckets=-1)),
    "deberta-p2c": ("DebertaV2", V3 | dict(pos_att_type=["p2c"], max_relative_positions=16)),
    "deberta-p2c-own": ("DebertaV2", V3 | dict(pos_att_type="p2c", share_att_key=False, position_buckets=4)),
    "deberta-c2p-own": ("DebertaV2", V3 | dict(pos_att_type=["c2p"], share_att_key=False, position_buckets=256)),
    "deberta-no-terms": ("DebertaV2", V3 | dict(pos_att_type=[])),
    "deberta-absolute": ("DebertaV2", WIDE | dict(position_biased_input=True, type_vocab_size=2)),
    "deberta-both": ("DebertaV2", V3 | dict(position_biased_input=True, type_vocab_size=2, embedding_size=12)),
    "deberta-conv": ("DebertaV2", V3 | dict(conv_kernel_size=3, conv_act="gelu", pos_att_type="c2p|p2c")),
    "deberta-conv-groups": ("DebertaV2", V3 | dict(conv_kernel_size=5, conv_groups=4, share_att_key=False)),
    "deberta-cut": ("DebertaV2", V3 | dict(position_buckets=-1, max_relative_positions=5)),
    "deberta-turning": ("DebertaV2", V3 | dict(position_buckets=16, max_relative_positions=6)),
    "deberta-pooler": ("DebertaV2", V3 | dict(pooler_hidden_act="tanh", cls_dropout=0.2, pooler_dropout=0.1)),
    "modernbert": ("ModernBert", MODERN),
    "modernbert-mean": ("ModernBert", MODERN | dict(classifier_pooling="mean", local_attention=4, pad_token_id=2)),
    "modernbert-biases": ("ModernBert", MODERN | dict(attention_bias=True, mlp_bias=True, norm_bias=True,
                                                      classifier_bias=True, classifier_activation="relu")),
    "modernbert-no-pad": ("ModernBert", MODERN | dict(pad_token_id=None, hidden_activation="gelu_10",
                                                      classifier_activation="leaky_relu")),
    "modernbert-thetas": ("ModernBert", WIDE | dict(pad_token_id=1, global_rope_theta=1000.0, local_rope_theta=None,
                                                    global_attn_every_n_layers=1, hidden_activation="silu")),
    "modernbert-local": ("ModernBert", MODERN | dict(global_attn_every_n_layers=3, local_attention=3,
                                                     local_rope_theta=100.0, num_hidden_layers=5)),
}

# Those that get a CRF too: one of each family.
CHAINED = {"bert", "roberta", "xlm-roberta", "distilbert", "electra", "mpnet", "deberta-v3", "modernbert"}

ACTIVATIONS = ["gelu", "gelu_new", "relu", "silu", "gelu_fast", "quick_gelu", "tanh", "mish", "gelu_python", "sigmoid", "relu2",
               "relu6", "leaky_relu", "gelu_10", "laplace", "linear"]
FAMILIES = ["Bert", "Roberta", "XLMRoberta", "DistilBert", "Electra", "MPNet", "DebertaV2", "ModernBert"]


def drawn(index, seed):
    """A family and settings at random."""
    random = Random(f"{seed} {index}")
    family = FAMILIES[index % len(FAMILIES)]
    heads = random.choice([1, 2, 3, 4])
    hidden = heads * random.choice([4, 6, 8, 10])
    layers, inner, positions = random.randint(1, 4), random.randint(8, 60), random.randint(12, 50)
    common = dict(vocab_size=random.randint(20, 90), initializer_range=random.choice([0.05, 0.1, 0.2]),
                  max_position_embeddings=positions, pad_token_id=random.choice([0, 1, 2, 5, None]))
    if family in ("Roberta", "XLMRoberta", "MPNet"):
        # Positions count from the padding token.
        common["pad_token_id"] = common["pad_token_id"] or 0
    activation = random.choice(ACTIVATIONS)
    flag = lambda: random.random() < 0.5
    if family == "DistilBert":
        return family, common | dict(dim=hidden, n_heads=heads, n_layers=layers, hidden_dim=inner, activation=activation,
                                     sinusoidal_pos_embds=hidden % 2 == 0 and random.random() < 0.2)
    common |= dict(hidden_size=hidden, num_attention_heads=heads, num_hidden_layers=layers, intermediate_size=inner)
    if family == "ModernBert":
        return family, common | dict(
            hidden_activation=activation, norm_bias=flag(), attention_bias=flag(), mlp_bias=flag(), classifier_bias=flag(),
            classifier_pooling=random.choice(["cls", "mean"]), classifier_activation=random.choice(ACTIVATIONS),
            global_attn_every_n_layers=random.randint(1, 4), local_attention=random.randint(1, 16),
            global_rope_theta=random.choice([160000.0, 10000.0, 100.0]), norm_eps=random.choice([1e-5, 1e-12]),
            local_rope_theta=random.choice([10000.0, 500.0, None]))
    common |= dict(hidden_act=activation, layer_norm_eps=random.choice([1e-12, 1e-7, 1e-5]))
    if family == "MPNet":
        return family, common | dict(relative_attention_num_buckets=random.choice([32, 33, 64]))
    if family == "DebertaV2":
        terms = random.choice([[], ["c2p"], ["p2c"], ["c2p", "p2c"], "p2c|c2p", "c2p"])
        settings = common | dict(
            relative_attention=random.random() < 0.85, position_biased_input=flag(), pos_att_type=terms, share_att_key=flag(),
            norm_rel_ebd=random.choice(["none", "layer_norm"]), type_vocab_size=random.choice([0, 0, 2]),
            position_buckets=random.choice([-1, 4, 5, 8, 16, 256]), max_relative_positions=random.choice([-1, 6, 30, 512]),
            pooler_hidden_act=random.choice(ACTIVATIONS))
        if flag():
            settings |= dict(conv_kernel_size=random.choice([1, 3, 5]), conv_act=random.choice(ACTIVATIONS),
                             conv_groups=random.choice([1, heads]))
        if flag():
            settings["embedding_size"] = random.randint(4, 30)
        return family, settings
    common |= dict(type_vocab_size=random.choice([1, 2, 3]),
                   position_embedding_type=random.choice(["absolute", "absolute", "relative_key", "relative_key_query"]))
    if family == "Electra":
        common["embedding_size"] = random.choice([hidden, random.randint(4, 40)])
    return family, common


def perturbed(model):
    """Fresh biases and norms are zeros and ones, which would hide a mistake."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def configuration(name, head):
    """The configuration of that name with that head."""
    family, settings = CONFIGURATIONS[name]
    kind, problem, labels = HEADS[head]
    names = {index: f"label {index}" for index in range(labels)}
    config = getattr(transformers, f"{family}Config")(
        **settings, id2label=names, label2id={label: index for index, label in names.items()}, problem_type=problem
    )
    return config, kind


def auto_class(kind):
    return AutoModelForTokenClassification if kind == "token" else AutoModelForSequenceClassification


def opened(checkpoint, kind, **options):
    """A saved model, with its CRF where it has one."""
    if getattr(AutoConfig.from_pretrained(checkpoint), "crf", False):
        return crf_head.load(checkpoint, **options)
    return auto_class(kind).from_pretrained(checkpoint, **options)


def longest(config):
    """The longest input; families that count positions from the padding token have fewer than rows."""
    if config.model_type in ("roberta", "xlm-roberta"):
        return config.max_position_embeddings - config.pad_token_id - 1
    return config.max_position_embeddings - (2 if config.model_type == "mpnet" else 0)


def rows(config, head, padding, generator):
    """Inputs and labels: `none`, `right` or `left` padding, or `token`, unpadded with the padding token among the words."""
    draw = lambda low, high, size: torch.randint(low, high, size, generator=generator)
    count, length = 4, min(23, longest(config))
    pad = 1 if config.model_type == "mpnet" else (config.pad_token_id or 0)
    ids = draw(0, config.vocab_size, (count, length))
    ids[ids == pad] = (pad + 1) % config.vocab_size
    mask = torch.ones_like(ids)
    types = torch.zeros_like(ids)
    kinds = getattr(config, "type_vocab_size", 0) or 0
    if kinds > 1:
        types[:, length // 2 :] = 1
        types[0] = draw(0, kinds, (length,))
        types[1] = 0
    if padding in ("right", "left"):
        for row, used in enumerate([length, length // 2, 3, length - 2]):
            empty = slice(used, length) if padding == "right" else slice(0, length - used)
            ids[row, empty], mask[row, empty], types[row, empty] = pad, 0, 0
    if padding == "token":
        ids[:, 2] = pad
    inputs = {"input_ids": ids, "attention_mask": mask}
    if kinds > 0:
        inputs["token_type_ids"] = types
    labels = config.num_labels
    if head in ("token", "crf"):
        wanted = draw(0, labels, (count, length))
        wanted[(mask == 0) | (torch.rand(wanted.shape, generator=generator) < 0.3)] = -100
    elif head == "single":
        wanted = draw(0, labels, (count,))
    elif head == "multi":
        wanted = draw(0, 2, (count, labels)).float()
    else:
        wanted = torch.randn((count,) if labels == 1 else (count, labels), generator=generator)
    return inputs, wanted


def decaying(model):
    """As transformers.Trainer groups the parameters."""
    return get_parameter_names(model, [torch.nn.LayerNorm], NO_DECAY)


def reference(model, inputs, labels, precision=torch.float64):
    """What transformers and PyTorch compute, without dropout."""
    model = model.to(precision).eval()
    labels = labels.to(precision) if labels.is_floating_point() else labels
    decays = set(decaying(model))
    groups = [
        {"params": [p for name, p in model.named_parameters() if name in decays], "weight_decay": WEIGHT_DECAY},
        {"params": [p for name, p in model.named_parameters() if name not in decays], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    found = {}
    for step in range(STEPS):
        output = model(**inputs, labels=labels)
        optimizer.zero_grad()
        output.loss.backward()
        if step == 0:
            found["logits"] = output.logits.detach().clone()
            found["loss"] = output.loss.detach().reshape(1).clone()
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    found[f"grad.{name}"] = parameter.grad.clone()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                share = parameter.grad.abs() / parameter.grad.abs().max()
                found[f"least.{name}"] = torch.minimum(share, found.get(f"least.{name}", share))
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
    found |= {f"after.{name}": parameter.detach().clone() for name, parameter in model.named_parameters()}
    return found, decays


def own_rounding(checkpoint, kind, inputs, labels, theirs):
    """How far everything that transformers computes in single precision is from what it does in double precision: at most over its kernels
    and a few draws of weights that differ by their own rounding. The first step of Adam moves what has next to no gradient by the sign of
    rounding alone, and all later gradients change with it."""
    errors, generator = {}, torch.Generator().manual_seed(1)
    for kernel, draw in itertools.product(("eager", "sdpa"), range(DRAWS)):
        try:
            model = opened(checkpoint, kind, attn_implementation=kernel)
        except ValueError:  # a family without this kernel
            continue
        with torch.no_grad():
            for parameter in model.parameters() if draw else ():
                parameter.mul_(1 + ROUNDING * torch.randn(parameter.shape, generator=generator))
        for name, value in reference(model, inputs, labels, torch.float32)[0].items():
            error = (value.double() - theirs[name]).abs()
            errors[name] = torch.maximum(errors[name], error) if name in errors else error
    return errors


def compare(theirs, ours, decays, leaves, rounding):
    """What differs too much, and the largest differences as shares of what is allowed. `rounding` gives `own_rounding`."""
    problems, shares, errors = [], {}, {}
    everything = torch.tensor(True)

    def judge(kind, name, difference, allowed, where=everything):
        if difference > allowed:
            errors.update(errors or rounding())
            part = {"gradients": "grad.", "zero gradients": "grad.", "weights": "after.", "unused weights": "after."}.get(kind)
            own = 3 * float((errors[kind if part is None else part + name] * where).max())
            if difference <= own:
                kind, allowed = f"{kind} by rounding", own
        share = difference / allowed
        shares[kind] = max(shares.get(kind, 0.0), share)
        if not share <= 1.0:
            problems.append(f"{kind} {name}: {difference:.2e}, allowed {allowed:.2e}")

    expected, found = theirs["logits"], ours["logits"]
    if expected.shape != found.shape:
        return [f"logits have shape {list(found.shape)}, expected {list(expected.shape)}"], shares
    judge("logits", "", float((found - expected).abs().max()), LOGITS)
    judge("loss", "", float((ours["loss"] - theirs["loss"]).abs().max()), LOSS)
    names = [name.removeprefix("after.") for name in theirs if name.startswith("after.")]
    extra = {name.removeprefix("after.") for name in ours if name.startswith("after.")} - set(names)
    problems += [f"tensor that transformers does not have: {name}" for name in sorted(extra)]
    for name in names:
        gradient = theirs.get(f"grad.{name}")
        if f"after.{name}" not in ours:
            problems.append(f"missing tensor: {name}")
            continue
        largest = 0.0 if gradient is None else float(gradient.abs().max())
        own = ours[f"grad.{name}"].double()
        if largest < ZERO:
            # Zero in theory: what we have may be rounding, which Adam would turn into steps.
            judge("zero gradients", name, float(own.abs().max()), 1e-6)
            continue
        judge("gradients", name, float((own - gradient).abs().max()), GRADIENTS * largest)
        # Adam divides by the gradient's size: an error that the gradient's bar allows moves an element by up to the learning rate
        # times error / gradient, which is within the weights' bar for elements above this in every step.
        error = max(GRADIENTS, 3 * float(errors[f"grad.{name}"].max()) / largest if errors else 0.0)
        clear = theirs[f"least.{name}"] >= error * LEARNING_RATE / WEIGHTS
        if not clear.any():
            continue
        difference = (ours[f"after.{name}"] - theirs[f"after.{name}"]).abs()
        judge("weights", name, float(difference[clear].max()), WEIGHTS, clear)
        judge("unused weights", name, float((difference * (gradient == 0)).max()), WEIGHTS)
    for leaf in leaves:
        if any(leaf["decays"] != (name in decays) for name in leaf["names"]):
            problems.append(f"decay of {leaf['names']}: {leaf['decays']}, transformers says otherwise")
    return problems, shares


def written(folder, kind, model_class, inputs, logits):
    """What is wrong with a checkpoint that we wrote."""
    model, loading = auto_class(kind).from_pretrained(folder, output_loading_info=True)
    if getattr(model.config, "crf", False):
        # What transformers passes over is the CRF and nothing else.
        loading["unexpected_keys"] = set(loading["unexpected_keys"]) ^ {f"crf.{name}" for name in crf_head.NAMES}
    problems = [f"{key}: {loading[key]}" for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if loading[key]]
    if type(model).__name__ != model_class:
        problems.append(f"is loaded as {type(model).__name__}, expected {model_class}")
    if model.config.architectures != [model_class]:
        problems.append(f"architectures is {model.config.architectures}, expected {model_class}")
    with torch.no_grad():
        again = model.double().eval()(**inputs).logits
    if not float((again - logits).abs().max()) <= 1e-12:
        problems.append(f"its logits differ by {float((again - logits).abs().max()):.2e}")
    return [f"written checkpoint: {problem}" for problem in problems]


def check(worker, checkpoint, head, padding, generator):
    """Compares one saved model on one batch."""
    config = AutoConfig.from_pretrained(checkpoint)
    kind = HEADS[head][0]
    model = opened(checkpoint, kind)
    inputs, labels = rows(config, head, padding, generator)
    theirs, decays = reference(model, inputs, labels)
    with tempfile.TemporaryDirectory() as folder:
        file, out = pathlib.Path(folder) / "inputs.safetensors", pathlib.Path(folder) / "out"
        save_file(inputs | {"labels": labels}, file)
        command = [worker, "probe", "--checkpoint", checkpoint, "--inputs", file, "--out", out, "--steps", STEPS]
        command += ["--learning-rate", LEARNING_RATE, "--weight-decay", WEIGHT_DECAY, "--max-grad-norm", MAX_NORM]
        ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        if ran.returncode:
            return [f"train-worker failed: {ran.stderr.strip()}"], {}
        ours = load_file(out / "probe.safetensors")
        leaves = json.loads((out / "leaves.json").read_text())
        rounding = lambda: own_rounding(checkpoint, kind, inputs, labels, theirs)
        problems, shares = compare(theirs, ours, decays, leaves, rounding)
        problems += written(out / "checkpoint", kind, type(model).__name__, inputs, theirs["logits"])
    return problems, shares


def head_of(checkpoint):
    """The head of a saved model."""
    config = AutoConfig.from_pretrained(checkpoint)
    name = (config.architectures or [""])[0]
    if name.endswith("ForTokenClassification"):
        return "crf" if getattr(config, "crf", False) else "token"
    if not name.endswith("ForSequenceClassification"):
        sys.exit(f"{checkpoint}: architectures is {config.architectures}, expected a token or sequence classifier")
    problem = config.problem_type or ("regression" if config.num_labels == 1 else "single_label_classification")
    return next(head for head, (_, known, _) in HEADS.items() if known == problem)


def saved(folder, only, seed):
    """Makes the random models; gives names, folders and heads."""
    for index, name in enumerate(CONFIGURATIONS):
        if only and not any(part in name for part in only):
            continue
        for head in HEADS:
            if head == "crf" and name not in CHAINED:
                continue
            torch.manual_seed(seed * 1000 + index)
            config, kind = configuration(name, head)
            target = folder / name / head
            model = perturbed(auto_class(kind).from_config(config))
            if head == "crf":
                model = crf_head.with_crf(model)
            model.save_pretrained(target)
            yield f"{name} {head}", target, head


def default_worker():
    folder = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return pathlib.Path(os.environ.get("QUINTET_TRAIN_WORKER", pathlib.Path(folder) / "debug/train-worker"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", type=pathlib.Path, default=default_worker(), help="the program train-worker")
    parser.add_argument("--only", nargs="*", help="configurations whose names contain one of these")
    parser.add_argument("--checkpoint", nargs="*", type=pathlib.Path, help="models saved by transformers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--drawn", type=int, default=0, help="configurations drawn at random beside the listed ones")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for index in range(options.drawn):
        family, settings = drawn(index, options.seed)
        CONFIGURATIONS[f"drawn-{index}-{family}"] = (family, settings)
    failed, count, largest = 0, 0, {}
    with tempfile.TemporaryDirectory() as folder:
        if options.checkpoint:
            models = [(path.name, path, head_of(path)) for path in options.checkpoint]
        else:
            models = saved(pathlib.Path(folder), options.only, options.seed)
        for name, path, head in models:
            for index, padding in enumerate(["none", "right", "left", "token"]):
                # One batch of each kind for token heads; the others share the encoder.
                if padding in ("left", "token") and head != "token" and not options.checkpoint:
                    continue
                generator = torch.Generator().manual_seed(options.seed * 10 + index)
                problems, shares = check(options.worker, path, head, padding, generator)
                count += 1
                failed += bool(problems)
                largest = {kind: max(largest.get(kind, 0), shares.get(kind, 0)) for kind in largest | shares}
                shown = ", ".join(f"{kind} {share:.2f}" for kind, share in shares.items())
                print(f"{'FAIL' if problems else 'ok'}  {name}, padding {padding}: {shown}", flush=True)
                if problems and name.startswith("drawn"):
                    print(f"      {CONFIGURATIONS[name.split()[0]]}")
                for problem in problems[:6]:
                    print(f"      {problem}")
    shown = ", ".join(f"{kind} {share:.2f}" for kind, share in largest.items())
    print(f"{count} comparisons, {failed} failed; largest shares of what is allowed: {shown}")
    sys.exit(1 if failed or not count else 0)


if __name__ == "__main__":
    main()

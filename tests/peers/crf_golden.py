"""Writes crates/nlp/testdata/crf.json: chains, their best sequences and the probabilities of labels by pytorch-crf; and
crates/train-worker/testdata/bert-crf: a tiny checkpoint with a CRF, the loss, the gradients of one step and the weights after three.

python3 -m venv VENV && VENV/bin/pip install torch==2.11.0 transformers==4.57.6 pytorch-crf==0.7.2
VENV/bin/python tests/peers/crf_golden.py
"""

import json
import shutil

import torch
import transformers
from crf_head import IGNORED, NAMES, with_crf
from encoder_golden import TARGET, TINY
from safetensors.torch import save_file
from torchcrf import CRF
from transformers_parity import CONFIGURATIONS, ROOT, auto_class, configuration, perturbed, reference, rows

# Labels and the spread of their scores.
CASES = [(1, 1.0), (2, 0.1), (3, 1.0), (5, 3.0), (9, 1.0), (9, 8.0), (25, 2.0)]


def chain(crf, generator):
    words = int(torch.randint(1, 30, (), generator=generator))
    # Few binary digits: short in the file, and the same in single precision.
    emissions = (torch.randn(1, words, crf.num_tags, generator=generator) * 512).round().double() / 256
    emissions.requires_grad_()
    mask = torch.ones(1, words, dtype=torch.bool)
    # The derivative of the logarithm of all sequences' weight is the share of those through a label.
    everything = crf._compute_normalizer(emissions.transpose(0, 1), mask.transpose(0, 1)).sum()
    (shares,) = torch.autograd.grad(everything, emissions)
    return {
        "emissions": emissions[0].tolist(),
        "tags": crf.decode(emissions)[0],
        "marginals": [[round(share, 8) for share in word] for word in shares[0].tolist()],
    }


def case(labels, spread, generator):
    crf = CRF(labels, batch_first=True)
    for parameter in crf.parameters():
        parameter.data = (torch.randn(parameter.shape, generator=generator) * spread * 256).round() / 256
    scores = {name: getattr(crf, name).tolist() for name in NAMES}
    crf.double()
    return {"crf": scores, "chains": [chain(crf, generator) for _ in range(6)]}


def checkpoint():
    name, folder = "bert-crf", TARGET / "bert-crf"
    CONFIGURATIONS[name] = ("Bert", TINY)
    torch.manual_seed(50)
    config, kind = configuration(name, "token")
    model = with_crf(perturbed(auto_class(kind).from_config(config)))
    for parameter in model.crf.parameters():
        parameter.data *= 10
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    inputs, labels = rows(config, "token", "right", torch.Generator().manual_seed(50))
    inputs = {key: value[:, :14].contiguous() for key, value in inputs.items()}
    labels = labels[:, :14].contiguous()
    labels[2] = IGNORED  # a window that counts for no word
    found, _ = reference(model, inputs, labels)
    golden = inputs | {"labels": labels} | {key: value.float().contiguous() for key, value in found.items()}
    save_file(golden, folder / "golden.safetensors", metadata={"format": "pt"})
    print(name, [(path.name, path.stat().st_size) for path in sorted(folder.iterdir())])


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    generator = torch.Generator().manual_seed(1)
    cases = [case(labels, spread, generator) for labels, spread in CASES]
    target = ROOT / "crates/nlp/testdata/crf.json"
    target.write_text(json.dumps({"pytorch-crf": "0.7.2", "cases": cases}, separators=(",", ":")) + "\n")
    print(target.name, target.stat().st_size)
    checkpoint()


if __name__ == "__main__":
    main()

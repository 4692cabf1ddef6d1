"""Writes lora.safetensors beside the golden files of crates/train-worker/testdata: what peft computes with low-rank changes of every
projection of the layers: logits, loss, gradients of the factors and the head, and the merged weights.

python3 -m venv VENV && VENV/bin/pip install torch==2.11.0 transformers==4.57.6 pytorch-crf==0.7.2 peft==0.21.2
VENV/bin/python tests/peers/lora_golden.py
"""

import re

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from transformers_parity import ROOT, auto_class

TARGET = ROOT / "crates/train-worker/testdata"
FIXTURES = ["bert", "distilbert", "deberta-conv", "modernbert"]
RANK, ALPHA = 3, 5.0


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for index, name in enumerate(FIXTURES):
        folder = TARGET / name
        config = AutoConfig.from_pretrained(folder)
        kind = "token" if "Token" in config.architectures[0] else "sequence"
        model = auto_class(kind).from_pretrained(folder).double()
        projections = [path for path, module in model.named_modules()
                       if isinstance(module, torch.nn.Linear) and re.search(r"\.layers?\.\d+\.", path)]
        model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=projections)).eval()
        golden = {}
        generator = torch.Generator().manual_seed(index)
        clean = lambda path: path.removeprefix("base_model.model.").replace(".default", "")
        for path, parameter in model.named_parameters():
            head = re.match(r"base_model\.model\.(classifier|pre_classifier|head|pooler)\.", path)
            parameter.requires_grad_(bool("lora_" in path or head))
            if "lora_" in path:
                drawn = torch.randn(parameter.shape, generator=generator) * 0.3
                parameter.data = drawn.double()
                golden[clean(path)] = drawn
        given = load_file(folder / "golden.safetensors")
        inputs = {key: given[key] for key in ("input_ids", "attention_mask", "token_type_ids", "labels") if key in given}
        found = model(**inputs)
        found.loss.backward()
        golden["logits"] = found.logits.detach()
        golden["loss"] = found.loss.detach().reshape(1)
        for path, parameter in model.named_parameters():
            if parameter.requires_grad:
                golden["grad." + clean(path)] = parameter.grad
        for path, parameter in model.merge_and_unload().named_parameters():
            if path.removesuffix(".weight") in projections:
                golden["merged." + path] = parameter.detach()
        golden = {key: value.float().contiguous() for key, value in golden.items()}
        save_file(golden, folder / "lora.safetensors", metadata={"format": "pt"})
        print(name, len(projections), (folder / "lora.safetensors").stat().st_size)


if __name__ == "__main__":
    main()

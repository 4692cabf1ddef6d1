"""Makes the golden files of crates/convert-svc/tests/golden.

A tiny random BERT token classifier written by `transformers`, its logits on padded rows for each activation, and its
weights quantized by ONNX Runtime's own dynamic quantizer. Run in a virtual environment with
    torch==2.11.0 transformers==4.57.6 onnx==1.23.2 onnxruntime==1.32.0
as `python tests/peers/make_bert_golden.py [FOLDER]`. The same versions give the same files.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import quantize_data
from safetensors.numpy import save_file
from transformers import BertConfig, BertForTokenClassification

FOLDER = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2] / "crates/convert-svc/tests/golden")
ACTIVATIONS = ["gelu", "gelu_new", "quick_gelu", "relu", "silu", "mish", "tanh", "sigmoid", "linear", "relu2", "relu6", "leaky_relu",
               "gelu_10", "laplace"]
LABELS = ["O", "B-Street", "I-Street", "B-Place", "I-Place"]


def config(activation):
    return BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=24,
        type_vocab_size=2,
        hidden_act=activation,
        initializer_range=0.25,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )


def rows():
    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(1, 60, (4, 9), generator=generator)
    mask = torch.ones_like(ids)
    types = torch.zeros_like(ids)
    for row, length in enumerate([9, 6, 3, 1]):
        ids[row, length:] = 0
        mask[row, length:] = 0
    types[0, 5:] = 1
    return ids, mask, types


def matmul_model(weight):
    """x * weight as an ONNX model."""
    inputs, outputs = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "matmul",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def quantized_matrix(matrix):
    """Matrix [in, out] and its scales as ONNX Runtime's quantizer writes them into a model."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        onnx.save(matmul_model(matrix), source)
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
        found = {item.name: numpy_helper.to_array(item) for item in onnx.load(target).graph.initializer}
    weight, scale, zero = found["weight_quantized"], found["weight_scale"], found["weight_zero_point"]
    assert not np.any(zero)
    return np.ascontiguousarray(weight), np.atleast_1d(scale)


def quantized_table(table):
    """Table and its one scale by the same quantizer's arithmetic for signed weights."""
    zero, scale, values = quantize_data(table, TensorProto.INT8, symmetric=True)
    assert not np.any(zero)
    return values, np.atleast_1d(scale)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    ids, mask, types = rows()
    golden = {"input_ids": ids.numpy(), "attention_mask": mask.numpy(), "token_type_ids": types.numpy()}
    torch.manual_seed(7)
    reference = BertForTokenClassification(config("gelu")).eval()
    with torch.no_grad():
        # Fresh biases and LayerNorms are all zeros and ones, which would hide a mistake.
        for name, parameter in reference.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    reference.save_pretrained(FOLDER)
    for activation in ACTIVATIONS:
        model = BertForTokenClassification(config(activation)).eval()
        model.load_state_dict(reference.state_dict())
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
        golden[f"logits.{activation}"] = logits.numpy()
    for name, value in reference.state_dict().items():
        short = name.removeprefix("bert.")
        if value.ndim == 2 and short.endswith("word_embeddings.weight"):
            weight, scale = quantized_table(value.numpy())
        elif value.ndim == 2 and "embeddings" not in short:
            weight, scale = quantized_matrix(np.ascontiguousarray(value.numpy().T))
        else:
            continue
        golden[f"int8.{short}"] = weight
        golden[f"scale.{short}"] = scale
    save_file(golden, FOLDER / "golden.safetensors")


if __name__ == "__main__":
    main()

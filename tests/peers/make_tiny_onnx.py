"""Makes crates/bench-svc/tests/data/tiny.onnx: a table of logits as a token classifier, small and quick.

Run in a virtual environment with onnx==1.23.2 as `python tests/peers/make_tiny_onnx.py`.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TARGET = Path(__file__).parents[2] / "crates/bench-svc/tests/data/tiny.onnx"


def main():
    random = np.random.default_rng(5)
    table = random.standard_normal((50, 16), dtype=np.float32)
    weight = random.standard_normal((16, 3), dtype=np.float32)
    shape = ["batch", "sequence"]
    names = ["input_ids", "attention_mask", "token_type_ids"]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["words"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
            helper.make_node("Mul", ["words", "column"], ["masked"]),
            helper.make_node("MatMul", ["masked", "weight"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in names],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*shape, 3])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.array([2]), "last"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9, producer_name="tests")
    helper.set_model_props(
        model,
        {"quintet.max_length": "64", "quintet.vocab_size": "50", "quintet.quantization": "none"},
    )
    onnx.checker.check_model(model, full_check=True)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, TARGET)


if __name__ == "__main__":
    main()

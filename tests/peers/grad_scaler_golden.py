"""Writes crates/train-worker/testdata/grad_scaler.json: what torch.amp.GradScaler makes of its scale, step by step, with steps whose
gradients are finite ("+") and steps whose gradients are not ("-").

python3 -m venv VENV && VENV/bin/pip install torch==2.11.0
VENV/bin/python tests/peers/grad_scaler_golden.py
"""

import json
import random
from pathlib import Path

import torch

TARGET = Path(__file__).resolve().parents[2] / "crates/train-worker/testdata/grad_scaler.json"


def trace(finite, scale, interval):
    """The steps after which the scale is another one, with that scale, and the growth tracker at the end."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=interval)
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    stepped = []
    optimizer.register_step_post_hook(lambda *_: stepped.append(len(stepped)))
    changes = []
    for step, sign in enumerate(finite):
        before = scaler.get_scale()
        scaler.scale((weight * (0.0 if sign == "+" else float("inf"))).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if scaler.get_scale() != before:
            changes.append([step, scaler.get_scale()])
    assert len(stepped) == finite.count("+")
    tracker = scaler.state_dict()["_growth_tracker"]
    return {"scale": scale, "interval": interval, "finite": finite, "changes": changes, "tracker": tracker}


def main():
    generator = random.Random(5)
    signs = lambda count, share: "".join("+" if generator.random() < share else "-" for _ in range(count))
    state = torch.amp.GradScaler("cpu").state_dict()
    defaults = [state[key] for key in ("scale", "growth_factor", "backoff_factor", "growth_interval")]
    traces = [
        trace(signs(200, 0.85), 65536.0, 4),
        trace("+" * 4100 + "-" + "+" * 1999 + "--" + "+" * 2500, 65536.0, 2000),
        # A growth that would leave the range of fp32 does not happen.
        trace("+" * 7, 2.0**126, 2),
        trace("-" * 20, 65536.0, 2000),
    ]
    TARGET.write_text(json.dumps({"defaults": defaults, "traces": traces}) + "\n")


if __name__ == "__main__":
    main()

"""A trainer as a team has it on its first day: it logs with the unmodified mlflow client and knows nothing of Quintet.

    python tests/peers/trial_mlflow.py --x 0.3 --finished DIR

Minimizes (x - 0.3)^2. Above 0.85 it crashes. Above 0.6 it is hopeless: once two runs have finished (a file each in DIR), it goes
on logging until somebody stops it. Needs mlflow-skinny 3.17.2; MLFLOW_TRACKING_URI and MLFLOW_RUN_ID are set by the job.
"""

import argparse
import sys
import time
from pathlib import Path

import mlflow


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--x", type=float, required=True)
    parser.add_argument("--finished", type=Path, required=True)
    arguments = parser.parse_args()
    x = arguments.x
    print(f"training with x = {x}")
    mlflow.log_param("x", x)
    if x > 0.85:
        raise ValueError(f"no convergence at x = {x}")
    loss = (x - 0.3) ** 2
    for step in range(1, 6):
        mlflow.log_metric("loss", loss + 0.1 / step, step=step)
    if x > 0.6 and len(list(arguments.finished.iterdir())) >= 2:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            mlflow.log_metric("loss", loss + 0.1, step=step)
            step += 1
            time.sleep(0.1)
        sys.exit("nobody stopped this hopeless run")
    arguments.finished.joinpath(mlflow.active_run().info.run_id).touch()


if __name__ == "__main__":
    main()

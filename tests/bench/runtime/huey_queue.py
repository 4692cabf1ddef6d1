"""Measures huey on SQLite by the protocol of the runtime benchmark beside this file, and prints one JSON document.

    python tests/bench/runtime/huey_queue.py [--jobs 10000] [--pace 0] [--folder DIR]

8 processes enqueue no-op tasks while 8 worker processes of huey's own consumer run them. WAL, `synchronous=FULL`, no stored
results. huey makes two durable transitions a job (enqueued, dequeued), and a kill loses what is in flight: the task has left
the database before it runs. With `--pace N` tasks are enqueued N a second in all, and the time from the planned moment to
the start of the task is measured.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time

import huey
from huey import SqliteHuey

PROCESSES = 8
context = multiprocessing.get_context("fork")


def serve(queue):
    # Polls as often as it can be told to: huey's own defaults wait up to ten seconds.
    consumer = queue.create_consumer(
        workers=PROCESSES,
        worker_type="process",
        periodic=False,
        initial_delay=0.001,
        backoff=1.15,
        max_delay=0.01,
        check_worker_health=False,
    )
    consumer.run()


def submit(queue, task, first, jobs, pace, begin):
    """Every PROCESSES-th job from `first` on; when paced, at the moment that is its own."""
    queue.storage.close()
    for number in range(first, jobs, PROCESSES):
        planned = begin.value + number / pace if pace else time.monotonic()
        pause = planned - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        task(planned)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--pace", type=float, default=0)
    parser.add_argument("--folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        queue = SqliteHuey("bench", filename=os.path.join(folder, "huey.db"), fsync=True, results=False, timeout=60)
        started = context.Value("i", 0)
        waits = context.Array("d", arguments.jobs)

        @queue.task()
        def no_op(planned):
            now = time.monotonic()
            with started.get_lock():
                waits[started.value] = now - planned
                started.value += 1

        queue.storage.close()
        begin = context.Value("d", 0.0)
        consumer = context.Process(target=serve, args=(queue,))
        consumer.start()
        # The consumer is up when it has run a task.
        no_op(time.monotonic())
        while started.value < 1:
            time.sleep(0.01)
        started.value = 0
        queue.storage.close()
        begin.value = start = time.monotonic() + (0.2 if arguments.pace else 0)
        submitters = [
            context.Process(target=submit, args=(queue, no_op, i, arguments.jobs, arguments.pace, begin))
            for i in range(PROCESSES)
        ]
        for process in submitters:
            process.start()
        while started.value < arguments.jobs:
            if not consumer.is_alive():
                sys.exit("huey's consumer ended early")
            time.sleep(0.002)
        seconds = time.monotonic() - start
        for process in submitters:
            process.join()
        os.kill(consumer.pid, signal.SIGTERM)
        consumer.join(20)
        if consumer.is_alive():
            consumer.kill()
        ordered = sorted(waits[:])
    print(
        json.dumps(
            {
                "huey": ".".join(str(part) for part in huey.__version__.split(".")),
                "jobs": arguments.jobs,
                "seconds": seconds,
                "jobs_per_second": arguments.jobs / seconds,
                "p50_ms": 1000 * ordered[len(ordered) // 2],
                "p99_ms": 1000 * ordered[len(ordered) * 99 // 100],
            }
        )
    )


if __name__ == "__main__":
    main()

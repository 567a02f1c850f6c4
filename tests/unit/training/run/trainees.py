"""Start runs of training, in one process or two, and kill some: a program of its own, as tests have threads.

A process that has imported everything forks those of each run. `trained` starts it, and waits until all is done.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[4]


def trained(runs: list[dict[str, Any]]) -> list[list[int]]:
    """Do the runs one after the other; return how the processes of each ended: exit codes, or below 0 signals.

    A run is {"settings": of TrainSettings, "processes": 1, "stop_at": a step after which its last process wants to
    stop, "kill_at": a step after which all are killed, "after" so many seconds}, all but the settings optional.
    """
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'core'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__],
        env=environment,
        input=json.dumps(runs),
        capture_output=True,
        text=True,
        check=True,
        timeout=500,
    )
    ended: list[list[int]] = json.loads(done.stdout)
    return ended


def main() -> None:
    import torch

    from bridgetower.training.data import decoding, look
    from tests.fakes import DecodePoolHere

    for module in (look, decoding):
        vars(module)["DecodePool"] = DecodePoolHere
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # imports, for a second
    import bridgetower.training.run.train  # noqa: F401 - for the processes that are forked

    sys.stdout.write(json.dumps([run(**one) for one in json.load(sys.stdin)]))


def run(
    settings: dict[str, Any],
    processes: int = 1,
    stop_at: int | None = None,
    kill_at: int | None = None,
    after: float = 0.0,
) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told, tell = os.pipe()
    children = []
    for rank in range(processes):
        if (child := os.fork()) == 0:
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            learn(settings, tell, stop_at if rank == processes - 1 else None)
        children.append(child)
    os.close(tell)
    with os.fdopen(told) as steps:
        for line in steps:
            if kill_at is not None and int(line) >= kill_at:
                time.sleep(after)
                for child in children:
                    os.kill(child, signal.SIGKILL)
                break
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def learn(settings: dict[str, Any], tell: int, stop_at: int | None) -> None:
    """Train, tell the number of each step, and end the process."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from bridgetower.training.run.prepare import prepare_training
    from bridgetower.training.run.settings import TrainSettings
    from bridgetower.training.run.train import train_model

    done: list[object] = []
    register_optimizer_step_post_hook(lambda *step: done.append(step))

    def should_stop() -> bool:
        return stop_at is not None and len(done) >= stop_at

    try:
        prepared = prepare_training(TrainSettings(**settings))
        train_model(prepared, on_step=lambda report: os.write(tell, b"%d\n" % report.step), should_stop=should_stop)
        os._exit(0)
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()

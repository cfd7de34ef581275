"""Measure how the OpenMP settings of PyTorch's threads affect speed, alone and next to a busy core.

    python -m benchmarks.threads [--rounds 3] [--loads idle,busy]

Runs a training step (MiT-B0, 96 pixels, batch of 4) and an examination of a photo in four tiles
with `qma-net-small`, once for each setting, alternately, each time in a new process. "busy" adds
one process that keeps a core busy. The times are medians over the rounds; the ratios compare with
the defaults of PyTorch under the same load. Other programs on the machine disturb the results, so
the load average at the beginning of each measurement is shown.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

SETTINGS = (
    "defaults",
    "OMP_WAIT_POLICY=PASSIVE",
    "GOMP_SPINCOUNT=1000",
    "OMP_NUM_THREADS=1",
)
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
TASKS = ("training step", "examination")
PHOTO_SIZE = (1100, 800)
STEPS = 3


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loads", default="idle,busy", metavar="A,B")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure()))
        return
    print(f"{os.cpu_count()} cores, {describe_runtime()}, {args.rounds} rounds\n")
    print("| load | setting | training step (s) | ratio | examination (s) | ratio | load average |")
    print("|---|---|---|---|---|---|---|")
    for load in args.loads.split(","):
        results: dict[str, list[dict[str, float]]] = {setting: [] for setting in SETTINGS}
        with busy_core(enabled=load == "busy"):
            for _ in range(args.rounds):
                for setting in SETTINGS:
                    results[setting].append(run(setting))
        for setting in SETTINGS:
            cells = []
            for task in TASKS:
                seconds, default = (
                    median(result[task] for result in results[name])
                    for name in (setting, SETTINGS[0])
                )
                cells += [f"{seconds:.2f}", f"{seconds / default:.2f}"]
            average = median(result["load average"] for result in results[setting])
            print(f"| {load} | {setting} | {' | '.join(cells)} | {average:.1f} |", flush=True)


def describe_runtime() -> str:
    """Return the version of PyTorch and the OpenMP library that it has loaded."""
    code = (
        "import torch; maps = open('/proc/self/maps', encoding='utf-8').read().split(); "
        "print('torch', torch.__version__, 'with', *sorted({p.rpartition('/')[2] for p in maps "
        "if 'omp' in p.rpartition('/')[2] and '.so' in p}))"
    )
    return subprocess.check_output([sys.executable, "-c", code], encoding="utf-8").strip()


@contextmanager
def busy_core(*, enabled: bool) -> Iterator[None]:
    """Run a process that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if enabled else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def run(setting: str) -> dict[str, float]:
    """Measure the tasks in a new process with a setting."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    if setting != SETTINGS[0]:
        environment |= [setting.split("=")]
    command = [sys.executable, "-m", "benchmarks.threads", "--measure"]
    load = os.getloadavg()[0]
    output = subprocess.check_output(command, env=environment, encoding="utf-8")
    result = {**json.loads(output.splitlines()[-1]), "load average": load}
    print(setting, result, file=sys.stderr, flush=True)
    return result


def measure() -> dict[str, float]:
    """Return the seconds of each task in this process."""
    import numpy as np
    import torch

    from qma_net import QMANetConfig, QMANetModel, QMANetPredictor
    from qma_net.examine import examine_photo

    from .step import qma_net_loss, training_step

    torch.manual_seed(0)
    network = QMANetModel.from_config(QMANetConfig(size="b0", views="srm,bayar"))
    image, mask = torch.randn(4, 3, 96, 96), (torch.rand(4, 1, 96, 96) > 0.9).float()
    step = training_step(network, lambda: qma_net_loss(network, image, mask))
    step()
    training = median(seconds(step) for _ in range(STEPS))
    width, height = PHOTO_SIZE
    y, x = np.mgrid[:height, :width] / 40
    waves = 128 + 60 * (np.sin(y) * np.cos(x))[..., None]
    noise = np.random.default_rng(0).normal(0, 4, (height, width, 3))
    pixels = np.clip(waves + noise, 0, 255).astype(np.uint8)
    predictor = QMANetPredictor.from_pretrained("qma-net-small", "cpu")
    examination = seconds(lambda: examine_photo(predictor, pixels))
    return dict(zip(TASKS, (training, examination), strict=True))


def seconds(function: Callable[[], object]) -> float:
    """Return the duration of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

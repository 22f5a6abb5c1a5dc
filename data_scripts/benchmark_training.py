"""Measure training speed, beside a plain float32 step of the released formulation in the same run.

    python data_scripts/benchmark_training.py [--device cuda] [--batch-size 16] [--size 256] [--models hdnet-lite hdnet]

Also the share of the device's matrix rate that a step reaches: the arithmetic of one forward pass, counted by
PyTorch, three times over (forward and both backward passes), by the time and by the rate of a large bf16 product.
"""

import argparse
import sys

import pandas as pd
import torch
from benchmark_data import add_options, seconds, training_step
from torch.utils.flop_counter import FlopCounterMode

from hdnet_lib import create_model, paste
from hdnet_lib.data.samples import Batch
from hdnet_lib.model.losses import foreground_mse
from hdnet_lib.training.loop import memory_format


def matrix_rate(device: torch.device, repeats: int) -> float:
    """Operations a second of a large bf16 matrix product."""
    side = 8192 if device.type == "cuda" else 2048
    one, other = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / seconds(lambda _: one @ other, device, repeats)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_options(parser)
    parser.add_argument("--compile", action="store_true", help="time a step made by torch.compile, too")
    arguments = parser.parse_args()
    device, count = torch.device(arguments.device), arguments.batch_size
    composite, real = torch.rand(2, count, 3, arguments.size, arguments.size, device=device) * 2 - 1
    mask = torch.zeros(count, 1, arguments.size, arguments.size, device=device)
    mask[..., arguments.size // 4 : arguments.size // 2, arguments.size // 4 : arguments.size // 2] = 1
    batch = Batch(composite, mask, real)
    rate = matrix_rate(device, arguments.repeats)
    print(f"{arguments.size} px, batches of {count}, {device}, {torch.get_num_threads()} threads; "
          f"bf16 products reach {rate / 1e12:.2f} TFLOP/s")  # fmt: skip

    rows = []
    for name in arguments.models:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            create_model(name)(composite[:1].cpu(), mask[:1].cpu())
        work = 3 * counter.get_total_flops() * count
        released = create_model(name, local_dynamic="released").to(device)
        optimizer = torch.optim.Adam(released.parameters())

        def plain(_: int, model=released, optimizer=optimizer) -> None:
            optimizer.zero_grad()
            foreground_mse(paste(model(composite, mask), composite, mask), real, mask).backward()
            optimizer.step()

        slow = seconds(plain, device, arguments.repeats)
        first, last = (torch.contiguous_format, "channels first"), (torch.channels_last, "channels last")
        other, label = first if memory_format(device) == torch.channels_last else last
        steps = {
            "ours": training_step(name, batch, device),
            f"ours, but {label}": training_step(name, batch, device, other),
        }
        if arguments.compile:
            steps["ours, compiled"] = training_step(name, batch, device, compiled=True)
        times = {"released, fp32": slow} | {
            kind: seconds(step, device, arguments.repeats) for kind, step in steps.items()
        }
        rows += [(name, kind, count / t, slow / t, f"{work / t / rate:.1%}") for kind, t in times.items()]
    columns = ["model", "step", "images/s", "ratio", "share of the matrix rate"]
    print(pd.DataFrame(rows, columns=columns).round(2).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())

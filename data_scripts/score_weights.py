"""Score shipped weights, and classical baselines, on triplets: the numbers of the model card.

    python data_scripts/score_weights.py [ROOT ...] [--model NAME or FILE.safetensors] [--split test]

At 256 px, under the paper's protocol. Baselines: the composite as it is, and Reinhard transfer from the
background to the foreground.
"""

import argparse
import sys

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from hdnet_lib import paste
from hdnet_lib.data import list_triplets
from hdnet_lib.data.recipes import reinhard
from hdnet_lib.images import to_tensor
from hdnet_lib.metrics import score
from hdnet_lib.registry import load_model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("roots", nargs="*", default=["mini"], help="folders in iHarmony4 layout (default: mini)")
    parser.add_argument("--model", default="hdnet-lite")
    parser.add_argument("--split", default="test", help="name of the list (%(default)s)")
    parser.add_argument("--partial", action="store_true", help="leave out composites of which a file is missing")
    arguments = parser.parse_args()
    try:
        report(arguments)
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


def report(arguments: argparse.Namespace) -> None:
    """Score and print."""
    model, rows = load_model(arguments.model), []
    for root in arguments.roots:
        for triplet in tqdm(list_triplets(root, arguments.split, arguments.partial), desc=root):
            images = triplet.read(256)
            if not images.mask.any():
                raise ValueError(f"{triplet.name}: its mask is empty; check_dataset.py finds all such faults.")
            composite, mask = to_tensor(images.composite), to_tensor(images.mask)
            with torch.inference_mode():
                output = model(composite * 2 - 1, mask) / 2 + 0.5
            methods = {
                "composite": composite,
                "Reinhard": reinhard(composite, mask, composite, 1 - mask),
                arguments.model: paste(output, composite, mask),
            }
            for method, image in methods.items():
                scores = score(image[0].permute(1, 2, 0).numpy() * 255, images.real, images.mask)._asdict()
                rows.append({"data": root, "method": method, "photo": triplet.photo, "name": triplet.name} | scores)
    table = pd.DataFrame(rows)
    summary = table.groupby(["data", "method"], sort=False).agg(
        composites=("name", "nunique"), photos=("photo", "nunique"), psnr=("psnr", "mean"), mse=("mse", "mean"),
        fmse=("fmse", "mean"), ssim=("ssim", "mean"))  # fmt: skip
    print(summary.round({"psnr": 2, "mse": 1, "fmse": 1, "ssim": 4}).to_string())
    psnr = table.pivot(index=["data", "name"], columns="method", values="psnr")
    gain = psnr[arguments.model] - psnr["composite"]
    for root, values in gain.groupby("data", sort=False):
        print(f"{root}: {arguments.model} gains {values.mean():.2f} dB over the composite; "
              f"{np.count_nonzero(values < 0)} of {len(values)} made worse.")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

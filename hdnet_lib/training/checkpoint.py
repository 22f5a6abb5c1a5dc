"""The files of a run: weights, log and checkpoint, each whole or not at all."""

import csv
import json
import math
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hdnet_lib.registry import Network, create_model
from hdnet_lib.training.adversary import Adversary
from hdnet_lib.training.config import TrainingConfig
from hdnet_lib.utils.files import atomic_write, first_line
from hdnet_lib.utils.paths import CHECKOUT
from hdnet_lib.version import __version__


def read_log(output: str | Path) -> list[dict]:
    """The lines of the log of the run that writes ``output``, numbers as numbers; none before its first validation."""
    state = _state(Path(output).with_suffix(".checkpoint"))
    return state["log"] if state else []


def load_last(output: str | Path) -> Network:
    """The model of the last validation of the run that writes ``output``, better or not, in evaluation mode.

    Raises:
        ValueError: there is no checkpoint, or it cannot be read.
    """
    checkpoint = Path(output).with_suffix(".checkpoint")
    state = _state(checkpoint)
    if not state:
        raise ValueError(f"{checkpoint}: there is no such checkpoint.")
    model = create_model(state["config"]["model"], **state["config"]["overrides"])
    model.load_state_dict(_part(load_file(checkpoint), "average."))
    return model.eval()


def finished(output: str | Path) -> bool:
    """Whether the run that writes ``output`` has made all its steps."""
    output = Path(output)
    state = _state(output.with_suffix(".checkpoint"))
    return state is not None and state["log"][-1]["step"] == state["steps"] and output.is_file()


def _state(checkpoint: Path) -> dict | None:
    if not checkpoint.is_file():
        return None
    try:
        with safe_open(checkpoint, "pt") as file:
            return json.loads(file.metadata()["state"])
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{checkpoint}: the checkpoint cannot be read: {first_line(error)}.") from None


class Run:
    """What a run has reached, and its three files."""

    def __init__(
        self,
        config: TrainingConfig,
        output: Path,
        steps: int,
        model: Network,
        ema_model: Network,
        optimizer: torch.optim.Adam,
        adversary: Adversary | None = None,
    ) -> None:
        self.config, self.output = config, output
        self.checkpoint = output.with_suffix(".checkpoint")
        self.ema_model = ema_model
        self._learning: dict[str, tuple[nn.Module, torch.optim.Adam]] = {"": (model, optimizer)}
        if adversary:
            self._learning["adversary."] = (adversary.network, adversary.optimizer)
        self.steps, self.step, self.log = steps, 0, []

    def resume(self) -> None:
        """Go to where the checkpoint is, if there is one."""
        if not self.checkpoint.is_file():
            # Weights without a checkpoint are this run's own if it was ended between writing the two.
            if self.output.exists() and not self._wrote(self.output):
                raise ValueError(f"{self.output} exists and has no checkpoint to go on from: choose another name.")
            return
        state = _state(self.checkpoint)
        assert state is not None
        mine, theirs = (json.loads(json.dumps(x)) for x in (_deciding(self.config), state["config"]))
        if different := sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)):
            raise ValueError(
                f"{self.checkpoint}: this run had another {', '.join(different)}: give the same again to go on with "
                "it, or another output."
            )
        if state["steps"] != self.steps:
            raise ValueError(
                f"{self.checkpoint}: this run had {state['steps']} steps, now there are {self.steps}: its data changed."
            )
        self.step, self.log = state["log"][-1]["step"], state["log"]
        try:
            self._load(load_file(self.checkpoint))
        except (OSError, SafetensorError, RuntimeError, KeyError) as error:
            raise ValueError(
                f"{self.checkpoint}: the checkpoint does not fit the model: {first_line(error)}."
            ) from None

    def _wrote(self, output: Path) -> bool:
        try:
            with safe_open(output, "pt") as file:
                config = json.loads(file.metadata()["config"])
        except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError):
            return False
        return {**config, "device": ""} == json.loads(json.dumps(_deciding(self.config)))

    def _load(self, tensors: dict[str, Tensor]) -> None:
        self.ema_model.load_state_dict(_part(tensors, "average."))
        for whose, (network, optimizer) in self._learning.items():
            network.load_state_dict(_part(tensors, f"{whose}model."))
            for name, parameter in network.named_parameters():
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step), device=parameter.device),
                    # In the parameter's own memory format, which the fused optimizer takes for granted.
                    "exp_avg": torch.empty_like(parameter).copy_(tensors[f"{whose}first.{name}"]),
                    "exp_avg_sq": torch.empty_like(parameter).copy_(tensors[f"{whose}second.{name}"]),
                }

    def save(self, row: dict) -> None:
        """Write log, best weights and checkpoint, each whole or not at all, the checkpoint last."""
        best = min((earlier["validation_loss"] for earlier in self.log), default=math.inf)
        better = row["validation_loss"] < best or not self.output.is_file()
        step = self.step = row["step"]
        self.log = [*self.log, row]
        try:
            if better:
                header = {
                    "config": json.dumps(asdict(self.config)),
                    "steps": str(self.steps),
                    **{name: str(row[name]) for name in ("step", "seconds", "validation_loss", "validation_psnr")},
                    "version": __version__,
                    "revision": _revision(),
                }
                with atomic_write(self.output) as part:
                    save_file(_contiguous(self.ema_model.state_dict()), part, metadata=header)
            with atomic_write(self.output.with_suffix(".csv")) as part, part.open("w", newline="") as file:
                writer = csv.DictWriter(file, row.keys())
                writer.writeheader()
                writer.writerows(self.log)
            with atomic_write(self.checkpoint) as part:
                state = json.dumps({"config": _deciding(self.config), "steps": self.steps, "log": self.log})
                save_file(_contiguous(self._tensors()), part, metadata={"state": state})
        except (OSError, SafetensorError) as error:
            why = first_line(error)
            raise ValueError(
                f"{self.output.parent}: step {step} cannot be written, the state before it is kept: {why}."
            ) from None

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"average.{name}": value for name, value in self.ema_model.state_dict().items()}
        for whose, (network, optimizer) in self._learning.items():
            tensors |= {f"{whose}model.{name}": value for name, value in network.state_dict().items()}
            for name, parameter in network.named_parameters():
                state = optimizer.state[parameter]
                tensors[f"{whose}first.{name}"], tensors[f"{whose}second.{name}"] = (
                    state["exp_avg"],
                    state["exp_avg_sq"],
                )
        return tensors


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in tensors.items()}


def _deciding(config: TrainingConfig) -> dict:
    """The settings that decide the result; a run may go on on another device."""
    return asdict(replace(config, device=""))


def _revision() -> str:
    """The git revision of the library's folder, or "" where it is no checkout."""
    if not CHECKOUT:  # or else it would be that of a repository around the installed package
        return ""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip()

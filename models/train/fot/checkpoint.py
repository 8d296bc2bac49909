"""Checkpoints small enough to keep in a repository: bf16 weights, AdamW's two moments in 8 bits (4 bytes a parameter in all).

Saving puts the rounded state back into the running model, so a run that saves and goes on equals one that is resumed from the file.
"""
import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

BLOCK = 64


def quantise(x: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """x -> integers of -levels..levels and a scale for every 64 of them: ([n], [n / 64 rounded up]). Non-zero stays non-zero."""
    flat = torch.nn.functional.pad(x.flatten(), (0, -x.numel() % BLOCK)).view(-1, BLOCK)
    scale = flat.abs().amax(1, keepdim=True).clamp_min(1e-30) / levels
    steps = (flat / scale).round()
    steps = torch.where((steps == 0) & (flat > 0) & (levels > 127), torch.ones_like(steps), steps)
    return steps.flatten()[:x.numel()].to(torch.uint8 if levels > 127 else torch.int8), scale.flatten()


def dequantise(steps: Tensor, scale: Tensor, shape: torch.Size) -> Tensor:
    return (steps.float() * scale.repeat_interleave(BLOCK)[:steps.numel()]).view(shape)


def write_tensors(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file, whole or not at all, that those may read who may read other new files."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.touch()
    permissions = partial.stat().st_mode
    save_file(tensors, partial, metadata=metadata)               # which leaves a file for its owner alone
    partial.chmod(permissions)
    os.replace(partial, file)


def save(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Writes the state before `step` and rounds the live state to what was written."""
    tensors = {}
    for name, weight in model.named_parameters():
        tensors[name] = weight.detach().to(torch.bfloat16).cpu()
        state = optimizer.state.get(weight)
        if state:
            tensors[f"{name}/m"], tensors[f"{name}/m_scale"] = quantise(state["exp_avg"].cpu(), 127)
            tensors[f"{name}/v"], tensors[f"{name}/v_scale"] = quantise(state["exp_avg_sq"].sqrt().cpu(), 255)
    write_tensors(file, tensors, {"step": str(step)})
    load(file, model, optimizer)


@torch.no_grad()
def load(file: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restores model and optimizer; returns the step to go on with."""
    with safe_open(file, "pt") as stored:
        step, names = int(stored.metadata()["step"]), set(stored.keys())
        for name, weight in model.named_parameters():
            weight.copy_(stored.get_tensor(name))
            if f"{name}/m" not in names:
                continue
            m = dequantise(stored.get_tensor(f"{name}/m"), stored.get_tensor(f"{name}/m_scale"), weight.shape)
            v = dequantise(stored.get_tensor(f"{name}/v"), stored.get_tensor(f"{name}/v_scale"), weight.shape)
            state = optimizer.state[weight]
            state["step"] = torch.tensor(float(step))
            state["exp_avg"], state["exp_avg_sq"] = m.to(weight.device), v.square().to(weight.device)
    return step

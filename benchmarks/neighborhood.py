"""Neighbourhood attention against a gather of each query's neighbours: time and peak memory, forward and backward.

    python benchmarks/neighborhood.py

On the maps of NAT-mini: head size 32, kernel 7, dilations 1, 2, 4 and 8. Both compute the same, which is checked
first; they are timed in turn, A B A B, and the medians compared. A machine's times drift: only the ratios count. Each
peak is measured in a process of its own, above what it held before. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from bbframe.fast import convert
from bbframe.layers.neighborhood import TiledAttention, neighborhoods

MAPS = ((56, 2), (28, 4), (14, 8), (7, 16))  # side, heads
DILATIONS = (1, 2, 4, 8)
KERNEL, HEAD = 7, 32


def tiled(qkv: Tensor, rpb: Tensor, blank: Tensor, dilation: int) -> Tensor:
    """Ours."""
    around = neighborhoods(qkv.shape[1], qkv.shape[2], KERNEL, dilation, qkv.device)
    return convert(TiledAttention(dilation))(qkv, rpb, blank, *around)


def gathered(qkv: Tensor, rpb: Tensor, blank: Tensor, dilation: int) -> Tensor:
    """A copy of its 49 keys and values for each query.

    Of the ways to make it (advanced indexing, index_select, gather, embedding, unfold) that by embedding is the
    fastest forward, and none is faster backward.
    """
    B, H, W, _, heads, D = qkv.shape
    least = KERNEL * dilation
    (rows, row_offsets), (columns, column_offsets) = (window(max(side, least), dilation) for side in (H, W))
    rows, row_offsets, columns, column_offsets = rows[:H], row_offsets[:H], columns[:W], column_offsets[:W]
    height, width = max(H, least), max(W, least)
    neighbours = (rows[:, None, :, None] * width + columns[None, :, None, :]).reshape(H * W, -1)
    offsets = (row_offsets[:, None, :, None] * (2 * KERNEL - 1) + column_offsets[None, :, None, :]).reshape(H * W, -1)
    if height > H or width > W:
        filled = F.pad(blank, (0, 0, 0, 0, 1, 0)).expand(B, height, width, 3, heads, D).clone()
        filled[:, :H, :W] = qkv
        qkv = filled
    q, k, v = qkv.permute(3, 0, 4, 1, 2, 5)
    q = q[:, :, :H, :W].reshape(B, heads, H * W, D)
    index = torch.arange(B * heads)[:, None, None] * (height * width) + neighbours
    k, v = (F.embedding(index, x.reshape(-1, D)).unflatten(0, (B, heads)) for x in (k, v))
    scores = torch.einsum("bhnd,bhnmd->bhnm", q * D**-0.5, k) + rpb.flatten(1)[:, offsets]
    x = torch.einsum("bhnm,bhnmd->bhnd", scores.softmax(-1), v)
    return x.view(B, heads, H, W, D).permute(0, 2, 3, 1, 4)


def window(side: int, dilation: int) -> tuple[Tensor, Tensor]:
    """The neighbours of each place along a side, and their offsets as the table of biases counts them."""
    place = torch.arange(side)
    group, index = place % dilation, place // dilation
    length = (side - group + dilation - 1) // dilation
    first = torch.minimum((index - KERNEL // 2).clamp(min=0), length - KERNEL)
    key = first[:, None] + torch.arange(KERNEL)
    return key * dilation + group[:, None], key - index[:, None] + KERNEL - 1


METHODS: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {"gathered": gathered, "tiled": tiled}


def inputs(side: int, heads: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shapes = (batch, side, side, 3, heads, HEAD), (heads, 2 * KERNEL - 1, 2 * KERNEL - 1), (2, heads, HEAD)
    qkv, rpb, blank = (torch.randn(shape, requires_grad=True) for shape in shapes)
    return qkv, rpb, blank


def forward(method: str, given: tuple[Tensor, Tensor, Tensor], dilation: int) -> Tensor:
    with torch.no_grad():
        return METHODS[method](*given, dilation)


def train(method: str, given: tuple[Tensor, Tensor, Tensor], dilation: int) -> tuple[Tensor, ...]:
    """Forward and backward: the result and its gradients."""
    x = METHODS[method](*given, dilation)
    return (x, *torch.autograd.grad(x, given, torch.ones_like(x), materialize_grads=True))


PASSES: dict[str, Callable[..., object]] = {"forward": forward, "train": train}


def check(given: tuple[Tensor, Tensor, Tensor], dilation: int) -> None:
    for a, b in zip(*(train(method, given, dilation) for method in METHODS), strict=True):
        assert (a - b).abs().max() <= 1e-4 * b.abs().max().clamp(min=1.0), (a - b).abs().max()


def times(
    run: Callable[..., object], given: tuple[Tensor, Tensor, Tensor], dilation: int, repeats: int
) -> list[float]:
    """Seconds of each method: medians of runs in turn."""
    taken: dict[str, list[float]] = {method: [] for method in METHODS}
    for turn in range(repeats + 1):
        for method in METHODS:
            start = time.perf_counter()
            run(method, given, dilation)
            if turn:  # the first warms up
                taken[method].append(time.perf_counter() - start)
    return [statistics.median(of) for of in taken.values()]


def peak(method: str, name: str, side: int, heads: int, dilation: int, batch: int, threads: int) -> float:
    """MiB that one pass takes at its peak, measured in another process."""
    code = (
        f"import neighborhood as n\nn.torch.set_num_threads({threads})\n"
        f"n.PASSES['train']('{method}', n.inputs(7, 1, 1), 1)\n"  # loads what the first call loads
        f"given = n.inputs({side}, {heads}, {batch})\nbefore = n.held()\n"
        f"n.PASSES['{name}']('{method}', given, {dilation})\nprint(n.held() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=sys.path[0])
    return int(done.stdout) / 1024


def held() -> int:
    """The most that this process has held, in KiB; Linux alone tells."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        f"torch {torch.__version__}, {options.threads} threads, batch {options.batch}, medians of {options.repeats}\n"
    )
    head = "| map | heads | dilation | forward, ms | ratio | with backward, ms | ratio | peak forward, MiB | ratio |"
    print(f"{head} peak with backward, MiB | ratio |\n|{'---|' * 11}")
    for side, heads in MAPS:
        given = inputs(side, heads, options.batch)
        for dilation in DILATIONS:
            check(given, dilation)
            cells = [f"{side}x{side}", str(heads), str(dilation)]
            for run in PASSES.values():
                theirs, ours = (1e3 * t for t in times(run, given, dilation, options.repeats))
                cells += [f"{theirs:.1f} / {ours:.1f}", f"{theirs / ours:.1f}"]
            for name in PASSES:
                theirs, ours = (
                    peak(method, name, side, heads, dilation, options.batch, options.threads) for method in METHODS
                )
                cells += [f"{theirs:.0f} / {ours:.0f}", f"{theirs / max(ours, 1 / 16):.1f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

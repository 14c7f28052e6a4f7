"""The picture of the search for a learning rate: the loss of each step against its rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from bbframe.report.chart_style import BLUE, GREY, RED, chart_style, save_picture


@chart_style()
def learning_rate_chart(
    rates: Sequence[float], losses: Sequence[float], smooth: Sequence[float], chosen: float | None, out: Path
) -> None:
    """Draw losses and their running means over the learning rate, and mark the chosen rate where there is one."""
    figure = Figure(figsize=(5.6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color=GREY, linewidth=0.8, label="a step")
    axes.plot(rates, smooth, color=BLUE, label="mean of neighbours")
    finite = np.asarray([value for value in smooth if np.isfinite(value)])
    if len(finite):
        low, high = finite.min(), min(finite.max(), 2 * finite[0])
        axes.set_ylim(low - 0.1 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9)
    if chosen is not None:
        axes.axvline(chosen, color=RED, linestyle=":", label=f"chosen: {chosen:g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="learning rate (optim.lr)", ylabel="training loss")
    axes.legend(loc="best")
    axes.grid(True, which="major")
    figure.suptitle("Search for the learning rate")
    save_picture(figure, out)

#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Draws what bench/report.py collected.

usage: bench/plot.py BENCH.json DIRECTORY

Makes DIRECTORY/{hit,driver,reuse,scenarios,mpi}.{svg,png}, each if it was
measured.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402

sys.dont_write_bytecode = True
import mpi_report  # noqa: E402

OURS, OTHER, THIRD = "#1b6ca8", "#c8553d", "#8a8a8a"
STYLE = {
    "figure.dpi": 110,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "legend.frameon": False,
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "svg.hashsalt": "mrcache",
}


def median(series, name):
    return series[name]["median"]


def spread(series, name):
    samples = series[name]["samples"]
    n = len(samples)
    return samples[n // 4], samples[-1 - n // 4]


def errors(series, names):
    """Distances of the middle half from the median, for error bars."""
    low = [median(series, n) - spread(series, n)[0] for n in names]
    high = [spread(series, n)[1] - median(series, n) for n in names]
    return [low, high]


def short(value):
    return f"{value:.1f}" if value < 20 else f"{value:.0f}"


def bytes_name(n):
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            break
        n //= 1024
    return f"{n} {unit}"


# --- hit -----------------------------------------------------------------------

HIT_CASES = [
    ("1", "1 region"),
    ("256", "256 regions"),
    ("65536", "65 536 regions, random"),
    ("1048576", "1 048 576 regions, random"),
    ("own-1", "2 threads, a region each"),
    ("own-256", "2 threads, 256 regions each"),
    ("same-1", "2 threads, the same region"),
    ("same-256", "2 threads, the same 256 regions"),
    ("unmap", "256, another thread unmaps"),
    ("unmap-watched", "256, other watches are hit"),
    ("within", "sub-range, 256 places"),
    ("within-many", "sub-range, 65 536 places"),
]


def draw_hit(series, about):
    cases = [c for c in HIT_CASES if f"hit/{c[0]}/mrcache" in series]
    fig, ax = plt.subplots(figsize=(9, 6.4))
    for side, colour, label, shift in (
            ("mrcache", OURS, "mrcache", -0.2),
            ("ucx", OTHER, "UCX registration cache (Debian)", 0.2)):
        at = [(i + shift, f"hit/{c[0]}/{side}") for i, c in enumerate(cases)
              if f"hit/{c[0]}/{side}" in series]
        if not at:
            continue
        places, names = zip(*at)
        values = [median(series, n) for n in names]
        ax.barh(places, values, height=0.38, color=colour, label=label,
                xerr=errors(series, names),
                error_kw={"ecolor": "#333333", "elinewidth": 1, "capsize": 2})
        for place, value, name in zip(places, values, names):
            ax.text(max(value, spread(series, name)[1]) * 1.06, place,
                    short(value), va="center", fontsize=8.5)
    ax.set_xscale("log")
    ax.set_xlim(left=1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.set_yticks(range(len(cases)), [c[1] for c in cases])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("nanoseconds for one get and put (log scale); "
                  "bars: median, whiskers: middle half")
    ax.set_title("A hit in the cache", loc="left")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncol=2)
    fig.text(0.01, 0.005, about, fontsize=7.5, color="#666666")
    return fig


# --- driver ----------------------------------------------------------------------


def draw_driver(series, about):
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2))
    counts = [0, 1, 1000, 100000, 1000000]
    base = median(series, "driver/munmap/no-device")
    values = [median(series, f"driver/munmap/{n}") / base for n in counts]
    left.bar(range(len(counts)), values, color=OURS, width=0.6)
    for i, value in enumerate(values):
        left.text(i, value + 0.015, f"{value:.2f}", ha="center", fontsize=9)
    left.axhline(1, color=OTHER, linewidth=1.2)
    left.text(len(counts) - 0.5, 1.17, "line: device not open", color=OTHER,
              ha="right", fontsize=9)
    left.set_xticks(range(len(counts)), ["0", "1", "$10^3$", "$10^5$", "$10^6$"])
    left.set_xlabel("watches in the process")
    left.set_ylabel("time, relative")
    left.set_ylim(0, max(1.25, *values) * 1.08)
    left.grid(axis="x", visible=False)
    left.set_title("munmap of memory nobody watches", loc="left")

    ks = [10**n for n in range(6)]
    for kind, colour, label in (("munmap", OURS, "munmap that hits k watches"),
                                ("drain", OTHER, "reading their events")):
        times = [median(series, f"driver/hit/{k}/{kind}") / 1e3 for k in ks]
        right.plot(ks, times, "o-", color=colour, label=label, markersize=5)
    end = median(series, "driver/hit/100000/drain") / 1e3
    right.plot([100, 100000], [end / 1000, end], ":", color=THIRD,
               label="proportional to k")
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("k, of $10^5$ watches")
    right.set_ylabel("microseconds")
    right.legend(loc="upper left")
    right.set_title("One munmap that hits many", loc="left")
    fig.text(0.01, 0.005, about, fontsize=7.5, color="#666666")
    return fig


# --- reuse -----------------------------------------------------------------------


def draw_reuse(series, about):
    sizes = sorted(int(n.split("/")[1]) for n in series
                   if n.startswith("reuse/") and n.endswith("/none"))
    places = range(len(sizes))
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.4))
    for way, colour, label in (("none", OTHER, "registered each time"),
                               ("naive", THIRD, "naive cache (unsafe)"),
                               ("mrcache", OURS, "mrcache")):
        names = [f"reuse/{n}/{way}" for n in sizes]
        left.plot(places, [median(series, n + "/registering") / 1e3
                           for n in names],
                  "o-", color=colour, label=label, markersize=5)
        right.plot(places, [1 if way == "naive"
                            else median(series, n + "/against-naive")
                            for n in names],
                   "o-", color=colour, label=label, markersize=5)
    left.set_yscale("log")
    left.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    left.set_ylabel("microseconds (log scale)")
    left.set_title("Registering alone", loc="left")
    left.legend(loc="upper left")
    right.set_ylabel("relative to the naive cache")
    right.set_ylim(bottom=0)
    right.set_title("Registering and transferring", loc="left")
    for ax in (left, right):
        ax.set_xticks(places, [bytes_name(n) for n in sizes], rotation=35,
                      ha="right")
    fig.text(0.01, 0.005, about, fontsize=7.5, color="#666666")
    return fig


def draw_scenarios(series, about):
    kept = [n.split("/")[1] for n in series
            if n.startswith("scenario/") and n.endswith("/kept")
            and median(series, n)]
    fig, ax = plt.subplots(figsize=(8, 0.27 * len(kept) + 1.5))
    for way, colour, label, shift in (
            ("none", OTHER, "registered each time", 0.2),
            ("mrcache", OURS, "mrcache", -0.2)):
        ax.barh([i + shift for i in range(len(kept))],
                [median(series, f"scenario/{c}/{way}/registering") / 1e3
                 for c in kept], height=0.38, color=colour, label=label)
    ax.set_xscale("log")
    ax.set_xlim(left=1)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.set_yticks(range(len(kept)), kept, fontsize=8.5)
    ax.set_ylim(len(kept) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("microseconds for registering 64 KiB (log scale)")
    ax.set_title("After what leaves the pages in place", loc="left")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncol=2)
    fig.text(0.01, 0.005, about, fontsize=7.5, color="#666666")
    return fig


# --- mpi --------------------------------------------------------------------------

MPI_WAYS = (("off", THIRD, "own cache off", 0.25),
            ("mrcache", OTHER, "mrcache below a cache that is off", 0),
            ("guard", OURS, "guard", -0.25))


def draw_mpi(series, about):
    """A row for each memory and size, a point for each pattern."""
    stacks = {key: name for key, name in mpi_report.STACKS.items()
              if any(n.startswith(f"mpi/{key}/") for n in series)}
    fig, axes = plt.subplots(1, len(stacks), figsize=(3.6 * len(stacks) + 1.6, 5.4),
                             sharey=True, squeeze=False)
    for ax, (key, name) in zip(axes[0], stacks.items()):
        rows = {}
        for cell in mpi_report.Cells(series).of(key):
            _, _, _, memory, size = cell.split("/")
            rows.setdefault((memory, int(size)), []).append(cell)
        for way, colour, label, shift in MPI_WAYS:
            places = [i + shift for i, cells in enumerate(rows.values()) for _ in cells]
            values = [median(series, mpi_report.against(cell, way))
                      for cells in rows.values() for cell in cells]
            ax.plot(values, places, "o", color=colour, label=label, markersize=4,
                    alpha=0.75, markeredgewidth=0)
        ax.axvline(1, color="#333333", linewidth=1)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.xaxis.set_minor_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.tick_params(axis="x", which="both", labelsize=8)
        ax.set_yticks(range(len(rows)), [f"{memory}, {bytes_name(size)}"
                                         for memory, size in rows])
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.set_title(name, loc="left")
    fig.legend(*axes[0][0].get_legend_handles_labels(), loc="lower left",
               bbox_to_anchor=(0.01, 0.015), ncol=3, fontsize=8)
    fig.supxlabel("instructions against the stock stack (log scale); "
                  "a point for each pattern", fontsize=9, y=0.075)
    fig.text(0.01, 0.005, about, fontsize=7.5, color="#666666")
    return fig


# --- all --------------------------------------------------------------------------

# What a drawing needs, and of which benchmark it is.
DRAWINGS = {
    "hit": (draw_hit, "hit/1/mrcache", "hit"),
    "driver": (draw_driver, "driver/munmap/no-device", "driver"),
    "reuse": (draw_reuse, "reuse/4096/none", "reuse"),
    "scenarios": (draw_scenarios, "scenario/mlock/kept", "reuse"),
    "mpi": (draw_mpi, None, "mpi-instructions"),
}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    data = json.loads(Path(sys.argv[1]).read_text())
    series, machine = data["series"], data["machine"]
    for name, (draw, needed, bench) in DRAWINGS.items():
        if bench not in machine["kernels"] or (needed and needed not in series):
            continue
        about = f"{machine['cpu']}, {machine['cpus']} CPUs"
        if bench == "mpi-instructions":
            about = (f"Linux {machine['kernels'][bench]} guest of one processor, "
                     "instructions counted by QEMU")
        elif bench != "hit":
            about += (f"; Linux {machine['kernels'][bench]} guest, emulated "
                      "(TCG): only ratios mean anything"
                      if machine["guest"] == "tcg" else
                      f"; Linux {machine['kernels'][bench]} guest")
        if data["quick"]:
            about += "; a quick run, not for comparing"
        with plt.rc_context(STYLE):
            fig = draw(series, about)
            fig.tight_layout(rect=(0, 0.055 if name == "mpi" else 0.02, 1, 1))
            for kind in ("svg", "png"):
                fig.savefig(Path(sys.argv[2], f"{name}.{kind}"))
            plt.close(fig)


main()

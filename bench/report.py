#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Makes goals and tables of what the benchmarks measured.

usage: bench/report.py DIRECTORY OUTPUT.json

DIRECTORY has NAME.json of each benchmark that was run; what was not run is
left out.  Prints text tables and each goal with its figure, and writes all of
it to OUTPUT.json.
"""

import json
import math
import platform
import sys
from pathlib import Path

sys.dont_write_bytecode = True
import mpi_report  # noqa: E402

SIZES = [4096 * 4**n for n in range(7)]
REMAPPED = [4096, 65536, 1048576]


class Missing(Exception):
    """A figure needs a series that was not measured."""


class Samples:
    def __init__(self):
        self.series = {}
        self.skipped = {}
        self.quick = False
        self.kernels = {}

    def read(self, path):
        data = json.loads(path.read_text())
        # Of a guest whose clock counts instructions.
        prefix = "instructions/" if path.stem.endswith("-icount") else ""
        for name, series in data["series"].items():
            self.series[prefix + name] = series
        self.skipped.update(data["skipped"])
        self.quick |= data["quick"]
        self.kernels[path.stem] = data["kernel"]

    def __getitem__(self, name):
        if name not in self.series:
            raise Missing(name)
        return self.series[name]["median"]

    def ratio(self, name, other):
        return self[name] / self[other]

    def interval(self, how):
        """Where a figure can be if one series is at one of its quartiles."""
        used = Used(self)
        values = [how(used)]
        for name in used.names:
            for quartile in self.spread(name):
                values.append(how(Moved(self, name, quartile)))
        return min(values), max(values)

    def spread(self, name):
        """The middle half of the samples."""
        samples = self.series[name]["samples"]
        n = len(samples)
        return samples[n // 4], samples[-1 - n // 4]


class Used(Samples):
    """Remembers what a figure is made of."""

    def __init__(self, samples):
        super().__init__()
        self.series = samples.series
        self.names = []

    def __getitem__(self, name):
        if name not in self.names:
            self.names.append(name)
        return super().__getitem__(name)


class Moved(Samples):
    """One series has another median."""

    def __init__(self, samples, name, median):
        super().__init__()
        self.series = samples.series | {
            name: samples.series[name] | {"median": median}}


class Counted(Samples):
    """Instructions instead of times, where a benchmark counted them."""

    def __init__(self, samples):
        super().__init__()
        prefix = "instructions/"
        self.series = {name[len(prefix):]: series
                       for name, series in samples.series.items()
                       if name.startswith(prefix)}


# --- goals -------------------------------------------------------------------


def growth(s, kind):
    """What one of many costs with 100000 hit, against 1000 hit."""
    one = s[f"driver/hit/1/{kind}"]
    many = (s[f"driver/hit/100000/{kind}"] - one) / 99999
    few = (s[f"driver/hit/1000/{kind}"] - one) / 999
    return many / few


def user_and_kernel(s):
    user = max(s[f"memory/user/{n}/resident"] for n in (1000, 65536, 1000000))
    return user + s["memory/kernel/100000"]


def each_of(s, kind, k):
    """us for one of k, beyond what the call itself takes."""
    one = s[f"driver/hit/1/{kind}"]
    return number((s[f"driver/hit/{k}/{kind}"] - one) / (k - 1) / 1000)


def growth_reason(kind):
    return lambda s: (f"each of 10^3 takes {each_of(s, kind, 1000)} us, of 10^4 "
                      f"{each_of(s, kind, 10000)}, of 10^5 "
                      f"{each_of(s, kind, 100000)}, as ever less of them fits a cache")


def many_reason(s):
    return (f"{number(s['hit/256/mrcache'])} ns for 256 regions, and "
            f"{number(s['hit/within-many/mrcache'])} for 65536 places in 256: "
            "it is the number of registrations")


def worst(s, pairs):
    return max(s.ratio(a, b) for a, b in pairs)


# What is judged by instructions where they were counted, and its time shown.
COUNTED = ("driver: ", "cycle: ")


# name, unit ("x" is a ratio), at most, how; and what was measured of the reason
# if it is short
GOALS = [
    ("hit, 1 region, against UCX", "x", 0.15,
     lambda s: s.ratio("hit/1/mrcache", "hit/1/ucx")),
    ("hit, 256 regions, against UCX", "x", 0.15,
     lambda s: s.ratio("hit/256/mrcache", "hit/256/ucx")),
    ("hit, 65536 regions at random, against UCX", "x", 0.6,
     lambda s: s.ratio("hit/65536/mrcache", "hit/65536/ucx"), many_reason),
    ("hit, 1048576 regions at random, against UCX", "x", 0.6,
     lambda s: s.ratio("hit/1048576/mrcache", "hit/1048576/ucx"), many_reason),
    ("hit, 2 threads, own regions, against 1 thread", "x", 1.3,
     lambda s: worst(s, [("hit/own-1/mrcache", "hit/1/mrcache"),
                         ("hit/own-256/mrcache", "hit/256/mrcache")])),
    ("hit, 2 threads, same regions, against 1 thread", "x", 1.3,
     lambda s: worst(s, [("hit/same-1/mrcache", "hit/1/mrcache"),
                         ("hit/same-256/mrcache", "hit/256/mrcache")])),
    ("hit, 2 threads, own regions, against UCX", "x", 0.3,
     lambda s: worst(s, [("hit/own-1/mrcache", "hit/own-1/ucx"),
                         ("hit/own-256/mrcache", "hit/own-256/ucx")])),
    ("hit, 2 threads, same regions, against UCX", "x", 0.3,
     lambda s: worst(s, [("hit/same-1/mrcache", "hit/same-1/ucx"),
                         ("hit/same-256/mrcache", "hit/same-256/ucx")])),
    ("hit while another thread unmaps, against quiet", "x", 2,
     lambda s: worst(s, [("hit/unmap/mrcache", "hit/256/mrcache"),
                         ("hit/unmap-watched/mrcache", "hit/256/mrcache")])),
    ("mrcache_valid()", "ns", 2, lambda s: s["hit/valid/mrcache"]),
    ("sub-range hit, against UCX", "x", 0.5,
     lambda s: worst(s, [("hit/within/mrcache", "hit/within/ucx"),
                         ("hit/within-many/mrcache", "hit/within-many/ucx")])),
    ("256 threads, giving back another's, against one's own", "x", 2,
     lambda s: s.ratio("hit/give-back-others/mrcache",
                       "hit/give-back-own/mrcache"),
     lambda s: f"{number(s['hit/give-back-others/mrcache'])} ns: the index, the "
     "count of who took it and its own are in other processors' caches"),
    ("memory for a registration, user and kernel", "B", 512, user_and_kernel),
    ("driver: watch + unwatch, share of ibv_reg_mr + ibv_dereg_mr", "x", 0.03,
     lambda s: s.ratio("driver/watch", "driver/registration"),
     lambda s: "two calls that do nothing take "
     + number(s.ratio("driver/two-empty-calls", "driver/registration"))
     + ", the rest "
     + number(s.ratio("driver/watch-beyond-empty-calls", "driver/registration"))),
    ("driver: arming anew, share of ibv_reg_mr + ibv_dereg_mr", "x", 0.03,
     lambda s: s.ratio("driver/arm", "driver/registration"),
     lambda s: "one call that does nothing takes "
     + number(s.ratio("driver/two-empty-calls", "driver/registration") / 2)),
    ("driver: the same, each of 64 in one call", "x", 0.03,
     lambda s: s.ratio("driver/arm-many/64", "driver/registration")),
    ("driver: munmap in a process with an idle cache, against no device", "x", 1.02,
     lambda s: s.ratio("driver/munmap/0", "driver/munmap/no-device")),
    ("driver: the same while another thread does so, too", "x", 1.02,
     lambda s: s.ratio("driver/munmap-two/0", "driver/munmap-two/no-device")),
    ("driver: munmap beside 1 to 10^6 watches, against no device", "x", 1.1,
     lambda s: worst(s, [(f"driver/munmap/{n}", "driver/munmap/no-device")
                         for n in (1, 1000, 100000, 1000000)])),
    ("driver: munmap that hits k, each of 10^5 against each of 10^3", "x", 2,
     lambda s: growth(s, "munmap"), growth_reason("munmap")),
    ("driver: drain of k events, each of 10^5 against each of 10^3", "x", 2,
     lambda s: growth(s, "drain"), growth_reason("drain")),
    ("cycle: remap, register, transfer, 4 KiB, against no cache", "x", 1.03,
     lambda s: s["cycle/4096/mrcache/against-none"]),
    ("cycle: the same, 64 KiB and 1 MiB", "x", 1.01,
     lambda s: max(s[f"cycle/{n}/mrcache/against-none"] for n in REMAPPED[1:])),
    ("cycle: with a reaper, as under the shim, 4 KiB", "x", 1.03,
     lambda s: s["cycle/4096/reaped/against-none"]),
    ("cycle: the same, 64 KiB and 1 MiB", "x", 1.01,
     lambda s: max(s[f"cycle/{n}/reaped/against-none"] for n in REMAPPED[1:])),
    ("cycle: at the limit with all held, 4 KiB", "x", 1.1,
     lambda s: s["limit/4096/full/against-none"]),
    ("reuse, 4 KiB to 16 MiB, against the naive cache", "x", 1.03,
     lambda s: max(s[f"reuse/{n}/mrcache/against-naive"] for n in SIZES)),
    ("hits beside an allocator that purges, none against verified", "x", 1.05,
     lambda s: worst(s, [(f"purge/{a}/calm", f"purge/{a}/verified")
                         for a in ("glibc", "jemalloc", "tcmalloc")])),
]


def verdict(low, high, most):
    return "ok" if high <= most else "short" if low > most else "unclear"


def judge(s):
    goals = []
    counted = Counted(s)
    for name, unit, most, how, *why in GOALS:
        by = counted if name.startswith(COUNTED) else s
        try:
            try:
                value = how(by)
            except Missing:
                by = s
                value = how(by)
            low, high = by.interval(how)
        except Missing as missing:
            if missing.args[0].endswith("/ucx") and "ucx" in s.skipped:
                goals.append({"name": name, "goal": most, "unit": unit,
                              "value": None, "ok": False,
                              "why": s.skipped["ucx"]})
            continue
        goal = {"name": name, "goal": most, "unit": unit,
                "value": round(value, 4), "low": round(low, 4),
                "high": round(high, 4), "verdict": verdict(low, high, most)}
        goal["ok"] = goal["verdict"] == "ok"
        if by is counted:
            goal["by"] = "instructions"
            try:
                goal["time"] = round(how(s), 4)
            except Missing:
                pass
        if why and not goal["ok"]:
            goal["why"] = why[0](by)
        goals.append(goal)
    return goals + mpi_report.goals(s)


# --- tables ------------------------------------------------------------------


def number(value):
    """Three digits, whatever the size."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def table(title, heads, rows):
    widths = [max(len(str(row[i])) for row in [heads, *rows])
              for i in range(len(heads))]
    lines = [title]
    for row in [heads, *rows]:
        cells = [str(row[0]).ljust(widths[0])]
        cells += [str(c).rjust(w) for c, w in zip(row[1:], widths[1:])]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def with_spread(s, name, scale=1.0):
    if name not in s.series:
        return "-", ""
    low, high = s.spread(name)
    return (number(s[name] / scale),
            f"{number(low / scale)}..{number(high / scale)}")


def cases(s, prefix):
    """The middle parts of PREFIX/.../WAY, in the order of measuring."""
    found = {}
    for name in s.series:
        parts = name.split("/")
        if parts[0] == prefix and len(parts) == 3:
            found[parts[1]] = None
    return list(found)


def hit_table(s):
    rows = []
    for case in cases(s, "hit"):
        ours, ucx = f"hit/{case}/mrcache", f"hit/{case}/ucx"
        ratio = number(s.ratio(ours, ucx)) if ucx in s.series else ""
        rows.append([case, *with_spread(s, ours), *with_spread(s, ucx), ratio])
    return table("A hit: ns for get and put together; the middle half of the turns",
                 ["", "mrcache", "", "UCX", "", "ratio"], rows)


def driver_table(s):
    rows = []
    for name in s.series:
        if name.startswith("driver/"):
            rows.append([name[7:], *with_spread(s, name, 1e3),
                         with_spread(s, f"instructions/{name}", 1e3)[0]])
    return table("The driver: us, and thousands of instructions",
                 ["", "median", "middle half", "instructions"], rows)


def transfer_table(s, prefix, title, base=None):
    """Whole operations; turn by turn against another way; registering alone."""
    ways = [way for way in ("none", "naive", "late", "mrcache", "odp")
            if any(name.startswith(f"{prefix}/") and name.endswith(f"/{way}")
                   for name in s.series)]
    compared = [way for way in ways if way != base] if base else []
    registering = [way for way in ways
                   if f"{prefix}/{cases(s, prefix)[0]}/{way}/registering"
                   in s.series]
    rows = []
    for case in cases(s, prefix):
        if f"{prefix}/{case}/none" not in s.series:
            continue
        row = [case]
        row += [number(s[f"{prefix}/{case}/{way}"] / 1e3) for way in ways]
        for way in compared:
            row += with_spread(s, f"{prefix}/{case}/{way}/against-{base}")
        row += [number(s[f"{prefix}/{case}/{way}/registering"] / 1e3)
                for way in registering]
        rows.append(row)
    heads = ["", *ways]
    for way in compared:
        heads += [f"{way}/{base}", ""]
    heads += [f"reg: {way}" for way in registering]
    return table(title, heads, rows)


def remap_table(s, prefix):
    """Where the time of a remapping goes."""
    parts = ["unmap", "fill", "get", "send", "put"]
    rows = [[f"{case} {way}",
             *(number(s[f"{prefix}/{case}/{way}/{part}"] / 1e3)
               for part in parts)]
            for case in cases(s, prefix) for way in ("none", "late", "mrcache", "odp")
            if f"{prefix}/{case}/{way}" in s.series]
    return table("Its parts: us, by bytes and way", ["", *parts], rows)


def transfer_tables(s, prefix, where):
    made = []
    if cases(s, prefix + "reuse"):
        made.append(transfer_table(
            s, prefix + "reuse",
            f"The same memory again{where}: us for an operation, by bytes",
            "naive"))
    if cases(s, prefix + "remap"):
        made.append(transfer_table(
            s, prefix + "remap",
            f"New memory at the same address{where}: us, by bytes", "none"))
        made.append(remap_table(s, prefix + "remap"))
    return made


def fabric_table(s):
    """Times, and how often memory was registered and the wrong one reached."""
    ways = ["none", "mrcache", "libfabric", "libfabric-uffd"]
    rows = []
    for case in cases(s, "fabric"):
        names = [f"fabric/{case}/{way}" for way in ways]
        row = [case]
        for n in names:
            row.append(number(s[n] / 1e3))
        for kind in ("registered", "wrong"):
            row.append("/".join(f"{s[f'{n}/{kind}']:g}" for n in names)
                       if f"{names[0]}/{kind}" in s.series else "")
        rows.append(row)
    return table("libfabric's cache: us for one use; how often each of the four "
                 "registered memory, and reached the wrong one",
                 ["", *ways, "registered", "wrong"], rows)


def purge_table(s):
    ways = ["calm", "unverified", "verified"]
    rows = [[a, *(f"{s[f'purge/{a}/{way}']:.3f}" for way in ways)]
            for a in cases(s, "purge")]
    return table("Beside an allocator that purges: hits of all uses",
                 ["", *ways], rows)


def memory_table(s):
    rows = [[name[7:], f"{s[name]:.0f}"]
            for name in s.series if name.startswith("memory/")]
    return table("Memory for a registration: bytes", ["", ""], rows)


def tables(s):
    made = []
    if "hit/1/mrcache" in s.series:
        made.append(hit_table(s))
    if any(name.startswith("driver/") for name in s.series):
        made.append(driver_table(s))
    if any(name.startswith("memory/") for name in s.series):
        made.append(memory_table(s))
    made += transfer_tables(s, "", "")
    if cases(s, "scenario"):
        made.append(transfer_table(
            s, "scenario", "Scenarios, 64 KiB: us for one round"))
    if cases(s, "purge"):
        made.append(purge_table(s))
    made += transfer_tables(s, "odp-", f", Linux {s.kernels.get('odp')}")
    if cases(s, "fabric"):
        made.append(fabric_table(s))
    return made + mpi_report.tables(s, table, number)


def goal_lines(goals):
    lines = []
    for g in goals:
        unit = "" if g["unit"] == "x" else " " + g["unit"]
        if g["value"] is None:
            value, verdict = "-", f"skipped: {g['why']}"
        else:
            value = number(g["value"]) + unit
            verdict = g.get("verdict", "ok" if g["ok"] else "short")
            if verdict == "unclear" and "low" in g:
                verdict += f", {number(g['low'])} to {number(g['high'])}"
            if "time" in g:
                verdict += f", in time {number(g['time'])}{unit}"
            if "why" in g:
                verdict += f": {g['why']}"
        limit = f"<= {g['goal']:g}{unit}"
        lines.append(f"{g['name']:<62} {limit:>9} {value:>9}  {verdict}")
    return lines


# --- the whole -----------------------------------------------------------------


def machine():
    model = platform.machine()
    cpus = 0
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
            cpus += 1
    accelerator = Path(__file__).parent.parent / "build/guest/accel"
    guest = accelerator.read_text().strip() if accelerator.exists() else None
    return {"cpu": model, "cpus": cpus, "guest": guest}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    s = Samples()
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        s.read(path)
    if not s.series:
        sys.exit("report: nothing was measured")
    about = machine() | {"kernels": s.kernels}
    goals = judge(s)
    text = "\n".join(tables(s))
    Path(sys.argv[1], "tables.txt").write_text(text)
    print(text)
    for name, why in s.skipped.items():
        print(f"skipped: {name}: {why}")
    kernels = ", ".join(f"{k} on {v}" for k, v in s.kernels.items())
    print(f"\n{about['cpu']}, {about['cpus']} CPUs, guest by {about['guest']}; "
          f"{kernels}{'; QUICK: not for comparing' if s.quick else ''}\n")
    print("\n".join(goal_lines(goals)))
    Path(sys.argv[2]).write_text(json.dumps(
        {"machine": about, "quick": s.quick, "goals": goals,
         "skipped": s.skipped, "series": s.series}, indent=1) + "\n")


main()

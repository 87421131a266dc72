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
        self.series.update(data["series"])
        self.skipped.update(data["skipped"])
        self.quick |= data["quick"]
        self.kernels[path.stem] = data["kernel"]

    def __getitem__(self, name):
        if name not in self.series:
            raise Missing(name)
        return self.series[name]["median"]

    def ratio(self, name, other):
        return self[name] / self[other]

    def spread(self, name):
        """The middle half of the samples."""
        samples = self.series[name]["samples"]
        n = len(samples)
        return samples[n // 4], samples[-1 - n // 4]


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


def remap_reason(s):
    n = max(REMAPPED, key=lambda n: s[f"remap/{n}/mrcache/against-none"])
    late = s[f"remap/{n}/late/against-none"]
    return (f"at {n} bytes, where deregistering as late without a cache takes "
            f"{number(late)}")


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
    ("memory for a registration, user and kernel", "B", 512, user_and_kernel),
    ("driver: watch + unwatch, share of ibv_reg_mr + ibv_dereg_mr", "x", 0.03,
     lambda s: s.ratio("driver/watch", "driver/registration"),
     lambda s: "two calls that do nothing take "
     + number(s.ratio("driver/two-empty-calls", "driver/registration"))
     + ", the rest "
     + number(s.ratio("driver/watch-beyond-empty-calls", "driver/registration"))),
    ("driver: munmap beside 1 to 10^6 watches, against no device", "x", 1.1,
     lambda s: worst(s, [(f"driver/munmap/{n}", "driver/munmap/no-device")
                         for n in (1, 1000, 100000, 1000000)])),
    ("driver: munmap that hits k, each of 10^5 against each of 10^3", "x", 2,
     lambda s: growth(s, "munmap"), growth_reason("munmap")),
    ("driver: drain of k events, each of 10^5 against each of 10^3", "x", 2,
     lambda s: growth(s, "drain"), growth_reason("drain")),
    ("remap and transfer, against ibv_reg_mr each time", "x", 1.1,
     lambda s: max(s[f"remap/{n}/mrcache/against-none"] for n in REMAPPED),
     remap_reason),
    ("reuse, 4 KiB to 16 MiB, against the naive cache", "x", 1.03,
     lambda s: max(s[f"reuse/{n}/mrcache/against-naive"] for n in SIZES)),
]


def judge(s):
    goals = []
    for name, unit, most, how, *why in GOALS:
        try:
            value = how(s)
        except Missing as missing:
            if missing.args[0].endswith("/ucx") and "ucx" in s.skipped:
                goals.append({"name": name, "goal": most, "unit": unit,
                              "value": None, "ok": False,
                              "why": s.skipped["ucx"]})
            continue
        goals.append({"name": name, "goal": most, "unit": unit,
                      "value": round(value, 4), "ok": value <= most})
        if why and value > most:
            goals[-1]["why"] = why[0](s)
    return goals


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
            rows.append([name[7:], *with_spread(s, name, 1e3)])
    return table("The driver: us", ["", "median", "middle half"], rows)


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
    made += transfer_tables(s, "odp-", f", Linux {s.kernels.get('odp')}")
    if cases(s, "fabric"):
        made.append(fabric_table(s))
    return made


def goal_lines(goals):
    lines = []
    for g in goals:
        unit = "" if g["unit"] == "x" else " " + g["unit"]
        if g["value"] is None:
            value, verdict = "-", f"skipped: {g['why']}"
        else:
            value = number(g["value"]) + unit
            verdict = "ok" if g["ok"] else "short"
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

# SPDX-License-Identifier: BSD-2-Clause
"""Goals and tables of bench-mpi, for bench/report.py.

A cell is a stack, a pattern, a memory and a size. What is judged is its ratio
of instructions to those of the stock stack in the same turn: the median of the
turns, and "unclear" where their middle half has the goal inside.
"""

STACKS = {"ompi-ucx": "Open MPI over UCX", "mpich-ucx": "MPICH over UCX",
          "ompi-ofi": "Open MPI over libfabric"}
WAYS = ["off", "guard", "mrcache"]
SAME, CHANGED = ("one", "sixteen"), ("malloc", "mmap")

# way, memories, at most
GOALS = [("guard", SAME, 1.02), ("guard", CHANGED, 1.05),
         ("mrcache", SAME, 1.05), ("mrcache", CHANGED, 1.05)]
# System calls that say what was done, by their numbers on x86-64.
CALLS = {0: "read", 1: "write", 9: "mmap", 11: "munmap", 16: "ioctl", 28: "madvise",
         324: "membarrier"}
COUNTED = "/stock/instructions"
NAMES = {SAME: "memory as it is", CHANGED: "memory changed by libc"}


def bytes_name(n):
    return f"{n >> 20} MiB" if n >> 20 else f"{n >> 10} KiB"


class Cells:
    """The cells whose instructions were counted, in the order of measuring."""

    def __init__(self, series):
        self.names = [name.removesuffix(COUNTED) for name in series
                      if name.startswith("mpi/") and name.endswith(COUNTED)]

    def of(self, stack=None, memories=None):
        for name in self.names:
            _, key, _, memory, _ = name.split("/")
            if stack in (None, key) and (memories is None or memory in memories):
                yield name


def told(name):
    _, _, pattern, memory, size = name.split("/")
    return f"{pattern}, {memory}, {bytes_name(int(size))}"


def verdict(s, name, most):
    """Of one cell."""
    low, high = s.spread(name)
    if low > most:
        return "short"
    if high > most:
        return "ok" if s[name] <= most and low == high else "unclear"
    return "ok"


def against(name, way):
    return f"{name}/{way}/instructions/against-stock"


def counted(s, name, way, what):
    series = f"{name}/{way}/{what}"
    return s[series] if series in s.series else 0


def reason(s, name, way):
    """What was counted in that cell for a round, beside stock."""
    more = s[f"{name}/{way}/instructions"] - s[f"{name}/stock/instructions"]
    parts = [f"{more:+.0f} instructions a round at {told(name)}, where its own cache off "
             f"takes {s[against(name, 'off')]:.2f}"]
    for what in "registrations", "calls", "interrupts":
        if f"{name}/stock/{what}" in s.series:
            parts.append(f"{counted(s, name, way, what):.3g} {what} where stock has "
                         f"{counted(s, name, 'stock', what):.3g}")
    more = {call: counted(s, name, way, f"call {number}")
            - counted(s, name, "stock", f"call {number}")
            for number, call in CALLS.items()}
    parts += [f"{call} {count:+.3g}" for call, count in more.items() if count]
    return ", ".join(parts)


def goal(s, stack, way, memories, most):
    cells = list(Cells(s.series).of(stack, memories))
    if not cells:
        return None
    verdicts = [verdict(s, against(name, way), most) for name in cells]
    worst = max(cells, key=lambda name: s[against(name, way)])
    value = s[against(worst, way)]
    of_all = next(v for v in ("short", "unclear", "ok") if v in verdicts)
    made = {"name": f"{STACKS[stack]}: {way}, {NAMES[memories]}", "goal": most,
            "unit": "x", "value": round(value, 4), "ok": of_all == "ok",
            "verdict": of_all}
    if of_all != "ok":
        made["why"] = (f"{verdicts.count('ok')} of {len(cells)} cells ok, "
                       f"{verdicts.count('unclear')} unclear; {reason(s, worst, way)}")
    return made


def wrong(s, stack, way):
    names = [name for name in s.series if name.startswith(f"mpi/{stack}/")
             and name.endswith("/wrong") and f"/{way}/" in name]
    if not names:
        return None
    value = sum(s[name] for name in names)
    made = {"name": f"{STACKS[stack]}: {way}, wrong messages", "goal": 0,
            "unit": "messages", "value": value, "ok": value == 0}
    control = [name for name in s.series if name.startswith(f"mpi/{stack}/")
               and "/raw/" in name and name.endswith("/wrong") and "/stock/" in name]
    if not any(s[name] for name in control):
        made |= {"ok": False, "verdict": "unclear",
                 "why": "none was found of the stock stack either, which has some"}
    return made


def goals(s):
    made = []
    for stack in STACKS:
        made += [goal(s, stack, *one) for one in GOALS]
        made += [wrong(s, stack, way) for way in ("guard", "mrcache")]
    return [one for one in made if one]


# --- tables ------------------------------------------------------------------


def rows(s, number, stack):
    for name in Cells(s.series).of(stack):
        row = [told(name), number(s[f"{name}/stock/instructions"] / 1000)]
        for way in WAYS:
            low, high = s.spread(against(name, way))
            row += [f"{s[against(name, way)]:.3f}", f"{low:.3f}..{high:.3f}"]
        for way in WAYS:
            time = f"{name}/{way}/against-stock"
            row.append(f"{s[time]:.2f}" if time in s.series else "")
        for what in "registrations", "calls", "interrupts", "wrong":
            row.append("/".join(f"{counted(s, name, way, what):.3g}"
                                for way in ["stock", *WAYS]))
        yield row


HEADS = ["", "10^3 instr", "off", "", "guard", "", "mrcache", "", "time: off", "guard",
         "mrcache", "registrations", "calls", "interrupts", "wrong"]


def tables(s, table, number):
    made = []
    for stack, name in STACKS.items():
        found = list(rows(s, number, stack))
        if found:
            made.append(table(
                f"{name}: instructions of a round of the stock stack, the others "
                "against it, and the middle half;\nthe same of times; counts of a "
                "round are stock/off/guard/mrcache", HEADS, found))
    return made

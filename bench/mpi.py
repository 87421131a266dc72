#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What the ways to run an MPI stack cost, cell by cell.

usage: bench/mpi.py [--quick] [--instructions] [--stack KEY] [--size BYTES]
                    --json FILE

Runs in the guest, with the module loaded. For each stack bench-mpi is started
once for each way, and all of them get the same order, one after the other,
before the next turn; in every other turn backwards. With --instructions the
guest's clock must be one that counts them (tests/vm/guest --icount).
--stack and --size measure only a part.
"""

import argparse
import json
import os
import re
import select
import statistics
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "../tests/programs"))
import common  # noqa: E402

# Of common.STACKS; and what keeps Open MPI's windows from shared memory.
STACKS = {"ompi-ucx": ("Open MPI over UCX", {"OMPI_MCA_osc": "ucx"}),
          "mpich-ucx": ("MPICH over UCX", {}),
          "ompi-ofi": ("Open MPI over libfabric", {"OMPI_MCA_osc": "pt2pt"})}

# under mrcache or not, the stack's own cache or not
WAYS = {"stock": (False, True), "off": (False, False), "guard": (True, True),
        "mrcache": (True, False)}

PATTERNS = ["pingpong", "bandwidth", "exchange", "alltoall", "put", "get"]
MEMORIES = ["one", "sixteen", "malloc", "mmap"]
# That wrong messages are found: what stock stacks get wrong.
CONTROL = ("pingpong raw", 512 << 10)
# Bytes, rounds in a turn, and turns: what is large varies less, and takes long.
SIZES = [(64 << 10, 4, 5), (512 << 10, 1, 5), (4 << 20, 1, 2)]
QUICK = [(512 << 10, 1, 1)]
LIMIT = 120  # seconds for one order
LOOP = 5_000_000

CALLS = f"{common.TRACING}/events/raw_syscalls/sys_enter/trigger"
CALLS_SEEN = f"{common.TRACING}/events/raw_syscalls/sys_enter/hist"
# Who waits makes as many of these as it pleases:
# sched_yield, poll, epoll_wait, epoll_pwait; and clock_gettime, a system call only
# where user space cannot read the clock.
WAITING = {24, 7, 232, 281, 228}


def fail(why):
    sys.exit(f"bench-mpi: {why}")


class Job:
    """bench-mpi, run by a stack in one way."""

    def __init__(self, key, way, more):
        name, windows = STACKS[key]
        _, mpirun, env, no_cache, build = next(
            stack for stack in common.STACKS if stack[0] == name)
        mrcache, own_cache = WAYS[way]
        self.name = f"{key}-{way}"
        self.directory = f"/tmp/bench-{self.name}"
        os.makedirs(self.directory)
        for pipe in "0", "1", "answers":
            os.mkfifo(f"{self.directory}/{pipe}")
        # Open for both, so that no open waits for the other side.
        self.orders = [os.open(f"{self.directory}/{rank}", os.O_RDWR | os.O_CLOEXEC)
                       for rank in range(2)]
        self.answers = os.open(f"{self.directory}/answers", os.O_RDWR | os.O_CLOEXEC)
        env = os.environ | env | windows | more | ({} if own_cache else no_cache | common.NO_GUARD)
        program = f"{common.REPO}/build/release/bench/bench-mpi.{build}"
        self.process = common.Process(
            self.name, [*mpirun, *(common.under_mrcache() if mrcache else []),
                        program, self.directory], env, "/tmp")

    def order(self, words):
        """(wrong messages, nanoseconds, polls)"""
        for pipe in self.orders:
            os.write(pipe, (words + "\n").encode())
        deadline = time.monotonic() + LIMIT
        text = b""
        while not text.endswith(b"\n"):
            if select.select([self.answers], [], [], 0.5)[0]:
                text += os.read(self.answers, 4096)
            elif self.process.process.poll() is not None or time.monotonic() > deadline:
                sys.stderr.write(self.process.output()[-4000:])
                fail(f"{self.name}: no answer to '{words}'")
        return [int(word) for word in text.split()]

    def end(self):
        # Nobody else has them open for writing: the ranks read an end.
        for pipe in self.orders:
            os.close(pipe)
        status = self.process.wait(time.monotonic() + 60)
        os.close(self.answers)
        if status:
            sys.stderr.write(self.process.output()[-4000:])
            fail(f"{self.name}: status {status} at its end")


# ---- what the kernel counts ----------------------------------------------------


def interrupts():
    """Of processors by processors, to have a function called or a TLB flushed."""
    with open("/proc/interrupts", encoding="ascii") as file:
        return sum(int(word) for line in file
                   if line.split(":")[0].strip() in ("CAL", "TLB")
                   for word in line.split() if word.isdigit())


def count_calls(on):
    common.write(CALLS, ("" if on else "!") + "hist:keys=id:size=512\n")


def calls():
    """System calls of the whole guest, by number."""
    with open(CALLS_SEEN, encoding="ascii") as file:
        return {f"call {match[1]}": int(match[2]) for match in re.finditer(
            r"\{ id: +(\d+) \} hitcount: +(\d+)", file.read())
            if int(match[1]) not in WAITING}


def counters():
    return {"registrations": common.registrations(), "interrupts": interrupts(),
            **calls()}


def difference(after, before):
    return {key: after[key] - before.get(key, 0) for key in after}


class Series:
    def __init__(self):
        self.all = {}

    def add(self, name, unit, value):
        series = self.all.setdefault(name, {"unit": unit, "samples": []})
        series["samples"].append(value)

    def finish(self):
        for series in self.all.values():
            series["samples"].sort()
            series["median"] = statistics.median(series["samples"])
        return self.all


# ---- measuring -------------------------------------------------------------------


def length_of_instruction(job):
    """Of the clock; what is around the loop does not count."""
    short, long = (job.order(f"loop none {n}")[1] for n in (LOOP, 2 * LOOP))
    return (long - short) / (4 * LOOP)


def price_of_poll(cells):
    """What a poll more takes, by all turns of the same cell and way."""
    above = below = 0
    for ways in cells.values():
        for turns in ways.values():
            took, polls = (statistics.mean(values) for values in zip(*turns))
            above += sum((t - took) * (p - polls) for t, p in turns)
            below += sum((p - polls) ** 2 for _, p in turns)
    return above / below if below else 0


class Bench:
    def __init__(self, options):
        self.options = options
        self.series = Series()
        self.began = time.monotonic()
        # What comes behind a way in a series' name.
        self.what, self.unit = (("/instructions", "instructions") if options.instructions
                                else ("", "ns"))
        self.turns = {}  # of this stack: cell, way: time and polls of a round

    def say(self, text):
        print(f"[{time.monotonic() - self.began:6.1f} s] {text}", file=sys.stderr,
              flush=True)

    def order_all(self, jobs, words):
        for job in jobs.values():
            job.order(words)

    def cell(self, jobs, prefix, words, rounds, turns):
        """All ways, in turns; then once more, counting."""
        wrong = dict.fromkeys(jobs, 0)
        for turn in range(turns):
            ways = list(jobs)
            if turn % 2:
                ways.reverse()
            for way in ways:
                bad, took, polls = jobs[way].order(f"{words} {rounds}")
                wrong[way] += bad
                self.turns.setdefault(prefix, {}).setdefault(way, []).append(
                    (took / rounds, polls / rounds))
        if not self.options.instructions:
            for way, bad in self.count(jobs, prefix, words, rounds).items():
                wrong[way] += bad
        for way, bad in wrong.items():
            self.series.add(f"{prefix}/{way}{self.what}/wrong", "messages", bad)

    def add_turns(self, key, instruction):
        """Makes series of a stack's turns, in units of what an instruction takes."""
        price = 0
        if self.options.instructions:
            price = price_of_poll(self.turns) / instruction
            self.series.add(f"mpi/{key}/instruction", "ns", instruction)
            self.series.add(f"mpi/{key}/poll", "instructions", price)
        for prefix, ways in self.turns.items():
            net = {way: [took / instruction - price * polls for took, polls in turns]
                   for way, turns in ways.items()}
            for way, turns in ways.items():
                name = f"{prefix}/{way}{self.what}"
                for value, stock, (_, polls) in zip(net[way], net["stock"], turns):
                    self.series.add(name, self.unit, value)
                    self.series.add(f"{name}/against-stock", "x", value / stock)
                    self.series.add(f"{name}/polls", "", polls)
        self.turns = {}

    def count(self, jobs, prefix, words, rounds):
        """One turn more, in which the kernel counts; returns the wrong messages."""
        wrong = {}
        count_calls(True)
        for way, job in jobs.items():
            counts = []
            # An order of no rounds is what orders and counting are themselves.
            for n in 0, rounds:
                before = counters()
                wrong[way] = job.order(f"{words} {n}")[0]
                counts.append(difference(counters(), before))
            beyond = difference(counts[1], counts[0])
            name = f"{prefix}/{way}"
            for what in "registrations", "interrupts":
                self.series.add(f"{name}/{what}", "", beyond[what] / rounds)
            by_number = {key: count for key, count in beyond.items()
                         if key.startswith("call ") and count}
            self.series.add(f"{name}/calls", "", sum(by_number.values()) / rounds)
            for key, count in by_number.items():
                self.series.add(f"{name}/{key}", "", count / rounds)
        count_calls(False)
        return wrong

    def stack(self, key):
        name = STACKS[key][0]
        self.say(f"{name}: starting {', '.join(WAYS)}")
        # On one processor Open MPI has to be told that who waits is in the way.
        env = {"OMPI_MCA_mpi_yield_when_idle": "1"} if self.options.instructions else {}
        jobs = {way: Job(key, way, env) for way in WAYS}
        for size, rounds, turns in QUICK if self.options.quick else SIZES:
            if self.options.size not in (None, size):
                continue
            self.order_all(jobs, f"size {size}")
            self.order_all(jobs, "pingpong sixteen 16")
            for memory in MEMORIES:
                for pattern in PATTERNS:
                    self.cell(jobs, f"mpi/{key}/{pattern}/{memory}/{size}",
                              f"{pattern} {memory}", rounds, turns)
            words, at = CONTROL
            if size == at:
                pattern, memory = words.split()
                self.cell(jobs, f"mpi/{key}/{pattern}/{memory}/{size}", words, 4, 1)
            self.say(f"{name}: {size} bytes done")
        instruction = 1
        if self.options.instructions:
            instruction = min(length_of_instruction(job) for job in jobs.values())
        self.add_turns(key, instruction)
        for job in jobs.values():
            job.end()
        if common.end_children():
            fail(f"{name}: something had to be ended")

    def run(self):
        common.adopt_orphans()
        if not self.options.instructions:
            common.start_counting()
        for key in STACKS:
            if self.options.stack in (None, key):
                self.stack(key)
        self.say("done")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--stack", choices=STACKS)
    parser.add_argument("--size", type=int, choices=[size for size, _, _ in SIZES])
    options = parser.parse_args()
    bench = Bench(options)
    bench.run()
    with open(options.json, "w", encoding="utf-8") as file:
        json.dump({"series": bench.series.finish(), "skipped": {},
                   "quick": options.quick, "kernel": os.uname().release}, file)


main()

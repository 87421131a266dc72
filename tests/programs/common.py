# SPDX-License-Identifier: BSD-2-Clause
"""What the programs of this directory share; all of it runs in the guest.

Registrations are counted by the kernel, not by the shim: a probe on the
function of rxe that makes them. So a run without the shim is exactly what it
would be anyway, and nothing that the shim does not see is left out.
"""

import atexit
import ctypes
import json
import os
import signal
import subprocess
import time

REPO = os.environ["REPO"]
RESULTS = os.environ["RESULTS"]
SUITE = os.environ.get("SUITE", "")  # of another release's root, or empty
ARM64 = os.uname().machine == "aarch64"
# What was built for its MPI stacks.
PROGRAMS = f"{REPO}/build/programs/{SUITE or ('arm64' if ARM64 else 'host')}"
ADDRESS = "10.77.0.1"  # rxe0's, GID index 1

MRCACHE = f"{REPO}/build/{'arm64' if ARM64 else 'release'}/tools/mrcache/mrcache"
STATS = "/tmp/mrcache-stats"

TRACING = "/sys/kernel/tracing"
COUNTER = f"{TRACING}/kprobe_profile"
PROBE = "mrcache_registrations"
PR_SET_CHILD_SUBREAPER = 36


def under_mrcache():
    """The words to put in front of a program."""
    return [MRCACHE, "run", "--remote", f"--stats={STATS}", "--"]


# --- registrations, as the kernel sees them -----------------------------------


def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text.encode())
    os.close(fd)


def start_counting():
    write(f"{TRACING}/kprobe_events", f"p:{PROBE} rxe_reg_user_mr\n")
    write(f"{TRACING}/events/kprobes/{PROBE}/enable", "1")
    # Only the count is of interest.
    write(f"{TRACING}/tracing_on", "0")
    atexit.register(write, f"{TRACING}/events/kprobes/{PROBE}/enable", "0")


def registrations():
    with open(COUNTER, encoding="ascii") as file:
        for line in file:
            name, hits, _ = line.split()
            if name == PROBE:
                return int(hits)
    raise RuntimeError("the probe is gone")


# --- processes ------------------------------------------------------------------


def adopt_orphans():
    """Makes what outlives its parent a child of ours, so that it can be ended."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children():
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def end_children():
    """Ends all that is left of a program; says whether there was anything."""
    found = False
    while pids := children():
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            found = found or os.WIFSIGNALED(status)
    return found


class Process:
    def __init__(self, name, argv, env, cwd):
        self.path = f"/tmp/{name}"
        with open(self.path, "wb") as out:
            self.process = subprocess.Popen(
                argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True)

    def wait(self, deadline):
        try:
            return self.process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return self.end()

    def end(self):
        if self.process.poll() is None:
            # mpirun ends its ranks if asked nicely.
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        return 124

    def output(self):
        with open(self.path, encoding="utf-8", errors="replace") as file:
            return file.read()


def listens(port):
    """Whether a server is there: a TCP port, or one of the RDMA CM ("cm")."""
    if port == "cm":
        out = subprocess.run(["rdma", "res", "show", "cm_id"], check=False,
                             capture_output=True, text=True).stdout
        return "LISTEN" in out
    for table in "/proc/net/tcp", "/proc/net/tcp6":
        with open(table, encoding="ascii") as file:
            for line in file:
                field = line.split()
                if field[3] == "0A" and field[1].endswith(f":{port:04X}"):
                    return True
    return False


def read_stats():
    """The sum of what the processes under the shim said at their end."""
    total = {"processes": 0}
    try:
        with open(STATS, encoding="ascii") as file:
            lines = [json.loads(line) for line in file]
    except FileNotFoundError:
        return total
    for line in lines:
        total["processes"] += 1
        for key, value in line.items():
            if key == "bypass":
                for reason, number in value.items():
                    if number:
                        bypass = total.setdefault("bypass", {})
                        bypass[reason] = bypass.get(reason, 0) + number
            elif isinstance(value, int) and key != "pid":
                total[key] = total.get(key, 0) + value
    return total


def run(argv, *, mrcache, launcher=(), server=None, port=None, env=None, cwd="/tmp",
        limit=120):
    """Runs a program, plain or under mrcache; with `server`, as its client.

    Returns a dictionary: passed, output, seconds, registrations, and, under
    mrcache, what it counted itself.
    """
    prefix = [*launcher, *(under_mrcache() if mrcache else [])]
    env = os.environ | (env or {})
    if os.path.exists(STATS):
        os.unlink(STATS)
    began = time.monotonic()
    deadline = began + limit
    before = registrations()

    served = None
    statuses = []
    if server:
        served = Process("server", prefix + server, env, cwd)
        while not listens(port) and time.monotonic() < deadline \
                and served.process.poll() is None:
            time.sleep(0.05)
    process = Process("client", prefix + argv, env, cwd)
    statuses.append(process.wait(deadline))
    output = process.output()
    if served:
        statuses.append(served.wait(min(deadline, time.monotonic() + 10)))
        output += served.output()
    left = end_children()

    result = {
        "passed": not any(statuses) and not left,
        "statuses": statuses,
        "seconds": round(time.monotonic() - began, 1),
        "registrations": registrations() - before,
    }
    if mrcache:
        result["mrcache"] = read_stats()
    return {**result, "output": output}


# --- MPI ------------------------------------------------------------------------

UCX = {"UCX_NET_DEVICES": "rxe0:1", "UCX_TLS": "rc_verbs,ud_verbs,self",
       # UCX takes rxe's IPv4 packets for foreign ones.
       "UCX_IB_GID_INDEX": "1", "UCX_UD_ETH_DGID_CHECK": "n"}
UCX_NO_CACHE = {"UCX_IB_REG_METHODS": "direct", "UCX_RCACHE_ENABLE": "n",
                "UCX_MEM_EVENTS": "n"}
OPEN_MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_plm": "isolated", "OMPI_MCA_rmaps_base_oversubscribe": "1"}
# A completion queue for the 256 processes that are the default is too large
# for rxe.
OFI = {"FI_UNIVERSE_SIZE": "2"}
OFI_NO_CACHE = {"FI_MR_CACHE_MAX_COUNT": "0"}
# Without a cache there is nothing for mrcache to guard.
NO_GUARD = {"MRCACHE_GUARD": "0"}

if SUITE:
    # rxe says that it is slow, so UCX 1.18 copies instead of registering.
    UCX["UCX_RNDV_SCHEME"] = "get_zcopy"
    # MPICH 4.2 may end a rank while another still flushes to it. 7, the
    # default, is for ever to rxe; a NIC gives up.
    UCX["UCX_RC_RETRY_COUNT"] = "6"
    # Enough for 1.18, which UCX_MEM_EVENTS=n can bring down (UCX issue 11467).
    UCX_NO_CACHE = {"UCX_RCACHE_ENABLE": "n"}
    # What Open MPI 4 needs to launch without ssh, later ones do not know.
    # But they have windows over UCX only on devices that they know.
    OPEN_MPI = {key: value for key, value in OPEN_MPI.items() if "_MCA_" not in key}
    OPEN_MPI |= {f"OMPI_MCA_opal_common_ucx_{what}": "any" for what in ("tls", "devices")}
    OPEN_MPI["OMPI_MCA_osc"] = "ucx"

MPIRUN = ["mpirun.openmpi", "--host", "localhost:2", "-np", "2", "--mca", "pml"]

# name, mpirun, environment, what turns the stack's own cache off, the build
STACKS = [
    ("Open MPI over UCX", MPIRUN + ["ucx"], OPEN_MPI | UCX, UCX_NO_CACHE, "openmpi"),
    ("Open MPI over libfabric",
     MPIRUN + ["cm", "--mca", "mtl", "ofi",
               "--mca", "mtl_ofi_provider_include", "verbs;ofi_rxm"],
     OPEN_MPI | OFI, OFI_NO_CACHE, "openmpi"),
    ("MPICH over UCX", ["mpiexec.hydra", "-launcher", "fork", "-n", "2"],
     UCX, UCX_NO_CACHE, "mpich"),
]


def ring(stack, phases, *, mrcache, own_cache, env=None, limit=180):
    """Runs ring; adds "phases", one dictionary for each, to run()'s result."""
    _, mpirun, settings, no_cache, build = stack
    env = settings | (env or {})
    if not own_cache:
        env = env | no_cache | NO_GUARD
    result = run([f"{PROGRAMS}/ring.{build}", *phases], mrcache=mrcache,
                 launcher=mpirun, env=env | {"RING_COUNTER": COUNTER}, limit=limit)
    result["phases"] = {}
    for line in result["output"].splitlines():
        if line.startswith('{"way"'):
            phase = json.loads(line)
            kind = "" if phase["kind"] == "send" else f" {phase['kind']}"
            result["phases"][phase["way"] + kind] = phase
    return result


# --- what is told ---------------------------------------------------------------


def table(head, rows):
    """Lines of a table: numbers to the right, words to the left."""
    lines = [[], []]
    lines += [[] for _ in rows]
    for i, name in enumerate(head):
        column = [name, "", *(str(row[i]) for row in rows)]
        width = max(len(cell) for cell in column)
        column[1] = "-" * width
        number = any(isinstance(row[i], int) for row in rows)
        for line, cell in zip(lines, column):
            line.append(cell.rjust(width) if number else cell.ljust(width))
    return "\n".join("  ".join(line).rstrip() for line in lines)


def save(name, value):
    path = f"{RESULTS}/{name}"
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
    os.rename(path + ".new", path)

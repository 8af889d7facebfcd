#!/usr/bin/env python3
"""Counts instructions and allocations of a run that finds everything in place, and compares them with those checked in beside this file.

The monorepo is S of `benches/peers`, without a sandbox; one processor, so that what threads do to each other does not show. A clock
would tell what else the machine does; instructions differ by the little that paths, environments and hash seeds differ.

Of each two counts: of the whole run, in which is also what the packages of the distribution are; and of what the monorepo adds to it, which
is the run less one in a workspace of a single package. The first holds for machines with as many packages, the second for all of a kind.

    noop.py PROGRAM             fails where more than 5 % was added
    noop.py PROGRAM --update    writes the count down

Counts depend on the compiler, on the kind of build, on the processor and on the C library: where one of them is another than that
of the baseline, nothing is compared, and it says so loudly.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
# Nothing is left in the checkout.
sys.dont_write_bytecode = True
sys.path.insert(0, str(CHECKOUT / "benches/peers"))

from monorepo import KINDS, Monorepo  # noqa: E402
from peers import Bench, Drystone  # noqa: E402

SIZE = "S"
LIMIT = 1.05
COUNTS = 3
COUNTED = {"instructions": "callgrind", "allocations": "dhat"}
# Where each tool tells its sum.
TOOLS = {"callgrind": r"Collected : (\d+)", "dhat": r"Total: .* in ([\d,]+) blocks"}
TIMEOUT_SECONDS = 600
# What a program costs differs with the instructions that valgrind reports the processor to have.
FLAGS = ("sse4_1", "avx", "avx2", "neon", "sve")
CHORE = """#!/bin/sh
# The outputs of `chore` (benches/peers/native.rs), of the content that the words are.
set -eu
kind=$1
if [ "$kind" = build ]; then
    mkdir -p dist
    parts=$2
    shift 2
    for below; do read -r _ <"$below/dist/index"; done
    echo "$*" >dist/index
    while [ "$parts" -gt 0 ]; do
        parts=$((parts - 1))
        echo "part $parts" >"dist/part-$parts"
    done
else
    mkdir -p checked
    echo "$kind" >"checked/$kind"
fi
"""


def loudly(words: str) -> None:
    line = "!" * 20
    print(f"{line}\n!!! NOT TESTED: {words}\n{line}", flush=True)


def first_line(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()


def processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    has = set(found.group(1).split()) if found else set()
    return " ".join([platform.machine(), *(flag for flag in FLAGS if flag in has)])


def distribution() -> str:
    """How much of it there is to look at."""
    lists = len(list(Path("/var/lib/dpkg/info").glob("*.md5sums")))
    return f"{lists} packages, {len(os.listdir('/usr/bin'))} programs"


def surroundings(kind: str) -> dict[str, str]:
    """What a count depends on beside the source."""
    return {
        "build": kind,
        "toolchain": first_line("rustc", "--version"),
        "processor": processor(),
        "valgrind": first_line("valgrind", "--version"),
        "libc": " ".join(platform.libc_ver()),
    }


class Subject:
    """The first packages of the monorepo, all of their outputs in place, and the program that finds them so."""

    def __init__(self, program: Path, home: Path, packages: int | None):
        repo = Monorepo(SIZE)
        repo.packages = repo.packages[:packages]
        bench = Bench(home, repo, program, None)
        self.peer, self.home, self.program = Drystone(bench), home, program
        bench.tools.mkdir(parents=True)
        bench.chore.write_text(CHORE)
        bench.chore.chmod(0o755)
        repo.write_sources(self.peer.tree)
        self.peer.define(self.peer.tree)
        self.variables = {"PATH": f"{bench.tools}:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8", "TERM": "dumb"}
        self.variables |= self.peer.environment()
        self.words = [str(program), "run", *KINDS, "--isolation=none"]
        # The first makes everything, the second finds it in place, the third is like those that are counted.
        for expected in (repo.tasks(), 0, 0):
            said = self.run(self.words)
            ran = self.peer.told("noop", said)
            if ran != expected:
                sys.exit(f"{ran} tasks ran instead of {expected}:\n{said}")

    def run(self, words: list[str]) -> str:
        done = subprocess.run(
            words, cwd=self.peer.tree, env=self.variables, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
        if done.returncode:
            sys.exit(f"`{' '.join(words[:4])} …` ended with {done.returncode}:\n{done.stderr[-4000:]}")
        return done.stdout + done.stderr

    def counted(self, tool: str, keep: Path | None = None) -> int:
        """Instructions, or allocated blocks, of the program's own process; children would be counted apart."""
        out = keep or self.home / f"{tool}.out"
        words = ["valgrind", f"--tool={tool}", f"--{tool}-out-file={out}", *self.words]
        if shutil.which("taskset"):
            words = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *words]
        said = self.run(words)
        if self.peer.told("noop", said):
            sys.exit(f"something ran:\n{said}")
        return int(re.search(TOOLS[tool], said).group(1).replace(",", ""))


def measure(program: Path, counts: int, keep: Path | None) -> dict[str, dict[str, int]]:
    """By what is counted: of the whole run, and what the monorepo adds to one of a single package."""
    found: dict[str, dict[str, int]] = {what: {} for what in COUNTED}
    for name, packages in (("whole", None), ("single", 1)):
        with tempfile.TemporaryDirectory(prefix="drystone-gate-") as home:
            subject = Subject(program, Path(home), packages)
            for what, tool in COUNTED.items():
                kept = keep if tool == "callgrind" and packages is None else None
                # Beneath valgrind some variables of the environment are others, so the first run there is not like the last one.
                subject.counted(tool)
                every = sorted(subject.counted(tool, kept) for _ in range(counts))
                print(f"{what}, {name}: {every[0]:,} to {every[-1]:,} in {counts} runs", flush=True)
                found[what][name] = every[0]
    for of_one in found.values():
        of_one["added"] = of_one["whole"] - of_one.pop("single")
    return found


def read(baseline: Path) -> dict[str, str]:
    lines = (line for line in baseline.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split(" = ", 1) for line in lines)


def differences(around: dict[str, str], known: dict[str, str]) -> str:
    other = (f"{name} is `{value}`, was `{known.get(name)}`" for name, value in around.items() if known.get(name) != value)
    return "; ".join(other)


def is_over(says: str, counted: int, known: str) -> bool:
    ratio = counted / int(known)
    print(f"{says}: {counted:,}, {ratio:.3f} times the baseline")
    if ratio > LIMIT:
        print(f"that is more than {LIMIT}: make it cheaper, or write down with `--update` what it is worth, and say why in the commit")
    elif ratio < 2 - LIMIT:
        print("that is so much less that the baseline guards little: write it down with `--update`")
    return ratio > LIMIT


def compare(found: dict[str, dict[str, int]], around: dict[str, str], baseline: Path) -> int:
    known = read(baseline) if baseline.exists() else {}
    if not known:
        loudly(f"the instructions of a no-op: there is no {baseline.name}; `--update` writes it")
        return 0
    if other := differences(around, known):
        loudly(f"the instructions of a no-op: the baseline is of another machine or toolchain ({other}); `--update` writes one")
        return 0
    over = [is_over(f"{what} that the monorepo {SIZE} adds to a no-op", it["added"], known[f"{what} added"]) for what, it in found.items()]
    if other := differences({"distribution": distribution()}, known):
        print(f"the whole run is not compared: {other}")
    else:
        over += [is_over(f"{what} of a no-op at {SIZE}", it["whole"], known[f"{what} whole"]) for what, it in found.items()]
    return int(any(over))


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("program", type=Path, help="the built program")
    parser.add_argument("--kind", default="debug", help="how it was built: a baseline holds for one kind (debug unless said)")
    parser.add_argument("--baseline", type=Path, default=Path(__file__).parent / f"noop-{SIZE}.txt")
    parser.add_argument("--update", action="store_true", help="write the baseline")
    parser.add_argument("--counts", type=int, default=COUNTS, help="how often to count each; the least is taken")
    parser.add_argument("--callgrind", type=Path, help="keep what callgrind wrote, for callgrind_annotate")
    return parser.parse_args()


def main() -> int:
    options = options_of()
    if not shutil.which("valgrind"):
        loudly("the instructions of a no-op, for want of valgrind (on Debian: apt-get install valgrind)")
        return 0
    around = surroundings(options.kind)
    found = measure(options.program.resolve(), options.counts, options.callgrind)
    if not options.update:
        return compare(found, around, options.baseline)
    written = {f"{what} {of}": count for what, it in found.items() for of, count in it.items()}
    lines = [f"{name} = {value}" for name, value in (written | around | {"distribution": distribution()}).items()]
    options.baseline.write_text("# Written by `noop.py --update`.\n" + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

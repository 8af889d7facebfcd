#!/usr/bin/env python3
"""Times Drystone beside its peers on one monorepo: see README.md.

Every peer gets a tree of its own with the same sources. In each round every case is done by every peer, one after the other, and who
begins changes from round to round; so what else the machine does meets all of them, and a ratio is one of neighbours in time.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import report
from monorepo import COMMENT, SIZES, Monorepo
from peers import CORES, PEERS, Bench, Missing, Peer, Xargs

CHECKOUT = Path(__file__).resolve().parents[2]
TIMEOUT_SECONDS = 1800
EDITS = ("leaf", "root", "comment")
IGNORED = "dist/\nchecked/\nnode_modules/\n.turbo/\n.nx/\n.moon/cache/\n.wireit/\nbazel-*\n.ninja_log\n.ninja_deps\n"
# What a person's shell would have and an engine needs; nothing that tells it to be another.
KEPT_VARIABLES = ("HOME", "LANG", "USER", "TERM")


@dataclass
class Case:
    name: str
    says: str
    against: str  # the baseline it is compared with
    ran: int  # tasks that have to run, with early cutoff where that can help


def cases_of(repo: Monorepo) -> list[Case]:
    count = len(repo.packages)
    return [
        Case("noop", "nothing changed", "limit", 0),
        Case("leaf", "a line added in the package that nothing depends on", "limit", 3),
        Case("root", "a line added in the package that everything depends on", "limit", 2 * count + 1),
        Case("comment", "a comment added there: the build comes out the same", "limit", 3),
        Case("plan", "what would run, nothing changed", "limit", 0),
        Case("affected", "what one edit reaches, a tenth of the packages", "limit", 0),
        Case("explain", "why one task would run", "limit", 0),
        Case("restore", "all outputs deleted, everything in the cache", "cp -r", 0),
        Case("digest", "first plan in a fresh clone, everything in the cache", "read", 0),
        Case("clone", "first run in a fresh clone, everything in the cache", "read", 0),
        Case("cold", "nothing known, everything runs", "xargs", repo.tasks()),
    ]


def git(root: Path, *words: str) -> None:
    settings = ("user.name=bench", "user.email=bench@example.org", "gc.auto=0", "core.fsync=none", "commit.gpgsign=false")
    flags = [word for setting in settings for word in ("-c", setting)]
    subprocess.run(["git", *flags, *words], cwd=root, check=True, stdout=subprocess.DEVNULL)


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-q", "--allow-empty", "-m", "as it is")


def erase(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # Not shutil: a store may hold directories without the permission to write.
        subprocess.run(["chmod", "-R", "u+w", str(path)], check=False, stderr=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", str(path)], check=True)
    elif os.path.lexists(path):
        path.unlink()


def bytes_on_disk(paths: list[Path]) -> int:
    seen = {}
    for top in paths:
        for path in [top, *top.rglob("*")] if top.exists() else []:
            status = path.lstat()
            seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


class Round:
    """One peer at work: its tree, its edits, its stopwatch."""

    def __init__(self, bench: Bench, entrant: Peer):
        self.bench, self.peer, self.repo = bench, entrant, bench.repo

    def erase_outputs(self) -> None:
        for package in self.repo.packages:
            for name in ("dist", "checked"):
                shutil.rmtree(self.peer.output(package, name), ignore_errors=True)

    def forget(self) -> None:
        self.peer.stop()
        self.erase_outputs()
        for state in self.peer.states():
            erase(state)
        self.peer.start()

    def append(self, package, line: str) -> None:
        with open(self.peer.tree / package.dir / package.sources[0], "a") as file:
            file.write(line + "\n")

    def time(self, case: str, root: Path | None = None) -> dict:
        words = self.peer.command(case)
        assert words, case
        self.bench.ran.write_text("")
        environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        environment["PATH"] = os.environ["PATH"]
        environment |= self.peer.environment()
        environment["PATH"] = f"{self.bench.tools}:{environment['PATH']}"
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            watch = [str(self.bench.native), "stopwatch", str(TIMEOUT_SECONDS), *words]
            subprocess.run(watch, cwd=root or self.peer.tree, env=environment, stdout=out, stderr=err, check=True)
            out.seek(0), err.seek(0)
            told, figures = err.read().rstrip("\n").rpartition("\n")[::2]
            said = out.read() + told
        wall, cpu, peak, code = figures.split()
        if code != "0":
            raise RuntimeError(f"`{' '.join(words[:4])} …` ended with {code}:\n{said[-2000:]}")
        ran = self.peer.told(case, said)
        if ran is None:
            ran = len(self.bench.ran.read_text().splitlines())
        return {"wall": float(wall), "cpu": float(cpu), "peak_kib": int(peak), "ran": ran}

    def edit(self, case: str, number: int) -> None:
        match case:
            case "leaf":
                self.append(self.repo.leaf, f"export const round{number} = {number};")
            case "root":
                self.append(self.repo.root, f"export const round{number} = {number};")
            case "comment":
                self.append(self.repo.root, f"{COMMENT} round {number}")

    def do(self, case: str, number: int) -> dict:
        """Brings about the state a case begins in, times it, and leaves everything built."""
        self.edit(case, number)
        match case:
            case "restore":
                self.erase_outputs()
            case "cold":
                self.forget()
            case "affected":
                return self.with_an_edit()
            case "digest" | "clone":
                return self.in_a_clone(case)
        return self.time(case)

    def with_an_edit(self) -> dict:
        commit(self.peer.tree)
        path = self.peer.tree / self.repo.middle.dir / self.repo.middle.sources[0]
        before, times = path.read_bytes(), path.stat()
        self.append(self.repo.middle, "export const passing = true;")
        try:
            return self.time("affected")
        finally:
            path.write_bytes(before)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def in_a_clone(self, case: str) -> dict:
        erase(self.peer.clone)
        self.peer.clone.parent.mkdir(exist_ok=True)
        commit(self.peer.tree)
        git(self.bench.home, "clone", "-q", "--shared", str(self.peer.tree), str(self.peer.clone))
        self.peer.link(self.peer.clone)
        try:
            return self.time(case, self.peer.clone)
        finally:
            erase(self.peer.clone)

    def outputs(self) -> str:
        """A digest of all outputs, to compare with those of the bare commands."""
        digest = hashlib.sha256()
        for package in self.repo.packages:
            for path in (output for kind in ("build", "lint", "test") for output in package.outputs(kind)):
                place = self.peer.output(package, path)
                digest.update(path.encode() + b"\0")
                digest.update(hashlib.sha256(place.read_bytes()).digest() if place.is_file() else b"absent")
        return digest.hexdigest()


class Comparison:
    def __init__(self, bench: Bench, options: argparse.Namespace):
        self.bench, self.options, self.repo = bench, options, bench.repo
        self.cases = [case for case in cases_of(self.repo) if case.name in options.cases]
        self.skipped: dict[str, str] = {}
        self.entrants: list[Round] = []
        self.figures: dict[str, dict[str, list[dict]]] = {case.name: {} for case in self.cases}
        self.wrong: dict[str, list[str]] = {}
        self.sizes: dict[str, int] = {}
        for name in options.peers:
            try:
                self.entrants.append(Round(bench, PEERS[name](bench)))
            except Missing as reason:
                self.skip(name, str(reason))

    def skip(self, name: str, reason: str) -> None:
        self.skipped[name] = reason
        print(f"*** {name} is SKIPPED: {reason}", file=sys.stderr, flush=True)

    def engines(self) -> list[Round]:
        return [it for it in self.entrants if not it.peer.baseline]

    # -- before

    def prepare(self) -> None:
        bare = self.bench.home / "trees" / f"{self.repo.size}-bare"
        self.bare = Round(self.bench, Xargs(self.bench))
        for it in [self.bare, *(it for it in self.entrants if it.peer.baseline)]:
            it.peer.tree = bare
        if not (self.bench.base / ".git").exists():
            erase(self.bench.base)
            self.repo.write_sources(self.bench.base)
            (self.bench.base / ".gitignore").write_text(IGNORED)
            git(self.bench.base, "init", "-q", "-b", "main")
            commit(self.bench.base)
        for it in [self.bare, *self.engines()]:
            print(f"preparing {it.peer.tree.name}", file=sys.stderr, flush=True)
            for old in (it.peer.tree, it.peer.cache):
                erase(old)
            it.peer.tree.parent.mkdir(exist_ok=True)
            it.peer.cache.parent.mkdir(exist_ok=True)
            subprocess.run(["cp", "-a", str(self.bench.base), str(it.peer.tree)], check=True)
            it.peer.define(it.peer.tree)
            it.peer.link(it.peer.tree)
            commit(it.peer.tree)
        self.reference()
        self.set_outputs_aside()
        for it in self.engines():
            self.first_run(it)

    def first_run(self, it: Round) -> None:
        try:
            it.time("cold")
        except (RuntimeError, subprocess.SubprocessError) as error:
            self.skip(it.peer.name, f"its first run failed: {error}")
            self.entrants.remove(it)
            return
        self.sizes[it.peer.name] = bytes_on_disk(it.peer.states())
        if it.outputs() != self.reference():
            self.wrong.setdefault(it.peer.name, []).append("first run")

    def reference(self) -> str:
        """Outputs of the bare commands, one at a time, on the sources as they are now."""
        self.bare.erase_outputs()
        words = ["xargs", "-P1", "-L1", "-a", str(self.bare.peer.list_file()), str(self.bench.chore)]
        subprocess.run(words, cwd=self.bare.peer.tree, check=True)
        return self.bare.outputs()

    def set_outputs_aside(self) -> None:
        aside = self.bench.home / f"outputs-{self.repo.size}"
        erase(aside)
        for package in self.repo.packages:
            for name in ("dist", "checked"):
                shutil.copytree(self.bare.peer.tree / package.dir / name, aside / package.dir / name)

    # -- the rounds

    def rounds(self) -> None:
        for number in range(self.options.rounds):
            began = time.monotonic()
            for case in self.cases:
                self.turn(case, number)
            print(f"round {number + 1} of {self.options.rounds}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    def turn(self, case: Case, number: int) -> None:
        able = [it for it in self.entrants if it.peer.command(case.name) and case.name not in it.peer.aside]
        if case.name in ("digest", "clone"):
            able = [it for it in able if it.peer.baseline or (it.peer.digests if case.name == "digest" else it.peer.restores)]
        for it in [self.bare, *self.engines()]:
            if it not in able and case.name in EDITS:
                it.edit(case.name, number)
                if not it.peer.baseline:
                    it.time("cold")
        shift = number % max(1, len(able))
        for it in able[shift:] + able[:shift]:
            if it.peer.baseline:
                self.stand_by(it, case.name)
                measured = it.time(case.name)
            else:
                try:
                    measured = it.do(case.name, number)
                except (RuntimeError, subprocess.SubprocessError) as error:
                    self.skip(it.peer.name, f"{case.name} failed: {error}")
                    self.entrants.remove(it)
                    continue
            self.figures[case.name].setdefault(it.peer.name, []).append(measured)
        # Digesting all outputs takes longer than most cases: once is enough, and the last round has seen every edit.
        if number == self.options.rounds - 1 and case.name in ("root", "comment", "restore", "cold"):
            expected = self.reference()
            for it in able:
                if it in self.entrants and not it.peer.baseline and it.outputs() != expected:
                    self.wrong.setdefault(it.peer.name, []).append(case.name)

    def stand_by(self, it: Round, case: str) -> None:
        if case in ("restore", "digest", "clone", "cold"):
            it.erase_outputs()
        elif not (it.peer.tree / self.repo.leaf.dir / "dist").exists():
            self.reference()

    # -- after

    def result(self) -> dict:
        notes = {it.peer.name: it.peer.note for it in self.entrants}
        versions = {it.peer.name: it.peer.version() for it in self.engines()}
        return {
            "size": self.repo.size,
            "packages": len(self.repo.packages),
            "files": self.repo.files(),
            "outputs": self.repo.outputs(),
            "tasks": self.repo.tasks(),
            "rounds": self.options.rounds,
            "machine": {"cores": CORES, "kernel": platform.release(), "load_1m": round(os.getloadavg()[0], 2)},
            "notes": notes,
            "versions": versions,
            "skipped": self.skipped,
            "wrong_outputs": self.wrong,
            "cache_bytes": self.sizes,
            "cases": {
                case.name: {"says": case.says, "against": case.against, "must_run": case.ran, "runs": self.figures[case.name]}
                for case in self.cases
            },
        }


def native_program(given: Path | None) -> Path:
    if given:
        return given
    words = ["cargo", "build", "--release", "--locked", "--bench", "native", "--message-format=json"]
    made = subprocess.run(words, cwd=CHECKOUT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = (json.loads(line) for line in made.splitlines() if line.startswith("{"))
    found = [message["executable"] for message in messages if message.get("executable")]
    return Path(found[-1])


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    names, cases = ",".join(PEERS), ",".join(case.name for case in cases_of(Monorepo("S")))
    words = lambda text: [word for word in text.split(",") if word]
    parser.add_argument("--size", choices=SIZES, default="S", help="S, M, L or XL: 20, 200, 1,000 or 3,000 packages")
    parser.add_argument("--peers", type=words, default=words(names), help=f"of {names}")
    parser.add_argument("--cases", type=words, default=words(cases), help=f"of {cases}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--drystone", type=Path, default=CHECKOUT / "target/release/drystone")
    parser.add_argument("--node", type=Path, help="the directory with the node_modules of turbo, nx and vite-plus")
    parser.add_argument("--native", type=Path, help="native.rs as a program; without it, cargo builds it")
    parser.add_argument("--home", type=Path, default=CHECKOUT / "target/peers", help="where trees and caches go")
    parser.add_argument("--json", type=Path, help="a file for all that was measured")
    parser.add_argument("--keep", action="store_true", help="leave trees and caches where they are")
    options = parser.parse_args()
    for given, known in ((options.peers, set(PEERS)), (options.cases, set(cases.split(",")))):
        if unknown := set(given) - known:
            parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    options = options_of()
    home = options.home.resolve()
    bench = Bench(home, Monorepo(options.size), options.drystone.resolve(), options.node and options.node.resolve())
    bench.tools.mkdir(parents=True, exist_ok=True)
    program = native_program(options.native)
    for place in (bench.native, bench.chore):
        place.unlink(missing_ok=True)
        shutil.copy2(program, place)
    comparison = Comparison(bench, options)
    try:
        comparison.prepare()
        comparison.rounds()
        result = comparison.result()
    finally:
        for it in comparison.engines():
            it.peer.stop()
        if not options.keep:
            erase(home)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    print(report.tables(result))
    return 1 if result["wrong_outputs"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""What all engines have in common: where things lie, and what is asked of an engine."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from monorepo import Monorepo, Package

CORES = len(os.sched_getaffinity(0))
PEERS: dict[str, type["Peer"]] = {}


def peer(kind: type["Peer"]) -> type["Peer"]:
    PEERS[kind.name] = kind
    return kind


class Missing(Exception):
    """The peer cannot take part; the text says why and how it could."""


class Bench:
    """Where things lie: the same for all peers."""

    def __init__(self, home: Path, repo: Monorepo, drystone: Path, node: Path | None):
        self.home, self.repo, self.drystone, self.node = home, repo, drystone, node
        self.tools = home / "tools" / "bin"
        self.native, self.chore, self.ran = self.tools / "native", self.tools / "chore", home / "ran.log"
        self.base = home / f"base-{repo.size}"

    def module(self, path: str, install: str) -> Path:
        """A file of an npm package below `--node`."""
        found = self.node / "node_modules" / path if self.node else None
        if found is None or not found.exists():
            raise Missing(f"not installed: `npm install --prefix DIR {install}`, then `--node DIR`")
        return found


def on_path(program: str, install: str) -> str:
    found = shutil.which(program)
    if not found:
        raise Missing(f"not installed: {install}")
    return found


class Peer:
    name = ""
    note = ""
    baseline = False  # a limit, not an engine: no definitions, no outputs of its own
    restores = False  # brings deleted outputs back without running anything
    aside: tuple[str, ...] = ()  # cases it has words for, but takes no part in
    digests = False  # has a question that takes the digests of all sources and nothing else

    def __init__(self, bench: Bench):
        self.bench, self.repo = bench, bench.repo
        self.tree = bench.home / "trees" / f"{self.repo.size}-{self.name}"
        self.cache = bench.home / "caches" / f"{self.repo.size}-{self.name}"
        self.clone = bench.home / "clones" / f"{self.repo.size}-{self.name}"
        self.find()

    def find(self) -> None:
        """Looks for the programs it needs; raises `Missing`."""

    def version(self) -> str:
        return ""

    def define(self, root: Path) -> None:
        """Writes its definitions into a tree of sources."""

    def link(self, root: Path) -> None:
        """Puts in place what is not committed but must be there, in a tree or in a clone of it."""

    def command(self, case: str) -> list[str] | None:
        """The words for a case; None where it has no answer to that question. The directory is the tree (or the clone)."""
        return None

    def environment(self) -> dict[str, str]:
        return {}

    def states(self) -> list[Path]:
        """All it remembers: removed for a cold run, and counted for its size."""
        return [self.cache]

    def output(self, package: Package, path: str) -> Path:
        """Where an output lies when all is built."""
        return self.tree / package.dir / path

    def start(self) -> None:
        """Starts what goes on between its runs; not timed."""

    def stop(self) -> None:
        """Ends that."""

    def told(self, case: str, text: str) -> int | None:
        """Tasks that ran, where it says so itself and `ran.log` cannot know."""
        return None


def version_of(*words: str) -> str:
    out = subprocess.run(words, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", out.stdout + out.stderr)
    return found.group() if found else ""

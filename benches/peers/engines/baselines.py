"""What is not an engine: the least that any could do."""

from pathlib import Path

from engines.base import CORES, Peer, peer
from monorepo import KINDS


class Baseline(Peer):
    baseline = True
    cases: tuple[str, ...] = ()


@peer
class Stat(Baseline):
    name = "limit"
    note = "parallel stat of every file, sources and outputs"
    cases = ("noop", "leaf", "plan", "affected", "explain")

    def command(self, case: str) -> list[str] | None:
        return [str(self.bench.native), "stat", "."] if case in self.cases else None


@peer
class Read(Baseline):
    name = "read"
    note = "parallel read and BLAKE3 of every file, sources and outputs"

    def command(self, case: str) -> list[str] | None:
        return [str(self.bench.native), "read", "."] if case in ("noop", "digest", "clone") else None


class Copy(Baseline):
    flag = "-r"

    def command(self, case: str) -> list[str] | None:
        if case != "restore":
            return None
        # Into a tree where only the outputs are missing: what an engine does that has them lying ready.
        return ["cp", self.flag, "-T", str(self.bench.home / f"outputs-{self.repo.size}"), str(self.tree)]


@peer
class CopyFiles(Copy):
    name = "cp -r"
    note = "`cp -r` of all outputs"


@peer
class CopyLinks(Copy):
    name = "cp -l"
    note = "`cp -rl` of all outputs: hard links"
    flag = "-rl"


@peer
class Xargs(Baseline):
    name = "xargs"
    note = f"`xargs -P{CORES}` of the bare commands, in order"

    def list_file(self) -> Path:
        return self.bench.home / f"commands-{self.repo.size}"

    def define(self, root: Path) -> None:
        # Kinds one after the other, so that a test rarely comes before its build.
        lines = [f"-C {it.dir} {' '.join(it.words(kind))}" for kind in KINDS for it in self.repo.packages]
        self.list_file().write_text("\n".join(lines) + "\n")

    def command(self, case: str) -> list[str] | None:
        if case != "cold":
            return None
        return ["xargs", f"-P{CORES}", "-L1", "-a", str(self.list_file()), str(self.bench.chore)]

    def states(self) -> list[Path]:
        return []

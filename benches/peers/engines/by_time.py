"""Engines that go by the time of files: one file of rules for the whole tree."""

from pathlib import Path

from engines.base import CORES, Peer, on_path, peer, version_of
from monorepo import KINDS


class ByTime(Peer):
    """One file of rules for the whole tree; no results are kept, so what was deleted is made again."""

    def edges(self):
        for package in self.repo.packages:
            for kind in KINDS:
                below = [f"{it.dir}/dist/index" for it in package.depends] if kind == "build" else []
                own = [f"{package.dir}/dist/index"] if kind == "test" else []
                sources = [f"{package.dir}/{path}" for path in package.sources]
                yield package, kind, sources, below + own

    def dry(self) -> list[str]:
        raise NotImplementedError

    def whole(self) -> list[str]:
        raise NotImplementedError

    def command(self, case: str) -> list[str] | None:
        return self.dry() if case in ("plan", "affected") else None if case == "explain" else self.whole()


@peer
class Ninja(ByTime):
    name = "ninja"
    note = "one build.ninja, `restat`, outputs left alone where right"

    def find(self) -> None:
        self.program = on_path("ninja", "`apt-get install ninja-build` or `pip install ninja`")

    def version(self) -> str:
        return version_of(self.program, "--version")

    def define(self, root: Path) -> None:
        lines = ["rule chore", f"  command = {self.bench.chore} -C $dir --keep $words", "  restat = 1"]
        for package, kind, sources, needs in self.edges():
            outputs = " ".join(f"{package.dir}/{path}" for path in package.outputs(kind))
            lines.append(f"build {outputs}: chore | {' '.join(sources + needs)}")
            lines += [f"  dir = {package.dir}", f"  words = {' '.join(package.words(kind))}"]
        (root / "build.ninja").write_text("\n".join(lines) + "\n")

    def whole(self) -> list[str]:
        return [self.program, f"-j{CORES}"]

    def dry(self) -> list[str]:
        return [self.program, "-n"]

    def command(self, case: str) -> list[str] | None:
        return [self.program, "-n", "-d", "explain"] if case == "explain" else super().command(case)

    def states(self) -> list[Path]:
        return [self.tree / ".ninja_log", self.tree / ".ninja_deps"]


@peer
class Make(ByTime):
    name = "make"
    note = "one Makefile, no built-in rules"

    def find(self) -> None:
        self.program = on_path("make", "`apt-get install make`")

    def version(self) -> str:
        return version_of(self.program, "--version")

    def define(self, root: Path) -> None:
        lines = ["MAKEFLAGS += -rR --no-print-directory", ".SUFFIXES:", "all:"]
        for package, kind, sources, needs in self.edges():
            if kind == "build":
                lines.append(f"S{package.number} := {' '.join(sources)}")
            target = f"{package.dir}/{package.outputs(kind)[0]}"
            lines += [f"all: {target}", f"{target}: $(S{package.number}) {' '.join(needs)}"]
            lines.append(f"\t@{self.bench.chore} -C {package.dir} {' '.join(package.words(kind))}")
        (root / "Makefile").write_text("\n".join(lines) + "\n")

    def whole(self) -> list[str]:
        return [self.program, f"-j{CORES}"]

    def dry(self) -> list[str]:
        return [self.program, "-n"]

    def states(self) -> list[Path]:
        return []

"""The engines that are compared, each in its own language and configured at its best, and the baselines beside them.

To add one: a class below `Peer`, with `@peer`. It writes its definitions, says which words it runs for which question, and where
it keeps results. Everything else (trees, edits, stopwatch, counting) is the same for all and lies in `run.py`.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from monorepo import KINDS, Monorepo, Package

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

    def told(self, case: str, text: str) -> int | None:
        """Tasks that ran, where it says so itself and `ran.log` cannot know."""
        return None


def version_of(*words: str) -> str:
    out = subprocess.run(words, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", out.stdout + out.stderr)
    return found.group() if found else ""


# ---------------------------------------------------------------------------------------------------------------- Drystone


@peer
class Drystone(Peer):
    name = "drystone"
    note = "sandbox `namespaces`, manifests in each package, one job slot per core"
    restores = digests = True
    # What is asked for is the best there is: namespaces, on the machines this is measured on.
    options: list[str] = []
    manifest = '[workspace]\nname = "bench"\npackages = ["area*/*"]\n'

    def find(self) -> None:
        if not self.bench.drystone.exists():
            raise Missing("`cargo build --release` makes it, or `--drystone FILE` names it")

    def version(self) -> str:
        return version_of(str(self.bench.drystone), "--version")

    def define(self, root: Path) -> None:
        (root / "drystone.toml").write_text(self.manifest)
        for package in self.repo.packages:
            lines = ["[package]", f"name = {json.dumps(package.name)}"]
            lines.append(f"depends = {json.dumps(['//' + below.dir for below in package.depends])}")
            for kind in KINDS:
                lines += ["", f"[task.{kind}]", f"run = {json.dumps(['chore', *package.words(kind)])}", 'inputs = ["src/**"]']
                lines.append(f"outputs = {json.dumps(package.output_patterns(kind))}")
                needs = {"build": ["^build"], "test": [":build"]}.get(kind)
                lines += [f"needs = {json.dumps(needs)}"] if needs else []
            (root / package.dir / "drystone.toml").write_text("\n".join(lines) + "\n")

    def command(self, case: str) -> list[str] | None:
        program = str(self.bench.drystone)
        match case:
            case "plan" | "digest":
                return [program, "plan", *KINDS]
            case "affected":
                return [program, "affected", "HEAD"]
            case "explain":
                return [program, "explain", f"//{self.repo.middle.dir}:build"]
            case _:
                return [program, "run", *KINDS, *self.options]

    def environment(self) -> dict[str, str]:
        return {"DRYSTONE_STORE": str(self.cache)}

    def told(self, case: str, text: str) -> int | None:
        if case in ("plan", "digest", "affected", "explain"):
            return 0
        counts = re.search(r"^\d+ (?:hit|ran)\b.* in .*$", text, re.MULTILINE)
        ran = re.search(r"(\d+) ran", counts.group()) if counts else None
        return int(ran.group(1)) if ran else 0


@peer
class DrystoneNone(Drystone):
    name = "drystone-none"
    note = "as drystone, without its sandbox: a private copy of the inputs"
    options = ["--isolation=none"]

    def command(self, case: str) -> list[str] | None:
        # Only what a sandbox costs: all else is the same program doing the same.
        return super().command(case) if case in ("cold", "restore", "clone") else None


@peer
class DrystoneLink(Drystone):
    name = "drystone-link"
    note = "as drystone, outputs are links into its store (`materialize = \"link\"`): beside `cp -l`"
    digests = False
    aside = ("cold",)
    manifest = Drystone.manifest + '\n[store]\nmaterialize = "link"\n'

    def command(self, case: str) -> list[str] | None:
        # A cold run is what all begin with, and what brings edits up to date.
        return super().command(case) if case in ("cold", "restore") else None


# ----------------------------------------------------------------------------------------------- engines that go by the time


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


# --------------------------------------------------------------------------------------------------- engines of the npm world


class Npm(Peer):
    """A workspace of npm packages, with `pnpm` (one native program) where an engine starts scripts through a package manager."""

    restores = True
    modules: tuple[str, ...] = ()

    def manifest(self, package: Package) -> dict:
        return {}

    def write_packages(self, root: Path, **top) -> None:
        write_json(root / "package.json", {"name": "bench", "private": True, **top})
        (root / "pnpm-workspace.yaml").write_text("packages:\n  - area*/*\nverifyDepsBeforeRun: false\npmOnFail: ignore\n")
        lock = ["lockfileVersion: '9.0'", "importers:", "  .: {}"]
        for package in self.repo.packages:
            depends = {below.name: "workspace:*" for below in package.depends}
            own = {"name": package.name, "version": "0.0.0", "private": True, "dependencies": depends}
            write_json(root / package.dir / "package.json", own | self.manifest(package))
            lock.append(f"  {package.dir}:" + ("" if depends else " {}"))
            lock += ["    dependencies:"] if depends else []
            for below in package.depends:
                lock += [f"      {below.name}:", "        specifier: workspace:*"]
                lock.append(f"        version: link:{os.path.relpath(below.dir, package.dir)}")
        (root / "pnpm-lock.yaml").write_text("\n".join(lock) + "\n")

    def line(self, package: Package, kind: str) -> str:
        return " ".join([str(self.bench.chore), *package.words(kind)])

    def link(self, root: Path) -> None:
        for name in self.modules:
            place = root / "node_modules" / name
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(self.bench.module(name, name))


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


@peer
class Turbo(Npm):
    name = "turbo"
    note = "native program, scripts through native pnpm, one task per core"

    def find(self) -> None:
        install = "turbo@2 pnpm@12"
        for place in ("@turbo/linux-64/bin/turbo", "@turbo/linux-arm64/bin/turbo", "turbo-linux-64/bin/turbo"):
            try:
                self.program = self.bench.module(place, install)
                break
            except Missing:
                continue
        else:
            self.program = self.bench.module("turbo/bin/turbo", install)
        self.bench.module("pnpm", install)

    def version(self) -> str:
        return version_of(str(self.program), "--version")

    def environment(self) -> dict[str, str]:
        native = sorted((self.bench.node / "node_modules/@pnpm").glob("exe.*"))
        first = native[0] if native else self.bench.node / "node_modules/.bin"
        path = f"{first}:{self.bench.node}/node_modules/.bin:{os.environ['PATH']}"
        off = {"TURBO_TELEMETRY_DISABLED": "1", "DO_NOT_TRACK": "1", "TURBO_NO_UPDATE_NOTIFIER": "1"}
        return {"TURBO_CACHE_DIR": str(self.cache), "PATH": path} | off

    def manifest(self, package: Package) -> dict:
        return {"scripts": {kind: self.line(package, kind) for kind in KINDS}}

    def define(self, root: Path) -> None:
        self.write_packages(root, packageManager=f"pnpm@{version_of(str(self.bench.module('.bin/pnpm', 'pnpm@12')), '--version')}")
        tasks = {
            "build": {"dependsOn": ["^build"], "inputs": ["src/**"], "outputs": ["dist/**"]},
            "lint": {"inputs": ["src/**"], "outputs": ["checked/lint"]},
            "test": {"dependsOn": ["build"], "inputs": ["src/**"], "outputs": ["checked/test"]},
        }
        write_json(root / "turbo.json", {"tasks": tasks})

    def command(self, case: str) -> list[str] | None:
        run = [str(self.program), "run", *KINDS, f"--concurrency={CORES}", "--output-logs=errors-only"]
        match case:
            case "plan":
                return [*run, "--dry"]
            case "affected":
                return [*run, "--affected", "--dry"]
            case "explain":
                return [str(self.program), "run", "build", f"--filter={self.repo.middle.name}", "--dry"]
            case _:
                return run

    def states(self) -> list[Path]:
        return [self.cache, self.tree / ".turbo", self.tree / "node_modules/.cache"]


@peer
class Nx(Npm):
    name = "nx"
    note = "no daemon, dependencies declared (no analysis of sources), one task per core"
    modules = ("nx",)

    def find(self) -> None:
        on_path("node", "Node.js")
        self.program = self.bench.module("nx/dist/bin/nx.js", "nx")

    def version(self) -> str:
        return json.loads(self.bench.module("nx/package.json", "nx").read_text())["version"]

    def environment(self) -> dict[str, str]:
        places = {"NX_CACHE_DIRECTORY": str(self.cache), "NX_WORKSPACE_DATA_DIRECTORY": str(self.cache / "data")}
        return places | {"NX_DAEMON": "false", "NX_NO_CLOUD": "true", "NX_TUI": "false", "DO_NOT_TRACK": "1", "NO_COLOR": "1"}

    def define(self, root: Path) -> None:
        write_json(root / "package.json", {"name": "bench", "version": "0.0.0", "private": True})
        common = {"cache": True, "inputs": ["default", "^default"]}
        write_json(
            root / "nx.json",
            {
                "defaultBase": "main",
                "analytics": False,
                "neverConnectToCloud": True,
                "namedInputs": {"default": ["{projectRoot}/src/**/*"]},
                "targetDefaults": {
                    "build": common | {"dependsOn": ["^build"], "outputs": ["{projectRoot}/dist"]},
                    "lint": common | {"inputs": ["default"], "outputs": ["{projectRoot}/checked/lint"]},
                    "test": common | {"dependsOn": ["build"], "outputs": ["{projectRoot}/checked/test"]},
                },
                "pluginsConfig": {
                    "@nx/js": {"analyzeSourceFiles": False, "analyzePackageJson": False, "analyzeLockfile": False}
                },
            },
        )
        for package in self.repo.packages:
            targets = {}
            for kind in KINDS:
                options = {"command": self.line(package, kind), "cwd": package.dir}
                targets[kind] = {"executor": "nx:run-commands", "options": options}
            project = {"name": package.name, "root": package.dir, "targets": targets}
            project["implicitDependencies"] = [below.name for below in package.depends]
            write_json(root / package.dir / "project.json", project)

    def command(self, case: str) -> list[str] | None:
        match case:
            case "plan" | "explain":
                return None
            case "affected":
                return ["node", str(self.program), "show", "projects", "--affected", "--uncommitted"]
            case _:
                words = ["run-many", "-t", *KINDS, f"--parallel={CORES}", "--outputStyle=static"]
                return ["node", str(self.program), *words]

    def states(self) -> list[Path]:
        return [self.cache, self.tree / ".nx"]


@peer
class ViteTask(Npm):
    name = "vite-task"
    note = "`vp run` of vite-plus with declared inputs and outputs"
    modules = ("vite-plus",)

    def find(self) -> None:
        on_path("node", "Node.js")
        self.program = self.bench.module("vite-plus/bin/vp", "vite-plus")

    def version(self) -> str:
        return json.loads(self.bench.module("vite-plus/package.json", "vite-plus").read_text())["version"]

    def define(self, root: Path) -> None:
        self.write_packages(root)
        early = self.version().startswith("0.")
        last = [f"{package.name}#{kind}" for package in self.repo.packages for kind in ("lint", "test")]
        self.config(root, {"everything": {"command": "true", "cache": False, "dependsOn": last}})
        for package in self.repo.packages:
            tasks = {}
            for kind in KINDS:
                inputs: list = ["src/**"]
                if kind == "build":
                    inputs += [{"pattern": f"{it.dir}/dist/index", "base": "workspace"} for it in package.depends]
                elif kind == "test":
                    inputs.append("dist/index")
                files = {"input": inputs, "output": package.output_patterns(kind)}
                # Before its first release they stood in the task itself.
                tasks[kind] = {"command": self.line(package, kind)} | (files if early else {"cache": files})
            tasks["build"]["dependsOn"] = [f"{below.name}#build" for below in package.depends]
            tasks["test"]["dependsOn"] = ["build"]
            self.config(root / package.dir, tasks)

    def config(self, directory: Path, tasks: dict) -> None:
        (directory / "vite.config.ts").write_text(f"export default {json.dumps({'run': {'tasks': tasks}}, indent=1)};\n")

    def command(self, case: str) -> list[str] | None:
        # Its results lie in the tree and its dry run is none: no clone, no plan.
        if case in ("plan", "affected", "explain", "clone"):
            return None
        return ["node", str(self.program), "run", "everything"]

    def states(self) -> list[Path]:
        return [self.tree / "node_modules/.vite"]


# --------------------------------------------------------------------------------------------------------------- baselines


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

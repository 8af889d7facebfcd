"""Engines of the npm world."""

import json
import os
from pathlib import Path

from engines.base import CORES, Missing, Peer, on_path, peer, version_of
from monorepo import KINDS, Package


class Npm(Peer):
    """A workspace of npm packages, with `pnpm` (one native program) where an engine starts scripts through a package manager."""

    restores = True
    modules: tuple[str, ...] = ()

    def version(self) -> str:
        name = self.modules[0]
        return json.loads(self.bench.module(f"{name}/package.json", name).read_text())["version"]

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

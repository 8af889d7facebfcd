"""moon, with its default concurrency of one task per core."""

import json
from pathlib import Path

from engines.base import Peer, peer, version_of
from monorepo import KINDS


@peer
class Moon(Peer):
    name = "moon"
    # Its default walk starts a `git ls-files` for each task.
    note = "native program, system toolchain, `hasher.walkStrategy: glob`, no daemon"
    restores = True

    def find(self) -> None:
        self.program = self.bench.module("@moonrepo/core-linux-x64-gnu/moon", "@moonrepo/cli@2")

    def version(self) -> str:
        return version_of(str(self.program), "--version")

    def environment(self) -> dict[str, str]:
        return {"DO_NOT_TRACK": "1", "NO_COLOR": "1"}

    def define(self, root: Path) -> None:
        (root / ".moon").mkdir()
        vcs = "vcs:\n  client: git\n  defaultBranch: main\n"
        rest = "telemetry: false\nhasher:\n  walkStrategy: glob\n"
        (root / ".moon/workspace.yml").write_text(f"projects:\n  - 'area*/*'\n{vcs}{rest}")
        for package in self.repo.packages:
            # JSON is YAML.
            tasks = {}
            for kind in KINDS:
                outputs = ["dist"] if kind == "build" else package.outputs(kind)
                needs = {"build": ["^:build"] if package.depends else [], "test": ["~:build"]}.get(kind, [])
                tasks[kind] = {
                    "command": " ".join([str(self.bench.chore), *package.words(kind)]),
                    "toolchains": ["system"],
                    "inputs": ["src/**/*"],
                    "outputs": outputs,
                    "deps": needs,
                    "options": {"shell": False, "runFromWorkspaceRoot": False, "cache": True},
                }
            project = {"language": "unknown", "dependsOn": [below.name for below in package.depends], "tasks": tasks}
            (root / package.dir / "moon.yml").write_text(json.dumps(project, indent=1) + "\n")

    def command(self, case: str) -> list[str] | None:
        match case:
            case "affected":
                return [str(self.program), "query", "affected", "--downstream", "deep"]
            # Its results lie in the tree.
            case "plan" | "explain" | "clone":
                return None
            case _:
                return [str(self.program), "run", *(f":{kind}" for kind in KINDS), "--quiet"]

    def states(self) -> list[Path]:
        return [self.tree / ".moon/cache"]

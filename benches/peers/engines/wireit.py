"""wireit, started as npm starts it, without the tenth of a second that npm takes itself."""

from pathlib import Path

from engines.base import CORES, on_path, peer
from engines.npm import Npm, write_json
from monorepo import KINDS, Package


@peer
class Wireit(Npm):
    name = "wireit"
    note = "`node wireit` with the variables of npm, one task per core"
    modules = ("wireit",)

    def find(self) -> None:
        self.node = on_path("node", "Node.js")
        self.program = self.bench.module("wireit/bin/wireit.js", "wireit")

    def environment(self) -> dict[str, str]:
        npm = {"npm_lifecycle_event": "everything", "npm_package_json": str(self.tree / "package.json"), "npm_execpath": "npm"}
        npm["npm_config_user_agent"] = "npm/11.0.0 node/v20.0.0 linux x64 workspaces/false"
        return npm | {"WIREIT_LOGGER": "quiet-ci", "WIREIT_PARALLEL": str(CORES)}

    def define(self, root: Path) -> None:
        last = [f"./{package.dir}:{kind}" for package in self.repo.packages for kind in KINDS]
        top = {"everything": {"dependencies": last, "packageLocks": []}}
        write_json(root / "package.json", {"name": "bench", "private": True, "scripts": {"everything": "wireit"}, "wireit": top})
        for package in self.repo.packages:
            own = {"name": package.name, "version": "0.0.0", "private": True, "scripts": {kind: "wireit" for kind in KINDS}}
            write_json(root / package.dir / "package.json", own | {"wireit": {kind: self.script(package, kind) for kind in KINDS}})

    def script(self, package: Package, kind: str) -> dict:
        below = [f"../../{it.dir}:build" for it in package.depends]
        needs = {"build": below, "test": ["build"]}.get(kind, [])
        files = {"files": ["src/**"], "output": package.output_patterns(kind), "packageLocks": []}
        return {"command": self.line(package, kind), "dependencies": needs} | files

    def command(self, case: str) -> list[str] | None:
        # Its results lie in the tree, and it answers no questions.
        if case in ("plan", "affected", "explain", "clone"):
            return None
        return [self.node, str(self.program)]

    def states(self) -> list[Path]:
        return [self.tree / ".wireit", *(self.tree / package.dir / ".wireit" for package in self.repo.packages)]

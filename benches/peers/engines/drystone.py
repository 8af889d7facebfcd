"""Drystone, with its sandbox, without, and with links."""

import json
import re
from pathlib import Path

from engines.base import Missing, Peer, peer, version_of
from monorepo import KINDS


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

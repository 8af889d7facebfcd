"""Bazel, with its server: the one engine here that leaves something running."""

import os
import subprocess
from pathlib import Path

from engines.base import Peer, on_path, peer
from monorepo import KINDS, Package


@peer
class Bazel(Peer):
    name = "bazel"
    note = "its server is up before it is timed (CPU and memory are of its client), genrules without a sandbox, `--disk_cache`"
    restores = True

    def find(self) -> None:
        self.program = on_path("bazel", "`apt-get install bazel-bootstrap`")
        self.users = self.bench.home / "bazel" / self.repo.size

    def version(self) -> str:
        # Debian's says nothing of it itself.
        words = ["dpkg-query", "-W", "-f", "${Version}", "bazel-bootstrap"]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.partition("+")[0]

    def words(self, *words: str) -> list[str]:
        first = [self.program, "--nohome_rc", f"--output_user_root={self.users}", "--max_idle_secs=1200"]
        return [*first, *words]

    def define(self, root: Path) -> None:
        (root / "WORKSPACE").write_text('workspace(name = "bench")\n')
        (root / "BUILD.bazel").write_text("")
        for package in self.repo.packages:
            lines = ['package(default_visibility = ["//visibility:public"])', 'SOURCES = glob(["src/**"])']
            lines += [self.rule(package, kind) for kind in KINDS]
            (root / package.dir / "BUILD.bazel").write_text("\n".join(lines) + "\n")

    def rule(self, package: Package, kind: str) -> str:
        below = [f"//{it.dir}:dist/index" for it in package.depends]
        needs = {"build": below, "test": ["dist/index"]}.get(kind, [])
        needs = ", ".join(f'"{need}"' for need in needs)
        outputs = ", ".join(f'"{path}"' for path in package.outputs(kind))
        command = f"{self.bench.chore} -C {package.dir} --made $(BINDIR) {' '.join(package.words(kind))}"
        return f'genrule(name = "{kind}", srcs = SOURCES + [{needs}], outs = [{outputs}], cmd = "{command}")'

    def command(self, case: str) -> list[str] | None:
        options = ["--spawn_strategy=local", "--genrule_strategy=local", f"--disk_cache={self.cache}"]
        options += ["--noshow_progress", "--color=no", "--curses=no", "--show_result=0", "--host_javabase=@local_jdk//:jdk"]
        match case:
            case "plan":
                return self.words("build", "--nobuild", *options, "//...")
            case "affected":
                middle = self.repo.middle
                return self.words("query", "--noshow_progress", f"rdeps(//..., //{middle.dir}:{middle.sources[0]})")
            # A server of its own for a clone would be measured starting.
            case "explain" | "clone":
                return None
            case _:
                return self.words("build", *options, "//...")

    def environment(self) -> dict[str, str]:
        # Where nobody is named, it does not start.
        return {"USER": os.environ.get("USER", "bench")}

    def output(self, package: Package, path: str) -> Path:
        return self.tree / "bazel-out/k8-fastbuild/bin" / package.dir / path

    def start(self) -> None:
        subprocess.run(self.words("info", "--noshow_progress"), cwd=self.tree, env=os.environ | self.environment(), capture_output=True, check=False)

    def stop(self) -> None:
        if self.users.exists():
            subprocess.run(self.words("shutdown"), cwd=self.tree, capture_output=True, check=False)

    def states(self) -> list[Path]:
        return [self.cache, self.users]

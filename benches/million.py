#!/usr/bin/env python3
"""A workspace of very many tasks, generated: 10,000 packages with 100 tasks each are a million.

    python3 benches/million.py /tmp/million                 # 10,000 packages
    python3 benches/million.py /tmp/small --packages 100
    cd /tmp/million && time drystone plan >plan.txt

Templates of the root manifest make the tasks, as in a repository whose packages look alike: `build` after the builds of the packages
this one depends on, 96 variants of `test` (two axes of a matrix) after the build, `lint`, `docs` and `pack`. A package has three files.
Needs Python 3.11 and nothing else; writes the same bytes on every machine.
"""

import argparse
import random
from pathlib import Path

PACKAGES_PER_AREA = 100

ROOT = """[workspace]
name = "million"
packages = ["area*/*"]
pools = { emulator = 4 }

[[apply]]
to = ["area*/*"]
tasks = { build = "build", test = "test", lint = "lint", docs = "docs", pack = "pack" }

[template.build]
run = "cat src/a.c src/b.c >out && cp out ${package.name}.a"
inputs = ["src/**"]
outputs = ["out", "${package.name}.a"]
needs = ["^build"]
timeout = "10m"

[template.test]
run = "./test.sh --platform ${matrix.platform} --shard ${matrix.shard} >result-${matrix.platform}-${matrix.shard}"
inputs = ["src/**", "//testing/*.toml"]
outputs = ["result-${matrix.platform}-${matrix.shard}"]
needs = [":build"]
tags = ["test"]
env = { PLATFORM = "${matrix.platform}" }
resources = { pool = "emulator" }
matrix = { platform = [%s], shard = [%s] }

[template.lint]
run = "grep -c . src/a.c src/b.c"
inputs = ["src/**"]

[template.docs]
run = "cat README >manual"
inputs = ["README"]
outputs = ["manual"]
needs = [":build"]

[template.pack]
run = "tar cf pack.tar out manual"
inputs = []
outputs = ["pack.tar"]
needs = [":build", ":docs"]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--packages", type=int, default=10_000)
    arguments = parser.parse_args()
    root: Path = arguments.directory
    root.mkdir(parents=True)
    quoted = lambda words: ", ".join(f'"{word}"' for word in words)
    platforms = ("linux-amd64", "linux-arm64", "darwin-arm64", "windows-amd64", "android-arm64", "wasm32-wasi")
    (root / "drystone.toml").write_text(ROOT % (quoted(platforms), quoted(range(1, 17))))
    (root / "testing").mkdir()
    (root / "testing" / "options.toml").write_text("retries = 0\n")
    dice = random.Random("drystone million")
    names = [f"area{number // PACKAGES_PER_AREA:03}/unit-{number:05}" for number in range(arguments.packages)]
    for number, name in enumerate(names):
        source = root / name / "src"
        source.mkdir(parents=True)
        depends = sorted({dice.randrange(number) for _ in range(dice.choice((1, 2, 3, 4)))}) if number else []
        written = quoted(f"//{names[below]}" for below in depends)
        (root / name / "drystone.toml").write_text(f"[package]\nname = \"unit-{number:05}\"\ndepends = [{written}]\n")
        (root / name / "README").write_text(f"Unit {number}\n")
        (source / "a.c").write_text(f"int a_{number}(void) {{ return {number}; }}\n")
        (source / "b.c").write_text(f"int b_{number}(void) {{ return {number} + 1; }}\n")


if __name__ == "__main__":
    main()

"""One monorepo, the same on every machine: its packages, what they depend on, their sources. Knows no engine.

A package is `areaAA/unit-NNNN` and has three tasks, which run `chore` (see `native.rs`) in its directory:

    build   reads src/ and the dist/index of what the package depends on; writes dist/   after the builds of those
    lint    reads src/; writes checked/lint
    test    reads src/ and dist/index; writes checked/test                               after its build

Everything depends on the first package, directly or not, and nothing on the last. Sizes of files are spread as in real sources
(median about 2 KiB, a long tail).
"""

import random
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

SIZES = {"S": (20, 20), "M": (200, 50), "L": (1000, 100), "XL": (3000, 100)}  # packages, sources of each
KINDS = ("build", "lint", "test")
SOURCE_DIRS = ("src", "src/model", "src/view", "src/view/parts")
PACKAGES_PER_AREA = 25
COMMENT = "//"


@dataclass
class Package:
    number: int
    name: str
    dir: str
    parts: int
    depends: list["Package"] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def words(self, kind: str) -> list[str]:
        """The words after `chore`, for a command that runs in the package's directory."""
        if kind != "build":
            return [kind]
        return ["build", str(self.parts), *(f"../../{below.dir}" for below in self.depends)]

    def outputs(self, kind: str) -> list[str]:
        if kind != "build":
            return [f"checked/{kind}"]
        return ["dist/index", *(f"dist/part-{number}" for number in range(self.parts))]

    def output_patterns(self, kind: str) -> list[str]:
        return ["dist/**"] if kind == "build" else self.outputs(kind)


class Monorepo:
    def __init__(self, size: str):
        self.size = size
        count, sources = SIZES[size]
        dice = random.Random(f"drystone {size}")
        self.packages: list[Package] = []
        for number in range(count):
            name = f"unit-{number:04}"
            package = Package(number, name, f"area{number // PACKAGES_PER_AREA:02}/{name}", max(3, sources // 5))
            if number:
                # The first dependency lies about half way down, so that the depth grows with the logarithm of the count.
                chosen = {dice.randrange(number // 3, max(1, 2 * number // 3))}
                chosen |= {dice.randrange(number) for _ in range(dice.choice((0, 1, 1, 2, 3)))}
                package.depends = [self.packages[below] for below in sorted(chosen)]
            package.sources = [f"{SOURCE_DIRS[at % len(SOURCE_DIRS)]}/file{at:03}.ts" for at in range(sources)]
            self.packages.append(package)

    @property
    def root(self) -> Package:
        return self.packages[0]

    @property
    def leaf(self) -> Package:
        return self.packages[-1]

    @cached_property
    def middle(self) -> Package:
        """One that about a tenth of all packages depend on."""
        tenth = len(self.packages) / 10
        return min(self.packages[1:], key=lambda it: (abs(len(self.above(it)) - tenth), it.number))

    def above(self, package: Package) -> set[str]:
        """Names of the package and of all that depend on it, directly or not."""
        reached = {package.name}
        for other in self.packages[package.number + 1 :]:
            if any(below.name in reached for below in other.depends):
                reached.add(other.name)
        return reached

    def tasks(self) -> int:
        return len(self.packages) * len(KINDS)

    def files(self) -> int:
        return sum(len(package.sources) for package in self.packages)

    def outputs(self) -> int:
        return sum(len(package.outputs(kind)) for package in self.packages for kind in KINDS)

    def write_sources(self, root: Path) -> None:
        dice = random.Random(f"sources {self.size}")
        text = prose(dice)
        for package in self.packages:
            for below in SOURCE_DIRS:
                (root / package.dir / below).mkdir(parents=True, exist_ok=True)
            for path in package.sources:
                length = int(min(48_000, max(100, dice.lognormvariate(7.6, 1.0))))
                begin = dice.randrange(len(text) - length)
                head = f"export const origin = '{package.name}/{path}';\n"
                (root / package.dir / path).write_text(head + text[begin : begin + length].partition("\n")[2] + "\n")


def prose(dice: random.Random) -> str:
    """Lines that look like source code to a compressor: half a MiB to cut files from."""
    nouns = ("order", "price", "basket", "invoice", "session", "route", "panel", "cursor", "batch", "ledger", "quota", "badge")
    verbs = ("load", "merge", "paint", "close", "count", "split", "check", "yield", "store", "match")
    lines: list[str] = []
    length = 0
    while length < 1 << 19:
        noun, other, verb, figure = dice.choice(nouns), dice.choice(nouns), dice.choice(verbs), dice.getrandbits(30)
        lines.append(
            dice.choice(
                (
                    f"export function {verb}_{noun}(it: {other.title()}) {{ return it.{verb}({figure}); }}\n",
                    f"    const {noun} = {other}.{verb}('{figure:x}');\n",
                    f"    if ({noun}.length > {figure % 1000}) return {verb}({other});\n",
                    f"{COMMENT} {verb} the {noun} before the {other}: see {figure:x}\n",
                    "\n",
                )
            )
        )
        length += len(lines[-1])
    return "".join(lines)

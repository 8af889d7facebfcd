#!/usr/bin/env python3
"""Checks the licence and the source of every dependency against deny.toml, without cargo-deny.

Reads `cargo metadata` for this platform. Exits with 1 and one line per package that is not allowed.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
CARGO = os.environ.get("CARGO", "cargo")


def said_by(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def satisfied(expression, allowed, used):
    """Whether an SPDX expression (annex D of the specification; `/` as in old manifests is OR) holds with these licences."""
    words = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    at = 0

    def word():
        return words[at] if at < len(words) else None

    def one():
        nonlocal at
        if word() == "(":
            at += 1
            holds = any_of()
            at += 1
            return holds
        name = words[at]
        at += 1
        if word() == "WITH":
            name = f"{name} WITH {words[at + 1]}"
            at += 2
        if name in allowed:
            used.add(name)
        return name in allowed

    def all_of():
        nonlocal at
        holds = one()
        while word() == "AND":
            at += 1
            # Every part is read, even when the verdict is known.
            holds = one() and holds
        return holds

    def any_of():
        nonlocal at
        holds = all_of()
        while word() == "OR":
            at += 1
            holds = all_of() or holds
        return holds

    holds = any_of()
    if at != len(words):
        raise ValueError(f"cannot read the licence expression {expression!r}")
    return holds


def main():
    policy = tomllib.loads((ROOT / "deny.toml").read_text(encoding="utf-8"))["licenses"]
    exceptions = {entry["crate"]: set(entry["allow"]) for entry in policy.get("exceptions", [])}
    host = re.search(r"^host: (\S+)$", said_by(os.environ.get("RUSTC", "rustc"), "-vV"), re.MULTILINE)[1]
    metadata = json.loads(
        said_by(CARGO, "metadata", "--format-version", "1", "--locked", "--filter-platform", host)
    )
    problems, used, excepted, registries = [], set(), set(), set()
    for package in metadata["packages"]:
        name = f"{package['name']} {package['version']}"
        source = package["source"]
        if source is not None and not source.startswith("registry+"):
            problems.append(f"{name}: comes from {source}; only registry releases are allowed")
        registries.add(source)
        licence = package["license"]
        if licence is None:
            problems.append(f"{name}: names no licence; replace it, or look at its licence file and add an exception")
            continue
        extra = exceptions.get(package["name"], set())
        if satisfied(licence, set(policy["allow"]), used):
            continue
        if satisfied(licence, set(policy["allow"]) | extra, used):
            excepted.add(package["name"])
            continue
        problems.append(f"{name}: {licence} is not allowed; replace it, or decide in deny.toml")
    if len(registries - {None}) > 1:
        problems.append(f"packages come from {len(registries - {None})} registries, one is allowed")
    for name in sorted(set(policy["allow"]) - used):
        print(f"note: nothing needs the licence {name} of deny.toml on this platform")
    for name in sorted(set(exceptions) - excepted):
        print(f"note: nothing needs the exception for {name} of deny.toml on this platform")
    for problem in problems:
        print(f"error: {problem}")
    print(f"{len(metadata['packages'])} packages, {len(problems)} problems")
    return 1 if problems else 0


sys.exit(main())

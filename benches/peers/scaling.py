#!/usr/bin/env python3
"""Times a no-op at every size, and tells what each further file and task costs: see README.md.

All sizes are prepared first and then take turns, so that what else the machine does meets all of them.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import report
from monorepo import SIZES, Monorepo
from peers import PEERS, Bench
from run import CHECKOUT, Comparison, erase, native_program


def options_of() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    words = lambda text: [word for word in text.split(",") if word]
    parser.add_argument("--sizes", type=words, default=list(SIZES), help=f"of {','.join(SIZES)}, smallest first")
    parser.add_argument("--peers", type=words, default=["drystone", "limit"], help=f"of {','.join(PEERS)}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--drystone", type=Path, default=CHECKOUT / "target/release/drystone")
    parser.add_argument("--node", type=Path, help="as in run.py")
    parser.add_argument("--native", type=Path, help="as in run.py")
    parser.add_argument("--home", type=Path, default=CHECKOUT / "target/peers", help="where trees and caches go")
    parser.add_argument("--json", type=Path, help="a file for all that was measured")
    parser.add_argument("--keep", action="store_true", help="leave trees and caches where they are")
    options = parser.parse_args()
    for given, known in ((options.sizes, SIZES), (options.peers, PEERS)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}")
    options.cases = ["noop"]
    return options


def main() -> int:
    options = options_of()
    home = options.home.resolve()
    program = native_program(options.native)
    comparisons = []
    try:
        for size in options.sizes:
            bench = Bench(home, Monorepo(size), options.drystone.resolve(), options.node and options.node.resolve())
            bench.tools.mkdir(parents=True, exist_ok=True)
            for place in (bench.native, bench.chore):
                if not comparisons:
                    place.unlink(missing_ok=True)
                    shutil.copy2(program, place)
            comparisons.append(Comparison(bench, options))
            comparisons[-1].prepare()
            # What changed a moment ago is read and not only looked at; the rounds are of trees that nobody touched lately.
            for case in comparisons[-1].cases:
                comparisons[-1].turn(case, 0)
            comparisons[-1].figures["noop"].clear()
        for number in range(options.rounds):
            began = time.monotonic()
            for comparison in comparisons:
                for case in comparison.cases:
                    comparison.turn(case, number)
            print(f"round {number + 1} of {options.rounds}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        results = [comparison.result() for comparison in comparisons]
    finally:
        if not options.keep:
            erase(home)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(report.scaling(results))
    return 1 if any(result["wrong_outputs"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())

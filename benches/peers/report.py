"""Tables of what `run.py` and `scaling.py` measured, as Markdown. `report.py FILE` prints those of a file that `--json` wrote."""

import json
import statistics
import sys
from pathlib import Path


def tables(result: dict) -> str:
    lines = [
        f"# {result['size']}: {result['packages']:,} packages, {result['files']:,} files, {result['tasks']:,} tasks",
        "",
        f"Medians of {result['rounds']} interleaved rounds; {result['machine']['cores']} cores, Linux {result['machine']['kernel']}. "
        "Ratios are medians of the ratios within a round.",
    ]
    for name, case in result["cases"].items():
        lines += ["", *of_case(name, case, result["tasks"])]
    lines += ["", "## Cache on disk after one cold run", "", "| peer | MiB |", "|---|---:|"]
    lines += [f"| {name} | {size / 2**20:.1f} |" for name, size in result["cache_bytes"].items() if size]
    lines += ["", "## Who took part", ""]
    for name, note in result["notes"].items():
        version = result["versions"].get(name, "")
        lines.append(f"- **{name}** {version}: {note}".replace(" :", ":"))
    lines += [f"- **{name}** was SKIPPED: {reason.splitlines()[0]}" for name, reason in result["skipped"].items()]
    for name, cases in result["wrong_outputs"].items():
        lines.append(f"- **{name} left WRONG OUTPUTS** after: {', '.join(cases)}")
    return "\n".join(lines)


def of_case(name: str, case: dict, tasks: int) -> list[str]:
    runs = case["runs"]
    base, own = runs.get(case["against"]), runs.get("drystone")
    per_task = name == "cold" and base
    # Hard links are another thing than copies, so there is a second baseline for engines that make them.
    links = runs.get("cp -l") if name == "restore" else None
    head = ["peer", "median", "best", f"× {case['against']}", *(["× cp -l"] if links else [])]
    head += ["× drystone", "CPU", "peak MiB", f"ran ({case['must_run']} must)"]
    head += ["ms a task above xargs"] if per_task else []
    lines = [f"## {name}: {case['says']}", "", f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for peer, figures in runs.items():
        ran = sorted({it["ran"] for it in figures})
        cells = [
            peer,
            seconds(middle(figures, "wall")),
            seconds(min(it["wall"] for it in figures)),
            ratio(figures, base),
            *([ratio(figures, links)] if links else []),
            ratio(figures, own),
            seconds(middle(figures, "cpu")),
            f"{max(it['peak_kib'] for it in figures) / 1024:.0f}",
            "–".join(str(count) for count in dict.fromkeys((ran[0], ran[-1]))),
        ]
        if per_task:
            above = [1000 * (it["wall"] - under["wall"]) / tasks for it, under in zip(figures, base)]
            cells.append(f"{statistics.median(above):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def scaling(results: list[dict]) -> str:
    """A no-op by size, and what each further file and task adds. A file here is a source or an output: all that is looked at."""
    head = ["size", "packages", "files", "tasks", "peer", "wall", "CPU", "peak MiB", "× limit", "wall a file", "CPU a file"]
    head += ["wall a task", "wall, each further file", "CPU, each further file", "wall, each further task"]
    lines = [f"| {' | '.join(head)} |", "|---|---:|---:|---:|---|" + "---:|" * 10]
    before: dict[str, dict] = {}
    for result in results:
        runs = result["cases"]["noop"]["runs"]
        for peer, figures in runs.items():
            now = {name: middle(figures, name) for name in ("wall", "cpu")}
            now |= {"files": result["files"] + result["outputs"], "tasks": result["tasks"]}
            last = before.get(peer)
            each = lambda what, by: micros(now[what] / now[by])
            further = lambda what, by: micros((now[what] - last[what]) / (now[by] - last[by])) if last else "–"
            cells = [result["size"], f"{result['packages']:,}", f"{now['files']:,}", f"{now['tasks']:,}", peer]
            cells += [seconds(now["wall"]), seconds(now["cpu"]), f"{max(it['peak_kib'] for it in figures) / 1024:.0f}"]
            cells += [ratio(figures, runs.get("limit")), each("wall", "files"), each("cpu", "files"), each("wall", "tasks")]
            cells += [further("wall", "files"), further("cpu", "files"), further("wall", "tasks")]
            lines.append(f"| {' | '.join(cells)} |")
            before[peer] = now
    return "\n".join(lines)


def micros(value: float) -> str:
    return f"{1e6 * value:.2f} µs"


def middle(figures: list[dict], name: str) -> float:
    return statistics.median(it[name] for it in figures)


def ratio(figures: list[dict], others: list[dict] | None) -> str:
    if not others:
        return "–"
    return f"{statistics.median(it['wall'] / other['wall'] for it, other in zip(figures, others)):.2f}"


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text())
    print(scaling(found) if isinstance(found, list) else tables(found))

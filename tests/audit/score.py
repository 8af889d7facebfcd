#!/usr/bin/env python3
"""Scores an audit of the corpus. Usage: score.py [--partial] [--least PERCENT] [--may-lack DIMENSION,...] KEY REPORT.json

KEY is `corpus/key.json`, REPORT.json what `drystone audit --format json` prints. Prints what was missed, what was wrongly attributed and
what is a false alarm, then the score. Fails below the gate: all found (or `--least` percent of them), nothing wrongly attributed, no
false alarm, nothing left out. With `--partial`, tasks that the report does not have count for nothing. A cause whose variation had no
effect on the machine does not count if `--may-lack` names it; else it is missed.

The key, by label of the task:
  verdict    verdicts that are right
  causes     causes that were planted, each as the names that are right for it; none for a task that can be made again
  file       where it shows: a file of the outputs, or a directory with what lies beneath
  member     a member that lies on the way to it, or null
  certainty  `proven`, `suspected` or `any`
  dimension  the variation that shows it, several where each does, or null
  unstable   whether plain builds differ: then a dimension need not be told, but must be a right one if it is
  chance     whether it may stay away: then it is no miss if it does
"""

import argparse
import json
import sys

# Longest that is printed of one task.
DETAIL = 600


def listed(value):
    return [] if value is None else value if isinstance(value, list) else [value]


def place(site):
    return " > ".join([site["file"], *site["members"]])


def told(difference):
    dimension = difference["dimension"]
    return "%s (%s%s) in %s" % (
        difference["cause"]["id"], difference["certainty"], ", " + dimension if dimension else "", place(difference["site"]))


def trimmed(name):
    return name.removeprefix("./")


def place_is_right(expect, site):
    """Whether a site lies in the file and on the way through the member that the key tells."""
    file = expect["file"]
    if site["file"] != file and not site["file"].startswith(file + "/"):
        return False
    return expect["member"] is None or trimmed(expect["member"]) in map(trimmed, site["members"])


def objections(expect, difference):
    """What is wrong with a difference whose cause is right."""
    found = []
    if not place_is_right(expect, difference["site"]):
        found.append("expected in %s" % " > ".join([expect["file"], *listed(expect["member"])]))
    if expect["certainty"] not in ("any", difference["certainty"]):
        found.append("expected to be %s" % expect["certainty"])
    dimensions, dimension = listed(expect["dimension"]), difference["dimension"]
    may_be_silent = expect.get("unstable") or not dimensions
    if dimension is None and not may_be_silent:
        found.append("expected with %s" % " or ".join(dimensions))
    if dimension is not None and dimension not in dimensions:
        found.append("%s has no part in it" % dimension)
    return found


def is_untested(expect, task, may_lack):
    """Whether none of the variations that would show the cause could be made, and the machine may lack them."""
    dimensions = listed(expect["dimension"])
    if expect.get("unstable") or not dimensions:
        return False
    untested = {one["dimension"] for one in task["varied"] if one["effect"]["kind"] == "none" and one["dimension"] in may_lack}
    return untested.issuperset(dimensions)


class Score:
    """What was counted, and what there is to say of it."""

    def __init__(self, may_lack):
        self.may_lack = may_lack
        self.found, self.missed, self.wrong, self.alarms, self.absent = [], [], [], [], []
        self.untested, self.stayed_away = [], []

    def sober(self, label, expect, task):
        """A task that can be made again."""
        said = [told(one) for one in task["differences"]]
        if task["verdict"] not in expect["verdict"]:
            said.append("verdict %s" % task["verdict"])
        if said:
            self.alarms.append((label, "; ".join(said + task["notes"])))

    def planted(self, label, expect, task):
        """A task with causes. One word for each of them, and one more for what is told beside them."""
        own = [one for one in task["differences"] if one["consequence_of"] is None]
        if not own and is_untested(expect, task, self.may_lack):
            self.untested.append((label, "%s cannot be varied here" % " or ".join(listed(expect["dimension"]))))
            return
        if not own and expect.get("chance"):
            self.stayed_away.append((label, "verdict %s" % task["verdict"]))
            return
        accepted = {name for names in expect["causes"] for name in names}
        strangers = [told(one) for one in own if one["cause"]["id"] not in accepted]
        wrong = []
        for names in expect["causes"]:
            candidates = [one for one in own if one["cause"]["id"] in names]
            doubts = [(one, objections(expect, one)) for one in candidates]
            if any(not doubt for _, doubt in doubts):
                self.found.append((label, names[0]))
            elif doubts:
                one, doubt = min(doubts, key=lambda pair: len(pair[1]))
                wrong.append("%s: %s" % (told(one), ", ".join(doubt)))
            elif strangers:
                wrong.append("expected %s" % " or ".join(names))
            else:
                self.missed.append((label, "%s; verdict %s" % (" or ".join(names), task["verdict"])))
        wrong += ["told %s" % one for one in strangers]
        wrong += self.dimensions(expect, task)
        if own and task["verdict"] not in expect["verdict"]:
            wrong.append("verdict %s, expected %s" % (task["verdict"], " or ".join(expect["verdict"])))
        if wrong:
            self.wrong.append((label, "; ".join(wrong)))

    def dimensions(self, expect, task):
        """Variations that are said to make a difference on their own, and do not."""
        blamed = [one["dimension"] for one in task["varied"] if one["outcome"]["kind"] == "differs"]
        return ["%s is said to make it differ" % one for one in blamed if one not in listed(expect["dimension"])]


def score(key, report, is_partial, may_lack):
    """Counts. A task of the report that the key does not know is a mistake of the key, and ends it."""
    tasks = {task["label"]: task for task in report["tasks"]}
    strange = sorted(set(tasks) - set(key))
    if strange:
        sys.exit("score.py: the key does not know %s" % ", ".join(strange))
    why = {one["label"]: one["why"] for one in report["left_out"]}
    counted = Score(may_lack)
    for label, expect in sorted(key.items()):
        task = tasks.get(label)
        if task is None:
            if not is_partial:
                counted.absent.append((label, why.get(label, "not in the report")))
        elif expect["causes"]:
            counted.planted(label, expect, task)
        else:
            counted.sober(label, expect, task)
    return counted


def show(title, rows):
    if rows:
        print("%s:" % title)
    for label, text in rows:
        print("  %s  %s" % (label, text if len(text) <= DETAIL else text[:DETAIL] + " …"))


def main():
    parser = argparse.ArgumentParser(description="Scores an audit of the corpus.")
    parser.add_argument("key")
    parser.add_argument("report")
    parser.add_argument("--partial", action="store_true", help="tasks that the report does not have count for nothing")
    parser.add_argument("--least", type=float, default=100.0, metavar="PERCENT", help="least share of the causes that are found")
    parser.add_argument("--may-lack", default="", metavar="DIMENSION,...", help="variations that need not have an effect on this machine")
    options = parser.parse_args()
    with open(options.key) as file:
        key = json.load(file)
    with open(options.report) as file:
        report = json.load(file)
    if key["format"] != 1 or report["format"] != 1:
        sys.exit("score.py: the format of the key or of the report is not known")
    counted = score(key["tasks"], report, options.partial, set(filter(None, options.may_lack.split(","))))
    show("missed", counted.missed)
    show("wrongly attributed", counted.wrong)
    show("false alarms", counted.alarms)
    show("not audited", counted.absent)
    show("not testable on this machine", counted.untested)
    show("stayed away this time", counted.stayed_away)
    # A cause whose task has a word said against it does not count as found.
    doubted = {label for label, _ in counted.wrong}
    right = sum(label not in doubted for label, _ in counted.found)
    planted = right + len(counted.wrong) + len(counted.missed)
    share = 100.0 * right / planted if planted else 0.0
    print("found %d of %d (%.1f %%), wrongly attributed %d, missed %d, false alarms %d, not audited %d, not testable %d" % (
        right, planted, share, len(counted.wrong), len(counted.missed), len(counted.alarms), len(counted.absent), len(counted.untested)))
    passes = planted > 0 and share >= options.least and not counted.alarms and not counted.absent
    if options.least == 100.0:
        passes = passes and not counted.wrong
    print("passes" if passes else "fails")
    return 0 if passes else 1


if __name__ == "__main__":
    sys.exit(main())

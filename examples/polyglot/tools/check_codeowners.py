"""Every line names an absolute directory and at least one owner."""

import sys

problems = []
for number, line in enumerate(open(sys.argv[1], encoding="utf-8"), 1):
    words = line.split()
    if words and not (words[0].startswith("/") and len(words) > 1 and all(w.startswith("@") for w in words[1:])):
        problems.append(f"{sys.argv[1]}:{number}: expected `/directory/ @owner`")
print("\n".join(problems) or "owners are in order")
sys.exit(bool(problems))

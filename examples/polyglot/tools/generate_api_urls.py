"""Writes the routes of the back end as a JavaScript module."""

import ast
import json
import sys

source, target = sys.argv[1:]
routes = {}
for node in ast.parse(open(source, encoding="utf-8").read()).body:
    if isinstance(node, ast.Assign) and node.targets[0].id == "ROUTES":
        routes = ast.literal_eval(node.value)
with open(target, "w", encoding="utf-8") as out:
    out.write("// Generated from the routes of the back end. Do not edit.\n")
    out.write(f"export const apiUrls = {json.dumps(routes, indent=2, sort_keys=True)};\n")

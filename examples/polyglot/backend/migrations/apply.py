"""Applies every migration in order to an empty database."""

import pathlib
import sqlite3
import sys

with sqlite3.connect(sys.argv[1]) as database:
    for path in sorted(pathlib.Path(__file__).parent.glob("*.sql")):
        database.executescript(path.read_text(encoding="utf-8"))

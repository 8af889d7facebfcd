"""Orders in a database."""

import sqlite3


def add_order(path, user, cents):
    """Adds an order and returns how many the user has."""
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO orders (user, cents) VALUES (?, ?)", (user, cents))
        return database.execute("SELECT count(*) FROM orders WHERE user = ?", (user,)).fetchone()[0]

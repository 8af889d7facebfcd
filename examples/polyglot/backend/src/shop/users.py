"""Users and how they are greeted."""


def greeting(name):
    """A greeting; empty names are refused."""
    if not name.strip():
        raise ValueError("a user has a name")
    return f"Welcome, {name.strip()}"

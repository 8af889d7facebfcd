"""Orders: lines of (price in cents, count)."""


def total(lines):
    """The sum of an order in cents."""
    return sum(price * count for price, count in lines)

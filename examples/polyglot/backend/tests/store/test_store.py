import pathlib
import shutil
import tempfile
import unittest

from shop.store import add_order


class StoreTest(unittest.TestCase):
    def test_orders_are_counted_per_user(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "test.db"
            shutil.copyfile("schema.db", path)
            self.assertEqual(add_order(path, "ann", 600), 1)
            self.assertEqual(add_order(path, "ann", 250), 2)
            self.assertEqual(add_order(path, "bob", 100), 1)

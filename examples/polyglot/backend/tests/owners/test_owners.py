import pathlib
import unittest


class OwnersTest(unittest.TestCase):
    def test_the_back_end_has_an_owner(self):
        owners = pathlib.Path("../.github/CODEOWNERS").read_text(encoding="utf-8")
        self.assertIn("/backend/", owners)

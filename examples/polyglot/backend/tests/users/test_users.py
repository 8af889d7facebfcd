import unittest

from shop.users import greeting


class UsersTest(unittest.TestCase):
    def test_names_are_trimmed(self):
        self.assertEqual(greeting(" Ann "), "Welcome, Ann")

    def test_empty_names_are_refused(self):
        with self.assertRaises(ValueError):
            greeting(" ")

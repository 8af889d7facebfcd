import unittest

from shop.orders import total
from shop.urls import ROUTES


class OrdersTest(unittest.TestCase):
    def test_total_adds_lines(self):
        self.assertEqual(total([(250, 2), (100, 1)]), 600)

    def test_an_order_has_a_route(self):
        self.assertIn("{id}", ROUTES["order"])

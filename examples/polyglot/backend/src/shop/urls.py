"""The routes of the API. The front end gets them as a generated module."""

ROUTES = {
    "orders": "/api/orders/",
    "order": "/api/orders/{id}/",
    "users": "/api/users/",
}

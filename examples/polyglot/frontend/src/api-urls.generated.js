// Generated from the routes of the back end. Do not edit.
export const apiUrls = {
  "order": "/api/orders/{id}/",
  "orders": "/api/orders/",
  "users": "/api/users/"
};

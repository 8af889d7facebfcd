import assert from "node:assert/strict";
import { test } from "node:test";

import { address } from "../src/client.js";
import { price } from "../src/price.js";

test("parameters are filled in", () => assert.equal(address("order", { id: 7 }), "/api/orders/7/"));
test("unknown routes are refused", () => assert.throws(() => address("nothing")));
test("prices have two decimals", () => assert.equal(price(600), "6.00 €"));

// Loads the bundle as a browser would and uses it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

new Function(readFileSync(process.argv[2], "utf8"))();
assert.equal(globalThis.shop.address("order", { id: 7 }), "/api/orders/7/");
assert.equal(globalThis.shop.price(600), "6.00 €");
console.log("the bundle works");

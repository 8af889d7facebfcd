// Joins the modules into one file: enough of a bundler for an example.
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";

const [target] = process.argv.slice(2);
const parts = readdirSync("src").sort().map((name) => {
  const text = readFileSync(`src/${name}`, "utf8");
  const code = text.replace(/^import .*\n/gm, "").replace(/^export /gm, "").replace(/^\/\/.*\n/gm, "");
  return code.trim();
});
mkdirSync(target, { recursive: true });
writeFileSync(`${target}/shop.js`, `${parts.join("\n\n")}\nglobalThis.shop = { address, price };\n`);

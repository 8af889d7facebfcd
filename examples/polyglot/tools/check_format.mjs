// Fails on trailing blanks and on a missing newline at the end of a text.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

const problems = [];
let count = 0;
const visit = (dir) => {
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    const path = join(dir, entry.name);
    if (entry.isDirectory()) visit(path);
    else if (/\.(md|js|mjs)$/.test(entry.name)) {
      const text = readFileSync(path, "utf8");
      count += 1;
      if (/[ \t]+$/m.test(text)) problems.push(`${path}: trailing blanks`);
      if (!text.endsWith("\n")) problems.push(`${path}: no newline at the end`);
    }
  }
};
visit(".");
console.log(problems.join("\n") || `${count} texts are in order`);
process.exitCode = problems.length ? 1 : 0;

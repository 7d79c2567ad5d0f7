// The types, compiled with the strictest options. Needs `npm install` in this package.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import test from "node:test";
import { fileURLToPath } from "node:url";

const path = (name) => fileURLToPath(new URL(name, import.meta.url));
const tsc = path("../node_modules/typescript/bin/tsc");
const skip = existsSync(tsc) ? false : "typescript is not installed";

const OPTIONS = [
  ...["--strict", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes", "--noEmit", "--skipLibCheck", "false"],
  ...["--module", "nodenext", "--target", "es2023", "--lib", "es2023,esnext.disposable"],
];

test("a plugin and its tests compile, and mistakes do not", { skip }, () => {
  const files = [path("fixtures/types.ts"), path("fixtures/good.ts")];
  const { status, stdout } = spawnSync(process.execPath, [tsc, ...OPTIONS, ...files], {
    encoding: "utf8",
    cwd: path(".."),
  });
  assert.equal(status, 0, stdout);
});

// Builds of components. Needs `npm install` in this package.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import test, { after } from "node:test";
import { fileURLToPath } from "node:url";
import { lineTable } from "../build/lines.js";
import { worldOf } from "../build/world.js";
import { LINES, frames, location } from "../lib/stack.js";

const SDK = fileURLToPath(new URL("..", import.meta.url));
const missing = ["esbuild", "componentize-qjs"].find((name) => !existsSync(path.join(SDK, "node_modules", name)));
const skip = missing ? `${missing} is not installed` : false;
const folder = mkdtempSync(path.join(tmpdir(), "hostler-build-"));
after(() => rmSync(folder, { recursive: true }));

function build(...args) {
  const script = path.join(SDK, "build.js");
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...args], { encoding: "utf8", cwd: folder });
  return { status, stdout, stderr };
}

// Writes a source, builds it and returns what is printed as an error.
function refused(name, source) {
  writeFileSync(
    path.join(folder, name),
    source.replace('"hostler-plugin"', JSON.stringify(path.join(SDK, "hostler.js"))),
  );
  const { status, stderr } = build(name);
  assert.equal(status, 1, stderr);
  return stderr;
}

test("a plugin in TypeScript with a CommonJS package", { skip }, () => {
  const output = path.join(folder, "good.wasm");
  const { status, stdout, stderr } = build(path.join(SDK, "tests/fixtures/good.ts"), "--output", output);
  assert.equal(status, 0, stderr);
  assert.match(stdout, /good\.wasm: \d\.\d MiB, role model, world model-plugin/);
  const bytes = readFileSync(output);
  assert.deepEqual([...bytes.subarray(0, 4)], [0, 0x61, 0x73, 0x6d]);
  assert.ok(bytes.includes(LINES) && bytes.includes("tests/fixtures/good.ts"));
});

test("mistakes in a source", { skip }, () => {
  const start = 'import * as hostler from "hostler-plugin";\n';
  const wrong = [
    ["syntax.ts", "export const model = {\n  a: ;\n};\n", /syntax\.ts:2:6: Unexpected ";"/],
    [
      "fs.js",
      'import { readFileSync } from "fs";\nexport const model = readFileSync;\n',
      /fs\.js:1:30: cannot import "fs": a plugin has no Node API; read files .* hostler\.asset\(name\)/,
    ],
    [
      "crypto.js",
      'import c from "node:crypto";\nexport const model = c;\n',
      /cannot import "node:crypto": a plugin has no Node API/,
    ],
    [
      "package.js",
      'import x from "left-padd/x";\nexport const model = x;\n',
      /Could not resolve "left-padd\/x": install the package with npm install left-padd/,
    ],
    ["modle.js", "export const modle = {};\n", /exports `modle`, which is not a role \(did you mean "model"\?\)/],
    ["none.js", "const x = 1;\n", /it has no exports, and a plugin exports/],
    ["two.js", "export const model = {}, executor = {};\n", /exports `model` and `executor`/],
    [
      "misspelt.js",
      `${start}\nexport const model = hostler.model({ metadata() {}, predcit() {} });\n`,
      /unknown function "predcit" \(did you mean "predict"\?\)[^]*at <anonymous> \(misspelt\.js:3\)/,
    ],
    [
      "async.js",
      `${start}export const model = hostler.model({ metadata() {}, async predict() {} });\n`,
      /"predict" is an async function or a generator/,
    ],
    [
      "top.js",
      `${start}export const model = hostler.config("key");\n`,
      /calls the host \(get of wasi:config\/store@[^)]*\) outside of a function/,
    ],
    [
      "throws.js",
      `${start}function deep(nothing) {\n  return nothing.x;\n}\nexport const model = deep();\n`,
      /at deep \(throws\.js:3\)\n\s+at <anonymous> \(throws\.js:5\)/,
    ],
  ];
  for (const [name, source, expected] of wrong) assert.match(refused(name, source), expected, name);
});

test("mistakes in the command", { skip }, () => {
  const error = (...args) => build(...args).stderr;
  assert.match(error("gone.js"), /cannot build gone\.js: there is no such file/);
  assert.match(error("a.js", "b.js"), /one source is expected, and there are 2/);
  assert.match(error("--outptu", "x"), /Unknown option '--outptu'/);
  writeFileSync(path.join(folder, "plain.js"), "export const model = {};\n");
  assert.match(error("plain.js", "--wit", "nothing"), /cannot find the contract: nothing has no hostler\.wit/);
  assert.match(error("plain.js", "--world", "modle-plugin"), /no such world \(did you mean "model-plugin"\?\)/);
});

test("the world is the smallest that fits", () => {
  const world = (exported, ...names) =>
    worldOf("app.js", { exported, imported: names.map((name) => `hostler:plugin/${name}@0.1.0`) }).world;
  assert.equal(world(["model"], "types"), "model-plugin");
  assert.equal(world(["model"], "types", "models", "callables"), "calling-model-plugin");
  assert.equal(world(["model", "optionalInputs"]), "optional-model-plugin");
  assert.equal(world(["model", "optionalInputs"], "models"), "calling-optional-model-plugin");
  assert.equal(world(["transformer", "helper"], "callables"), "calling-transformer-plugin");
  assert.equal(world(["executor"], "models", "callables"), "executor-plugin");
  assert.equal(world(["executor"], "http"), "executor-outbound-plugin");
  assert.equal(world(["model", "optionalInputs"], "http"), "optional-model-outbound-plugin");
  assert.throws(() => world(["model", "optionalInput"]), /exports `optionalInput` \(did you mean "optionalInputs"\?\)/);
  assert.throws(() => world(["executor", "optionalInputs"]), /which only a model has/);
});

test("all chosen worlds are in the contract", () => {
  const wit = readFileSync(path.join(SDK, "../../wit/hostler.wit"), "utf8");
  for (const role of ["model", "transformer", "executor"]) {
    for (const imported of [[], ["hostler:plugin/models@0.1.0"], ["hostler:plugin/http@0.1.0"]]) {
      const exported = role === "model" ? [[role], [role, "optionalInputs"]] : [[role]];
      for (const names of exported) {
        const { world } = worldOf("app.js", { exported: names, imported });
        assert.ok(wit.includes(`\nworld ${world} {`), world);
      }
    }
  }
});

test("a table of lines names the author's lines", () => {
  // Line 1 has two segments: column 0 of a.ts:1, and column 4 of a.ts:3. Line 3 is b.ts:1.
  const table = lineTable({ sources: ["a.ts", "b.ts"], mappings: "AAAA,IAEA;;ACFA" }, (name) => name);
  assert.deepEqual(table, { sources: ["a.ts", "b.ts"], lines: [0, 1, -1, 0, 1, 1], more: { 1: [4, 3] } });
  const stack =
    "    at f (/x.js:1:2)\n    at /x.js:1:5\n    at g (/x.js:3:1)\n    at h (/x.js:9:1)\n    at native (native)";
  const places = frames(stack, table).map(({ name, place }) => `${name} ${place}`);
  assert.deepEqual(places, ["f a.ts:1", "<anonymous> a.ts:3", "g b.ts:1", "h /x.js:9:1"]);
  assert.equal(
    location("    at tensor (/sdk/js/lib/tensors.js:3:1)\n    at predict (/app.js:7:2)"),
    "predict (/app.js:7:2)",
  );
  assert.equal(location(undefined), null);
});

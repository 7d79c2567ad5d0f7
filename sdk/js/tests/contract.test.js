// The stand-ins have every function of `wit/hostler.wit`, and no other one.

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import test from "node:test";

const folder = [new URL("../../../wit/", import.meta.url), new URL("../wit/", import.meta.url)].find(existsSync);

const camel = (name) => name.replace(/-(.)/g, (_, letter) => letter.toUpperCase());

// Returns `interface -> names`: functions as `name`, methods as `Class.name`. Interfaces that a
// plugin exports are left out.
function contract(text) {
  const interfaces = new Map();
  let [current, resource] = [null, null];
  for (const line of text.split("\n")) {
    const opened = /^interface ([a-z-]+) \{/.exec(line);
    if (opened) interfaces.set((current = opened[1]), []);
    if (/^\}/.test(line)) current = null;
    if (current === null) continue;
    const kept = /^ {2}resource ([a-z-]+) \{/.exec(line);
    if (kept) resource = camel(`-${kept[1]}`);
    if (/^ {2}\}/.test(line)) resource = null;
    const [, indent, name] = /^( +)%?([a-z-]+): (?:static )?func\(/.exec(line) ?? [];
    if (name === undefined) continue;
    interfaces.get(current).push(indent.length === 4 ? `${resource}.${camel(name)}` : camel(name));
  }
  const exported = ["transformer", "model", "optional-inputs", "executor"];
  return new Map([...interfaces].filter(([name, names]) => names.length > 0 && !exported.includes(name)));
}

function standIn(module) {
  return Object.entries(module).flatMap(([name, value]) => {
    if (!/^class /.test(Function.prototype.toString.call(value))) return [name];
    const methods = Object.getOwnPropertyNames(value.prototype).filter((method) => method !== "constructor");
    const statics = Object.getOwnPropertyNames(value).filter((one) => typeof value[one] === "function");
    return [...methods, ...statics].map((method) => `${name}.${method}`);
  });
}

const sources = [
  ["hostler.wit", (name) => `hostler:plugin/${name}@0.1.0`],
  ["deps/config/store.wit", (name) => `wasi:config/${name}@0.2.0-rc.1`],
  ["deps/logging/logging.wit", (name) => `wasi:logging/${name}@0.1.0-draft`],
];

for (const [file, specifier] of sources) {
  const interfaces = contract(readFileSync(new URL(file, folder), "utf8"));
  test(`${file} has interfaces`, () => assert.ok(interfaces.size > 0));
  for (const [name, names] of interfaces) {
    test(`${specifier(name)} is complete`, async () => {
      const module = await import(specifier(name));
      assert.deepEqual(standIn(module.default).sort(), [...names].sort());
    });
  }
}

test("an interface without a stand-in is an error that names it", async () => {
  await assert.rejects(import("hostler:plugin/nothing@0.1.0"), /no stand-in for it; there are types, assets/);
});

// The source of a plugin, and the packages that its build needs.

import { existsSync, readFileSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { BuildError } from "./errors.js";

// The folder of this SDK.
export const SDK = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

const DEFAULTS = ["app.ts", "app.js"];

export function findSource(given) {
  if (given === undefined) {
    const found = DEFAULTS.filter((name) => existsSync(name));
    if (found.length === 1) return found[0];
    const reason = found.length === 0 ? "is neither app.ts nor app.js" : "are both app.ts and app.js";
    throw new BuildError(
      `cannot choose the source: there ${reason} in ${process.cwd()}`,
      "name it: hostler-build SOURCE",
    );
  }
  if (!existsSync(given))
    throw new BuildError(
      `cannot build ${given}: there is no such file`,
      "name the module that exports the role, such as app.ts",
    );
  if (!statSync(given).isDirectory()) return given;
  const inside = DEFAULTS.map((name) => path.join(given, name)).filter((file) => existsSync(file));
  if (inside.length === 1) return inside[0];
  throw new BuildError(
    `cannot build ${given}: it is a folder without one app.ts or app.js`,
    "name the module that exports the role",
  );
}

// Imports a tool from the project, or from where this SDK is installed.
export async function tool(name) {
  for (const from of [pathToFileURL(`${process.cwd()}/`), import.meta.url]) {
    const require = createRequire(from);
    try {
      return await import(pathToFileURL(require.resolve(name)).href);
    } catch (error) {
      if (error.code === "MODULE_NOT_FOUND" || error.code === "ERR_MODULE_NOT_FOUND") continue;
      throw new BuildError(`cannot load ${name}: ${error.message}`, "run npm install again, on this platform");
    }
  }
  const { peerDependencies } = JSON.parse(readFileSync(path.join(SDK, "package.json"), "utf8"));
  throw new BuildError(
    `cannot build: the package ${name} is not installed`,
    `npm install --save-dev --save-exact ${name}@${peerDependencies[name]}`,
  );
}

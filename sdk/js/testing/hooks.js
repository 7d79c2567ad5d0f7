// Hooks of Node's module loader. They resolve the interfaces of the contract to stand-ins, and
// compile TypeScript with esbuild if it is installed.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { cwd } from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";

const INTERFACE = /^(hostler:plugin|wasi:config|wasi:logging)\/([a-z-]+)@/;
const STANDINS = ["types", "assets", "state", "metrics", "callables", "models", "http", "store", "logging"];

export async function resolve(specifier, context, nextResolve) {
  const [, , name] = INTERFACE.exec(specifier) ?? [];
  if (name !== undefined) {
    if (STANDINS.includes(name)) {
      return { url: new URL(`./interfaces/${name}.js`, import.meta.url).href, shortCircuit: true };
    }
    throw new Error(
      `cannot import "${specifier}" in a test: there is no stand-in for it; there are ${STANDINS.join(", ")}`,
    );
  }
  try {
    return await nextResolve(specifier, context);
  } catch (error) {
    // TypeScript may name the file that it will become.
    const isTypeScript = context.parentURL?.endsWith(".ts") && /^\.{1,2}\/.*\.js$/.test(specifier);
    if (error.code !== "ERR_MODULE_NOT_FOUND" || !isTypeScript) throw error;
    return nextResolve(specifier.replace(/\.js$/, ".ts"), context);
  }
}

export async function load(url, context, nextLoad) {
  if (!url.startsWith("file:") || !/\.m?ts$/.test(url)) return nextLoad(url, context);
  const file = fileURLToPath(url);
  const esbuild = await installedEsbuild();
  if (esbuild === null) {
    if (process.features.typescript) return nextLoad(url, context);
    throw new Error(`cannot load ${file}: TypeScript needs esbuild; install it with: npm install --save-dev esbuild`);
  }
  const { code } = await esbuild.transform(await readFile(file, "utf8"), {
    loader: "ts",
    format: "esm",
    sourcefile: file,
    sourcemap: "inline",
    target: "node20",
  });
  return { format: "module", source: code, shortCircuit: true };
}

async function installedEsbuild() {
  for (const from of [pathToFileURL(`${cwd()}/`), import.meta.url]) {
    try {
      return await import(pathToFileURL(createRequire(from).resolve("esbuild")).href);
    } catch (error) {
      if (error.code !== "MODULE_NOT_FOUND") throw error;
    }
  }
  return null;
}

#!/usr/bin/env node
// `hostler-build`: builds a plugin in JavaScript or TypeScript. Bundles the source and the npm
// packages that it imports into one module, and makes it a WebAssembly component.

import { writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { bundle } from "./build/bundle.js";
import { component } from "./build/component.js";
import { BuildError } from "./build/errors.js";
import { findSource } from "./build/source.js";
import { findWit } from "./build/wit.js";
import { worldOf } from "./build/world.js";

const USAGE = `Builds a plugin of Hostler: a WebAssembly component.

usage: hostler-build [SOURCE] [options]

  SOURCE             the module that exports the role; default: app.ts or app.js
  -o, --output FILE  the component; default: the name of the source, with .wasm
      --wit FOLDER   the contract, as \`hostler wit FOLDER\` writes it; default: wit, or the SDK's own
      --world WORLD  the WIT world; default: chosen by what the source exports and imports
      --minify       shortens the code; faults then do not name functions and lines of the source
  -h, --help         prints this text`;

const OPTIONS = {
  output: { type: "string", short: "o" },
  wit: { type: "string" },
  world: { type: "string" },
  minify: { type: "boolean", default: false },
  help: { type: "boolean", short: "h", default: false },
};

async function main() {
  const { values, positionals } = parsed();
  if (values.help) return console.log(USAGE);
  const source = findSource(positionals[0]);
  const output = values.output ?? `${path.parse(source).name}.wasm`;
  const built = await bundle(source, { minify: values.minify });
  const { role, world } = worldOf(source, built, values.world);
  const bytes = await component(built, findWit(values.wit), world);
  try {
    writeFileSync(output, bytes);
  } catch (error) {
    throw new BuildError(`cannot write ${output}: ${error.message}`, "give another file with --output");
  }
  const size = (bytes.length / 2 ** 20).toFixed(1);
  console.log(`${output}: ${size} MiB${role === null ? "" : `, role ${role}`}, world ${world}`);
}

function parsed() {
  try {
    const result = parseArgs({ options: OPTIONS, allowPositionals: true });
    if (result.positionals.length > 1)
      throw new Error(`one source is expected, and there are ${result.positionals.length}`);
    return result;
  } catch (error) {
    throw new BuildError(error.message.replace(/\. To specify a positional.*/, ""), "see hostler-build --help");
  }
}

try {
  await main();
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(`error: ${error.message}`);
  if (error.mend) console.error(error.mend.replace(/^/gm, "  "));
  process.exitCode = 1;
}

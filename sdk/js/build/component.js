// Makes a component of a bundle, with componentize-qjs. The module is evaluated then, without a
// host.

import { frames } from "../lib/stack.js";
import { didYouMean } from "../lib/names.js";
import { BuildError } from "./errors.js";
import { tool } from "./source.js";
import { readFileSync } from "node:fs";
import path from "node:path";

export async function component({ code, table }, wit, world) {
  const { componentize } = await tool("componentize-qjs");
  checkWorld(wit, world);
  try {
    const made = await componentize({ witPath: wit, jsSource: code, world, sync: true });
    return made.component;
  } catch (error) {
    throw explained(error, table, world);
  }
}

function checkWorld(wit, world) {
  const text = readFileSync(path.join(wit, "hostler.wit"), "utf8");
  const worlds = [...text.matchAll(/^world ([a-z-]+) \{/gm)].map(([, name]) => name);
  if (worlds.includes(world) || world.includes("/")) return;
  throw new BuildError(
    `cannot build for the world ${world}: ${wit} has no such world${didYouMean(world, worlds)}`,
    `the worlds of plugins are ${worlds.filter((name) => name.endsWith("-plugin")).join(", ")}`,
  );
}

const EVALUATED =
  /Failed to (?:evaluate user JavaScript module|finish JavaScript module evaluation|declare JavaScript module): /g;
const HOST_CALL = /unknown import: `([^`#]+)#([^`]+)` has not been defined/;

function explained(error, table, world) {
  const message = String(error?.message ?? error);
  const [, module, name] = HOST_CALL.exec(message) ?? [];
  if (module !== undefined) {
    return new BuildError(
      `cannot evaluate the module: it calls the host (${name} of ${module}) outside of a function`,
      "modules are evaluated when the plugin is built, and there is no host then;\n" +
        "log, read config and assets, and make tensors and metrics in the functions of the role",
    );
  }
  const missing = /(hostler:[a-z-]+\/[a-z-]+@[0-9.]+|wasi:[a-z-]+\/[a-z-]+@\S+)/.exec(message);
  if (/resolv|not found|could not load/i.test(message) && missing) {
    return new BuildError(
      `cannot build: the world ${world} does not import ${missing[1]}`,
      "choose another one with --world",
    );
  }
  if (!EVALUATED.test(message)) return new BuildError(`cannot build the component: ${message}`);
  EVALUATED.lastIndex = 0;
  const [thrown, ...stack] = message
    .replace(EVALUATED, "")
    .replace(/^[:\s]+/, "")
    .split(/\n(?=\s+at )/);
  const places = frames(stack.join("\n"), table).map(({ name: called, place }) => `at ${called} (${place})`);
  return new BuildError(`cannot evaluate the module: ${thrown.trim()}`, places.join("\n"));
}

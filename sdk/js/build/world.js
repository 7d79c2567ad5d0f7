// The role of a plugin, and its WIT world. A component has all imports of its world, and the host
// sees from them whether its calls may wait; so the world is the smallest one that fits.

import { BuildError } from "./errors.js";
import { didYouMean } from "../lib/names.js";

const ROLES = ["transformer", "model", "executor"];
const CONSTANTS = [...ROLES, "optionalInputs"];

// Returns `{ role, world }` by what the bundle exports and imports. `given` is the world that the
// author chose, or undefined.
export function worldOf(source, { exported, imported }, given) {
  const roles = ROLES.filter((role) => exported.includes(role));
  if (given !== undefined) return { role: roles[0] ?? null, world: given };
  if (roles.length === 0) throw new BuildError(missing(source, exported), example("model"));
  if (roles.length > 1) {
    const both = roles.map((role) => `\`${role}\``).join(" and ");
    throw new BuildError(
      `cannot build ${source}: it exports ${both}, and a JavaScript plugin has one role`,
      "build one module for each role",
    );
  }
  const [role] = roles;
  const misspelt = exported.find((name) => !CONSTANTS.includes(name) && didYouMean(name, ["optionalInputs"]));
  if (role === "model" && misspelt && !exported.includes("optionalInputs")) {
    throw new BuildError(
      `cannot build ${source}: it exports \`${misspelt}\`${didYouMean(misspelt, ["optionalInputs"])}`,
      "rename the export",
    );
  }
  if (role !== "model" && exported.includes("optionalInputs")) {
    throw new BuildError(
      `cannot build ${source}: it exports \`optionalInputs\`, which only a model has`,
      "remove the export",
    );
  }
  return { role, world: smallest(role, exported.includes("optionalInputs"), imported) };
}

function smallest(role, optional, imported) {
  const uses = (name) => imported.some((specifier) => specifier.startsWith(`hostler:plugin/${name}@`));
  const base = optional ? `optional-${role}` : role;
  if (uses("http")) return `${base}-outbound-plugin`;
  if (role !== "executor" && (uses("models") || uses("callables"))) return `calling-${base}-plugin`;
  return `${base}-plugin`;
}

function missing(source, exported) {
  const near = exported.find((name) => didYouMean(name, ROLES));
  if (near) return `cannot build ${source}: it exports \`${near}\`, which is not a role${didYouMean(near, ROLES)}`;
  const all =
    exported.length === 0 ? "it has no exports" : `it exports only ${exported.map((name) => `\`${name}\``).join(", ")}`;
  return `cannot build ${source}: ${all}, and a plugin exports \`transformer\`, \`model\` or \`executor\``;
}

const example = (role) => `write for example: export const ${role} = hostler.${role}({ … })`;

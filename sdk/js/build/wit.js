// The folder of the contract. As a script, puts it into the package before `npm pack` and removes
// it afterwards: in Hostler's repository, it lies outside this folder.

import { cpSync, existsSync, rmSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { BuildError } from "./errors.js";
import { SDK } from "./source.js";

const REPOSITORY = path.join(SDK, "..", "..");
const hasContract = (folder) => existsSync(path.join(folder, "hostler.wit"));

export function findWit(given) {
  const candidates =
    given === undefined
      ? ["wit", ...[SDK, path.dirname(SDK), REPOSITORY].map((folder) => path.join(folder, "wit"))]
      : [given];
  const found = candidates.find(hasContract);
  if (found !== undefined) return found;
  const where = given === undefined ? "this folder has no wit/hostler.wit" : `${given} has no hostler.wit`;
  throw new BuildError(`cannot find the contract: ${where}`, "write it with: hostler wit wit");
}

const packed = [
  ["wit/hostler.wit", "wit/hostler.wit"],
  ["wit/deps", "wit/deps"],
  ["LICENSE", "LICENSE"],
];

if (process.argv[1] === fileURLToPath(import.meta.url) && hasContract(path.join(REPOSITORY, "wit"))) {
  const task = process.argv[2];
  if (task === "copy") {
    for (const [from, to] of packed) cpSync(path.join(REPOSITORY, from), path.join(SDK, to), { recursive: true });
  }
  if (task === "remove") {
    for (const name of ["wit", "LICENSE"]) rmSync(path.join(SDK, name), { recursive: true, force: true });
  }
}

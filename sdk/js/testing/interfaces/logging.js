// The stand-in for `wasi:logging/logging`.

import { abort, argument, arity, memory } from "../memory.js";

const LEVELS = ["trace", "debug", "info", "warn", "error", "critical"];

export function log(...args) {
  arity(args, 3, "log");
  const [level, context, message] = args;
  if (!LEVELS.includes(level)) throw abort(`unknown enum case: ${level}`);
  memory.log.push({ level, context: argument(context, "string", "log"), message: argument(message, "string", "log") });
}

export default { log };

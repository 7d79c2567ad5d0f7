// Bundles a source and the packages that it imports into one module, with esbuild.

import { isUtf8 } from "node:buffer";
import { builtinModules } from "node:module";
import { readFileSync, realpathSync } from "node:fs";
import path from "node:path";
import { LINES } from "../lib/stack.js";
import { didYouMean } from "../lib/names.js";
import { BuildError } from "./errors.js";
import { lineTable } from "./lines.js";
import { SDK, tool } from "./source.js";

// What to use in place of Node's modules.
const SERVERS = 'call HTTP servers with the host call "hostler:plugin/http@0.1.0"; see the guide on outbound HTTP';
const INSTEAD = [
  [/^fs/, "read files that the manifest lists under [plugins.NAME.assets] with hostler.asset(name)"],
  [/^(http|https|http2|net|tls|dns|dgram)/, SERVERS],
  [/^(process|os)$/, "read settings with hostler.config(key), from [plugins.NAME.config] in the manifest"],
  [/^(buffer|string_decoder)$/, "use Uint8Array, hostler.encoded(text) and hostler.decoded(bytes)"],
  [/^util/, "TextEncoder and TextDecoder are globals"],
  [/^timers/, 'wait with sleep(ms) of "hostler-plugin/executor"'],
  [
    /^(worker_threads|child_process|cluster)$/,
    "a plugin has no threads and no processes; the host runs its calls in parallel",
  ],
  [/^console$/, "console is a global, and writes to the host's log"],
  [/^crypto$/, "use a package that is written in JavaScript"],
];

// Returns `{ code, table, exported, imported }`: the bundle, its table of lines, and the names of
// its exports and of the interfaces that it imports.
export async function bundle(source, { minify }) {
  const esbuild = await tool("esbuild");
  const outfile = path.resolve("hostler-bundle.js");
  const result = await esbuild
    .build({
      entryPoints: [path.resolve(source)],
      outfile,
      bundle: true,
      write: false,
      metafile: true,
      format: "esm",
      platform: "neutral",
      mainFields: ["browser", "module", "main"],
      conditions: ["module", "import", "default"],
      target: "es2023",
      charset: "utf8",
      legalComments: "none",
      minify,
      sourcemap: "external",
      sourcesContent: false,
      inject: [path.join(SDK, "lib", "globals.js")],
      define: { "process.env.NODE_ENV": '"production"', global: "globalThis" },
      external: ["hostler:*", "wasi:*"],
      loader: { ".txt": "text", ".bin": "binary" },
      logLevel: "silent",
      plugins: [noNode],
    })
    .catch((error) => {
      throw explained(source, error);
    });
  checkEncoding(Object.keys(result.metafile.inputs));
  const text = (extension) => result.outputFiles.find((file) => file.path.endsWith(extension)).text;
  const table = lineTable(JSON.parse(text(".js.map")), shownSource(path.dirname(outfile)));
  const [output] = Object.entries(result.metafile.outputs).filter(([name]) => name.endsWith(".js"));
  const { exports: exported, imports } = output[1];
  // A minified bundle has few lines, so that a table would be of no use.
  const appended = minify ? "" : `\nglobalThis.${LINES} = ${JSON.stringify(table)};\n`;
  return {
    code: text(".js") + appended,
    table: minify ? null : table,
    exported,
    imported: imports.map((one) => one.path),
  };
}

// Refuses sources that are not UTF-8: esbuild replaces what it cannot read, without a word.
function checkEncoding(inputs) {
  for (const input of inputs) {
    if (input.includes("node_modules/") || !/\.([mc]?[jt]sx?|json|txt)$/.test(input)) continue;
    const content = readFileSync(input);
    if (isUtf8(content)) continue;
    const lines = content.toString("latin1").split("\n");
    const at = lines.findIndex((line) => !isUtf8(Buffer.from(line, "latin1")));
    throw new BuildError(
      `cannot bundle ${input}:${at + 1}: the file is not saved in UTF-8`,
      "save it in the encoding UTF-8",
    );
  }
}

// Names sources relative to the project, and those of this SDK by its package.
function shownSource(folder) {
  const sdk = realpathSync(SDK);
  return (source) => {
    const file = path.resolve(folder, source);
    const inSdk = file.startsWith(sdk + path.sep);
    const shown = inSdk ? `hostler-plugin/${path.relative(sdk, file)}` : path.relative(folder, file);
    return shown.split(path.sep).join("/");
  };
}

const noNode = {
  name: "no-node",
  setup(build) {
    const names = builtinModules.filter((name) => !name.startsWith("_") && !name.includes("/"));
    const filter = new RegExp(`^(node:.*|(${names.join("|")})(/.*)?)$`);
    build.onResolve({ filter }, async ({ path: specifier, pluginData, ...rest }) => {
      if (pluginData === noNode) return undefined;
      const name = specifier.replace(/^node:/, "");
      if (name === specifier) {
        // A package may have the name of a module of Node, or leave the module out for browsers.
        const { importer, namespace, resolveDir, kind } = rest;
        const found = await build.resolve(specifier, { importer, namespace, resolveDir, kind, pluginData: noNode });
        if (found.errors.length === 0) return found;
      }
      const [, instead] = INSTEAD.find(([pattern]) => pattern.test(name)) ?? [
        null,
        "use a package that works in browsers",
      ];
      return { errors: [{ text: `cannot import "${specifier}": a plugin has no Node API; ${instead}` }] };
    });
    build.onResolve({ filter: /^(hostler|wasi):/ }, ({ path: specifier }) => {
      if (/^[a-z-]+:[a-z-]+\/[a-z-]+@\d/.test(specifier)) return undefined;
      const known = ["types", "assets", "state", "metrics", "callables", "models", "http"].map(
        (one) => `hostler:plugin/${one}@0.1.0`,
      );
      return {
        errors: [
          {
            text: `cannot import "${specifier}"${didYouMean(specifier, known)}: interfaces are named with their version`,
          },
        ],
      };
    });
  },
};

function explained(source, error) {
  if (!Array.isArray(error.errors)) return error;
  const lines = error.errors.map(({ text, location }) => {
    const at = location ? `${location.file}:${location.line}:${location.column + 1}: ` : "";
    return `${at}${text.replace(/ \(use "[^)]*\)$/, "")}${unresolved(text)}`;
  });
  return new BuildError(`cannot bundle ${source}`, lines.join("\n"));
}

function unresolved(text) {
  const [, specifier] = /^Could not resolve "([^"]+)"/.exec(text) ?? [];
  if (specifier === undefined) return "";
  if (specifier.startsWith(".")) return ": there is no such file";
  return `: install the package with npm install ${specifier
    .split("/")
    .slice(0, specifier.startsWith("@") ? 2 : 1)
    .join("/")}`;
}

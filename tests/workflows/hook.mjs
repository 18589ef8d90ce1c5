// Lets `import` read JSON files without an import attribute, which the parser's modules do not have and Node 20 demands.
//
// Loaded by register.mjs, before read.mjs.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

export async function load(url, context, next) {
  if (!url.endsWith(".json")) return next(url, context);
  const text = await readFile(fileURLToPath(url), "utf8");
  return { format: "module", shortCircuit: true, source: `export default ${text};` };
}

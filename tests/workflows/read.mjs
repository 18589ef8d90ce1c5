// Prints, as JSON, an object for each workflow file: the errors that GitHub's parser finds in it, and its content.
import { readFileSync } from "node:fs";
import { NoOperationTraceWriter, convertWorkflowTemplate, parseWorkflow } from "@actions/workflow-parser";
import { parse } from "yaml";

const found = [];
for (const name of process.argv.slice(2)) {
  const content = readFileSync(name, "utf8");
  const parsed = parseWorkflow({ name, content }, new NoOperationTraceWriter());
  // The second step checks what a schema cannot say: jobs that need each other, for example.
  const template = parsed.value ? await convertWorkflowTemplate(parsed.context, parsed.value) : undefined;
  const errors = [...parsed.context.errors.getErrors().map((e) => e.message), ...(template?.errors ?? []).map((e) => e.Message)];
  found.push({ name, errors: [...new Set(errors)], document: parse(content) });
}
console.log(JSON.stringify(found));

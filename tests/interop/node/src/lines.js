/** Answers JSON objects, one a line, on stdin and stdout. */
import { createInterface } from 'node:readline';
import { Refusal } from './errors.js';
import { parse, stringify } from './json.js';

/** @param {(request: object) => object} answer throws a Refusal for what the protocol refuses */
export async function answerLines(answer) {
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim()) process.stdout.write(`${stringify(answer(parse(line)))}\n`);
  }
}

/** The refusal of a call as a value, or its result. */
export function attempt(call) {
  try {
    return call();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    return { ok: false, error: error.code, layer: error.layer, detail: error.message };
  }
}

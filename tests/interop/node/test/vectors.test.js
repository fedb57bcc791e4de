/** All test vectors. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { parse, stringify } from '../src/json.js';
import { answer } from '../vectors.js';

const directory = new URL('../../../../vectors/', import.meta.url);

for (const name of readdirSync(directory).filter((file) => file.endsWith('.json'))) {
  const file = parse(readFileSync(new URL(name, directory), 'utf8'));
  for (const group of file.testGroups) {
    test(`${name}: ${group.type}, ${group.comment}`, () => {
      for (const { tcId, comment, input, ...expected } of group.tests) {
        const { result, output, fails_at: layer } = expected;
        const wanted = result === 'valid' ? { result, output } : { result, fails_at: layer };
        assert.deepEqual(parse(stringify(answer({ type: group.type, input }))), wanted, `${tcId} ${comment}`);
      }
    });
  }
}

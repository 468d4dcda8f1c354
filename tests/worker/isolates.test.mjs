// The ground that all other tests of the Worker stand on: it starts, in several isolates, for little CPU.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { World, environment } from "./world.mjs";

const ISOLATES = 4;
// Of the second that the platform allows for start-up, and the 10 ms that a free account has for a request.
const START_CPU_MS_MAX = 50;

test("four isolates answer", async () => {
  const world = await World.start({ isolates: ISOLATES, objects: {} });
  try {
    for (let at = 0; at < ISOLATES; at += 1) {
      const answer = await world.ask(at, "/livez");
      assert.equal(answer.status, 200);
      assert.deepEqual(answer.json, { status: "alive" });
      assert.equal(answer.headers.get("content-length"), String(answer.text.length), "one buffer, with its length");
    }
  } finally {
    await world.stop();
  }
});

/** CPU that workerd has used up to the answer to the first request. */
async function cpuOfFirstAnswer(build) {
  const world = await World.start({ isolates: 1, build, objects: {} });
  try {
    await world.ask(0, "/livez");
    return world.cpuMs();
  } finally {
    await world.stop();
  }
}

test(`start-up and the first request take no more than ${START_CPU_MS_MAX} ms of CPU`, async (t) => {
  // workerd itself takes CPU to start, so the Worker's share is what it takes beyond a Worker that does nothing.
  const nothing = mkdtempSync(join(tmpdir(), "keyreeve-nothing-"));
  try {
    writeFileSync(join(nothing, "index.js"), `export default { fetch: () => new Response("{}") };`);
    const shares = [];
    for (let run = 0; run < 3; run += 1) {
      const idle = await cpuOfFirstAnswer(nothing);
      shares.push((await cpuOfFirstAnswer(environment("KEYREEVE_WORKER"))) - idle);
    }
    const [, median] = shares.sort((a, b) => a - b);
    t.diagnostic(`start-up CPU: ${median.toFixed(1)} ms (${shares.map((share) => share.toFixed(1)).join(", ")})`);
    assert.ok(median <= START_CPU_MS_MAX, `${median} ms`);
  } finally {
    rmSync(nothing, { recursive: true });
  }
});

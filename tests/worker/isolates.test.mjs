// The ground that all other tests of the Worker stand on: it starts, in several isolates, for little CPU.
import assert from "node:assert/strict";
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

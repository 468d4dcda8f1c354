// What one bad request costs the others. A panic unwinds, because std does (scripts/setup-wasm --unwind): with the
// ordinary std it would end every request of the isolate, and leave a request to an object without an answer.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { World, environment } from "./world.mjs";

const ANSWERED_WITHIN_MS = 1_000;
const AT_ONCE = 3;

let world;
before(async () => {
  const build = environment("KEYREEVE_WORKER_TESTING");
  world = await World.start({ isolates: 2, build, objects: { STUMBLER: "Stumbler" } });
});
after(() => world?.stop());

/** `path` is asked while AT_ONCE requests wait at the same place; returns its answer and theirs. */
async function among(waiting, path) {
  const others = Array.from({ length: AT_ONCE }, () => world.ask(0, waiting));
  const answer = await world.ask(0, path);
  return { answer, others: await Promise.all(others) };
}

for (const [path, waiting, when] of [
  ["/testing/now/panic", "/testing/wait", "in an answer that needs no waiting"],
  ["/testing/panic", "/testing/wait", "at once"],
  ["/testing/panic-later", "/testing/wait", "after an await"],
]) {
  test(`a panic ${when} is one caller's 500, and no one else's`, async () => {
    const { answer, others } = await among(waiting, path);
    assert.equal(answer.status, 500);
    assert.ok(answer.ms < ANSWERED_WITHIN_MS, `answered after ${answer.ms} ms`);
    assert.equal(answer.headers.get("content-type"), "application/problem+json");
    assert.equal(answer.json.type, "urn:keyreeve:problem:internal-error");
    assert.doesNotMatch(answer.text, /deliberate|\.rs|\.js|wasm/, "a stranger learns nothing about the inside");
    assert.deepEqual(others.map(({ status }) => status), Array(AT_ONCE).fill(200));
    assert.ok(world.log.some((line) => line.includes("a deliberate panic")), "the log says what happened");
    assert.ok(world.log.some((line) => line.includes(answer.json.request_id)), "the log says to whom");
  });
}

for (const what of ["panic", "panic-later"]) {
  test(`a ${what} in an object is one caller's 500, and the object stays as it is`, async () => {
    const before = (await world.ask(0, "/testing/object/count")).json;
    const { answer, others } = await among("/testing/object/wait", `/testing/object/${what}`);
    assert.equal(answer.status, 500);
    assert.ok(answer.ms < ANSWERED_WITHIN_MS, `answered after ${answer.ms} ms`);
    assert.deepEqual(others.map(({ status }) => status), Array(AT_ONCE).fill(200));
    const after = (await world.ask(1, "/testing/object/count")).json;
    assert.deepEqual(after, { memory: before.memory + 1, disk: before.disk + 1 });
  });
}

for (const path of ["/testing/abort", "/testing/now/abort"]) {
  test(`an abort (${path}) ends what is in flight in its isolate, at once, and the isolate serves again`, async () => {
    const elsewhere = world.ask(1, "/testing/wait");
    const { answer, others } = await among("/testing/wait", path);
    for (const { status, ms } of [answer, ...others]) {
      assert.equal(status, 500);
      assert.ok(ms < ANSWERED_WITHIN_MS, `answered after ${ms} ms`);
    }
    assert.equal((await elsewhere).status, 200);
    assert.equal((await world.ask(0, "/testing/wait")).status, 200);
  });
}

test("after an abort in an object its memory is new and its disk is whole", async () => {
  const before = (await world.ask(0, "/testing/object/count")).json;
  const answer = await world.ask(0, "/testing/object/abort");
  assert.equal(answer.status, 500);
  assert.ok(answer.ms < ANSWERED_WITHIN_MS, `answered after ${answer.ms} ms`);
  assert.deepEqual((await world.ask(0, "/testing/object/count")).json, { memory: 1, disk: before.disk + 1 });
});

for (const how of ["restart", "crash"]) {
  test(`an object's disk outlives a ${how}, its memory does not`, async () => {
    const before = (await world.ask(0, "/testing/object/count")).json;
    await world[how]();
    assert.deepEqual((await world.ask(1, "/testing/object/count")).json, { memory: 1, disk: before.disk + 1 });
  });
}

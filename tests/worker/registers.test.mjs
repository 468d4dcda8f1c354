// The two registers of the platform, inside of it: the suite that every engine passes, races between isolates, and what
// neither may do to data it does not know.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { World, environment } from "./world.mjs";

const ISOLATES = 4;
const SUITE_MS = 100_000;

let world;
before(async () => {
  const build = environment("KEYREEVE_WORKER_TESTING");
  world = await World.start({ isolates: ISOLATES, build, objects: { TEST_REGISTER: "TestRegister" } });
});
after(() => world?.stop());

const ask = (at, engine, query, init) => world.ask(at, `/testing/leaf/${engine}?${new URLSearchParams(query)}`, init);

for (const engine of ["durable", "r2"]) {
  test(`${engine} passes the conformance suite`, { timeout: SUITE_MS }, async () => {
    const signal = AbortSignal.timeout(SUITE_MS);
    const answer = await ask(0, engine, { do: "conform", instances: 4, run: 1 }, { signal });
    assert.equal(answer.text, "it conforms");
  });

  test(`${engine}: of swaps that race from several isolates one wins`, async () => {
    for (let round = 1; round <= 10; round += 1) {
      const expected = round === 1 ? {} : { expected: (round - 1) * 100 };
      const swap = (racer) => ({ do: "swap", key: "raced", ...expected, op: round * 100 + racer, value: `${racer}` });
      const answers = await Promise.all(Array.from({ length: 12 }, (_, racer) => ask(racer % ISOLATES, engine, swap(racer))));
      const won = answers.flatMap(({ text }, racer) => (text === "Done" ? [racer] : []));
      assert.equal(won.length, 1, `round ${round}: ${answers.map(({ text }) => text)}`);
      // The next round expects a number that does not depend on who won.
      const [winner] = won;
      assert.equal((await ask(0, engine, { do: "read", key: "raced" })).text, `${round * 100 + winner} ${winner}`);
      if (winner !== 0) {
        const settle = { do: "swap", key: "raced", expected: round * 100 + winner, op: round * 100, value: "0" };
        assert.equal((await ask(1, engine, settle)).text, "Done");
      }
    }
  });

  test(`${engine}: every acknowledged increment of several isolates counts`, async () => {
    const each = 8;
    let op = 1_000_000;
    const actor = async (at) => {
      for (let done = 0; done < each; ) {
        const found = (await ask(at, engine, { do: "read", key: "counter" })).text;
        const [held, count] = found === "absent" ? [undefined, 0] : found.split(" ").map(Number);
        const swap = { do: "swap", key: "counter", op: (op += 1), value: count + 1, ...(held && { expected: held }) };
        if ((await ask(at, engine, swap)).text === "Done") done += 1;
      }
    };
    await Promise.all(Array.from({ length: ISOLATES }, (_, at) => actor(at)));
    const last = (await ask(0, engine, { do: "read", key: "counter" })).text;
    assert.equal(last.split(" ")[1], String(ISOLATES * each));
  });
}

test("a schema from the future is refused with both versions, and left alone", async () => {
  const object = "future";
  assert.equal((await ask(0, "durable", { do: "future", object })).status, 200);
  const answer = await ask(1, "durable", { do: "read", key: "a", object });
  assert.equal(
    answer.text,
    "the storage of this object has schema version 7, this keyreeve knows versions up to 1\n" +
      "hint: deploy a newer keyreeve; the object was left as it is",
  );
  assert.equal((await ask(1, "durable", { do: "read", key: "a", object })).status, 500, "it stays refused");
});

test("rows that keyreeve cannot have written are refused, not served", async () => {
  const object = "spoiled";
  await ask(0, "durable", { do: "read", key: "a", object });
  for (const what of ["short", "text", "large"]) {
    assert.equal((await ask(0, "durable", { do: "spoil", key: what, what, object })).text, "done");
    const answer = await ask(0, "durable", { do: "read", key: what, object });
    assert.equal(answer.status, 500);
    assert.match(answer.text, /^the store refused: the row was not written by keyreeve\nhint: /);
  }
});

test("objects in a bucket that keyreeve did not write are refused, not served", async () => {
  const bucket = await world.bucket();
  for (const [key, value] of [["short", "x"], ["strange", "y".repeat(100)], ["large", "z".repeat(200_000)]]) {
    await bucket.put(`keyreeve/register/${key}`, value);
    const answer = await ask(0, "r2", { do: "read", key });
    assert.match(answer.text, /^the store refused: the object `keyreeve\/register\/[a-z]+` .*\nhint: delete it to start anew$/);
  }
});

test("a panic in the middle of a transaction leaves nothing of it, and the object lives on", async () => {
  const object = "stumbling";
  assert.equal((await ask(0, "durable", { do: "swap", key: "a", op: 1, value: "before", object })).text, "Done");
  assert.equal((await ask(0, "durable", { do: "panic", object })).status, 500);
  assert.equal((await ask(0, "durable", { do: "read", key: "a", object })).text, "1 before");
  assert.doesNotMatch((await ask(0, "durable", { do: "tables", object })).text, /half_way/);
});

test("what an object acknowledged outlives a crash", async () => {
  const swap = { do: "swap", key: "kept", op: 1, value: "kept" };
  for (const engine of ["durable", "r2"]) assert.equal((await ask(0, engine, swap)).text, "Done");
  await world.crash();
  for (const engine of ["durable", "r2"]) assert.equal((await ask(0, engine, { do: "read", key: "kept" })).text, "1 kept");
});

// The harness itself: a test that looks into the tiers proves nothing if it does not see what is there.
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { PickyApns, Upstream } from "./upstream.mjs";
import { World } from "./world.mjs";

const SECRET = "a-secret-that-is-looked-for";

let world;
before(async () => (world = await World.start({ isolates: 1, objects: {} })));
after(() => world?.stop());

test("what is in KV can be read, and found on its disk", async () => {
  await (await world.kv()).put("one", SECRET, { expirationTtl: 60 });
  const entries = await world.kvEntries();
  assert.deepEqual(entries.map(({ key, text }) => [key, text]), [["one", SECRET]]);
  assert.ok(world.bytes("kv").includes(SECRET));
});

test("what is in the caches can be read, and found on their disk", async () => {
  await world.cachePut("https://l2.invalid/1", SECRET);
  await world.cachePut("https://l2.invalid/2", SECRET, { cache: "l2" });
  const entries = await world.cacheEntries();
  const seen = entries.map(({ cache, key, text }) => [cache, key, text]).sort();
  assert.deepEqual(seen, [
    ["default", "https://l2.invalid/1", SECRET],
    ["named_l2", "https://l2.invalid/2", SECRET],
  ]);
  assert.ok(entries.every(({ expires_at_ms }) => expires_at_ms > Date.now()));
  assert.ok(world.bytes("cache").includes(SECRET));
});

test("an upstream keeps score of what is asked and what is still inside", async () => {
  let release;
  const upstream = await Upstream.start(() => new Promise((resolve) => (release = () => resolve({ text: "{}" }))));
  try {
    const asked = fetch(upstream.url);
    while (!release) await new Promise(setImmediate);
    assert.deepEqual([upstream.calls, upstream.inside], [1, 1]);
    release();
    assert.equal((await asked).status, 200);
  } finally {
    await upstream.stop();
  }
});

test("the fake Apple of the binary counts from the start", async () => {
  const { publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const pem = join(world.folder, "apple.pem");
  writeFileSync(pem, publicKey.export({ type: "spki", format: "pem" }));
  const picky = await PickyApns.start({ keys: [`TEAM123456:KEY1234567:${pem}`] });
  assert.match(picky.url, /^https:\/\/127\.0\.0\.1:/);
  assert.equal((await picky.score()).requests, 0);
  assert.equal((await picky.stop()).minted, 0);
});

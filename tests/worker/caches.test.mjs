// Caches save time and decide nothing: what they hold is sealed, and what they lose, damage, swap or keep too long costs a
// question to the object and no more.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AUTHORIZED, KEY, SECRETS, TOKEN, configured, renewals } from "./credential.mjs";
import { World, until } from "./world.mjs";

const ISOLATES = 8;
const CACHE = "keyreeve";
/** How long a caller waits; the platform's own limit is far away. */
const WAIT_MS = 2000;
const IMPATIENT = `mode = "lease"
wait = "${WAIT_MS}ms"
life = { max = "1h", hold = "200ms", hold_max = "1s", min_interval = "100ms", lease = "3s", timeout = "1500ms", send = "500ms", skew = "50ms", poll = "100ms" }`;

async function around(options, body) {
  const upstream = await renewals();
  const world = await World.start({ isolates: ISOLATES, config: configured(upstream, options), secrets: SECRETS });
  let next = 0;
  // Each isolate but the first has nothing in its memory when it is asked for the first time.
  const cold = (path = TOKEN) => world.ask((next += 1), path, AUTHORIZED);
  try {
    await body(world, upstream, cold);
  } finally {
    await world.stop();
    await upstream.stop();
  }
}

/** Everything in both tiers, as bytes. */
async function kept(world) {
  const kv = await world.kv();
  const { keys } = await kv.list();
  const inKv = keys.map(async ({ name }) => ({ key: name, bytes: Buffer.from(await kv.get(name, "arrayBuffer")) }));
  const inCache = (await world.cacheEntries()).map(({ key, text }) => ({ key, bytes: Buffer.from(text, "latin1") }));
  return { kv: await Promise.all(inKv), cache: inCache };
}

/** Puts `change(bytes, key)` in the place of everything that is kept. */
async function plant(world, { kv, cache }, change) {
  const store = await world.kv();
  // Miniflare takes no Buffer on its way to workerd.
  const made = ({ key, bytes }) => new Uint8Array(change(bytes, key));
  for (const entry of kv) await store.put(entry.key, made(entry).buffer);
  for (const entry of cache) await world.cachePut(entry.key, made(entry), { cache: CACHE });
}

/** Waits until everything that `before` shows has been written again: what a test plants next stays. */
async function rewritten(world, before) {
  const same = (left, right) => left.every(({ bytes }, at) => right[at] && !bytes.equals(right[at].bytes));
  return until("the caches have been written again", async () => {
    const now = await kept(world);
    return same(before.kv, now.kv) && same(before.cache, now.cache);
  });
}

async function filled(world, count, { inKv = count, inCache = count } = {}) {
  return until(`${inKv} entries in KV and ${inCache} in the cache`, async () => {
    const all = await kept(world);
    return all.kv.length === inKv && all.cache.length === inCache && all;
  });
}

test("a cold isolate is served from the caches, which hold sealed bytes under hashed keys and nothing else", async () => {
  await around({ more: IMPATIENT }, async (world, upstream, cold) => {
    const { json } = await world.ask(0, TOKEN, AUTHORIZED);
    const all = await filled(world, 1);
    assert.match(all.kv[0].key, /^keyreeve\/[0-9a-f]{64}$/);
    // The same key, its letters written out as bytes.
    const hex = Buffer.from(all.kv[0].key.slice("keyreeve/".length)).toString("hex");
    assert.equal(all.cache[0].key, `https://cache.invalid/${hex}`);
    assert.equal((await cold()).json.token, json.token);
    await world.crash();
    for (const tier of ["kv", "cache", "do"]) {
      const bytes = world.bytes(tier);
      assert.ok(bytes.length > 0, tier);
      for (const secret of [json.token, KEY, SECRETS.SEAL_KEY, "access_token"]) assert.equal(bytes.indexOf(secret), -1, `${tier}: ${secret}`);
    }
    for (const tier of ["kv", "cache"]) assert.equal(world.bytes(tier).indexOf("credential"), -1, tier);
  });
});

test("an upstream that fails, answers garbage or hangs is a problem in time, and nothing of it is cached", async () => {
  await around({ more: IMPATIENT }, async (world, upstream, cold) => {
    for (const [what, take] of [
      ["fails", () => ({ status: 503, text: "{}" })],
      ["garbage", () => ({ text: "<html>not a token</html>" })],
      ["expired", () => ({ text: JSON.stringify({ token: "over-already", expires_in: 0 }) })],
      ["hangs", () => new Promise(() => {})],
    ]) {
      upstream.state.take = take;
      const answer = await cold();
      assert.ok(answer.status >= 500, `${what}: ${answer.status}`);
      assert.equal(answer.headers.get("content-type"), "application/problem+json", what);
      assert.ok(answer.ms < WAIT_MS + 2000, `${what}: answered after ${answer.ms} ms`);
      assert.deepEqual(await kept(world), { kv: [], cache: [] }, what);
    }
    upstream.state.take = undefined;
    const answer = await until("a good credential", async () => {
      const answer = await world.ask(0, TOKEN, AUTHORIZED);
      return answer.status === 200 && answer;
    }, 20_000);
    assert.match(answer.json.token, /^token-number-\d+$/);
    await filled(world, 1);
  });
});

test("caches that lose or damage what they hold cost a question, and nobody a wrong answer", async () => {
  await around({ more: IMPATIENT }, async (world, upstream, cold) => {
    const { json } = await world.ask(0, TOKEN, AUTHORIZED);
    const all = await filled(world, 1);
    const same = async (what, change) => {
      await plant(world, all, change);
      const planted = await kept(world);
      const answer = await cold();
      assert.equal(answer.json?.token, json.token, `${what}: ${answer.text}`);
      assert.equal(upstream.calls, 1, what);
      // It was of no use, so a better one takes its place.
      await rewritten(world, planted);
    };
    const flipped = (at) => (bytes) => {
      const changed = Buffer.from(bytes);
      changed[Math.floor((changed.length - 1) * at)] ^= 1;
      return changed;
    };
    await same("the first byte flipped", flipped(0));
    await same("a byte in the middle flipped", flipped(0.5));
    await same("the last byte flipped", flipped(1));
    await same("cut off", (bytes) => bytes.subarray(0, bytes.length / 2));
    await same("larger than anything of ours", () => Buffer.alloc(200_000, 7));
    const store = await world.kv();
    for (const { key } of all.kv) await store.delete(key);
    for (const { key } of all.cache) await (await world.cache(CACHE)).delete(key);
    const lost = await cold();
    assert.deepEqual([lost.json?.token, upstream.calls], [json.token, 1]);
  });
});

test("an entry under the key of another credential is passed over", async () => {
  const tail = `[credential.other]
source = "http"
url = "UPSTREAM/mint"
map = { token = "/token", expires_in = "/expires_in" }
mode = "lease"`;
  const upstream = await renewals();
  const config = configured(upstream, { more: IMPATIENT, tail: tail.replace("UPSTREAM", upstream.url) });
  const world = await World.start({ isolates: 3, config, secrets: SECRETS });
  try {
    const [up, other] = ["up", "other"].map((name) => `/v1/credentials/${name}/token`);
    const ours = (await world.ask(0, up, AUTHORIZED)).json.token;
    const before = await filled(world, 1);
    const theirs = (await world.ask(0, other, AUTHORIZED)).json.token;
    const after = await filled(world, 2);
    const foreign = (tier) => after[tier].find(({ key }) => key !== before[tier][0].key);
    const isKv = (key) => key.startsWith("keyreeve/");
    await plant(world, before, (_, key) => foreign(isKv(key) ? "kv" : "cache").bytes);
    assert.notEqual(ours, theirs);
    assert.equal((await world.ask(1, up, AUTHORIZED)).json.token, ours);
    assert.equal((await world.ask(2, other, AUTHORIZED)).json.token, theirs);
    assert.equal(upstream.calls, 2);
  } finally {
    await world.stop();
    await upstream.stop();
  }
});

// Each alone: an isolate that answers with the older generation can have it from nowhere else.
for (const [tier, caches, counts] of [
  ["the cache", `["cache"]`, { inKv: 0 }],
  ["KV", `["kv:KV"]`, { inCache: 0 }],
]) test(`${tier} that is behind serves a credential that is still good, and a report gets past it`, async () => {
  await around({ more: IMPATIENT, caches }, async (world, upstream) => {
    const report = (at, generation) =>
      world.ask(at, "/v1/credentials/up/report", {
        method: "POST",
        headers: { ...AUTHORIZED.headers, "content-type": "application/json" },
        body: JSON.stringify({ generation, upstream_status: 401 }),
      });
    // A caller whose credential is refused says so each time, and asks again.
    const renewed = (at) =>
      until(`the second generation on isolate ${at}`, async () => {
        const { json } = await world.ask(at, TOKEN, AUTHORIZED);
        if (json.generation === 1) await report(at, 1);
        return json.generation === 2;
      });
    await world.ask(0, TOKEN, AUTHORIZED);
    const old = await filled(world, 1, counts);
    await renewed(0);
    await rewritten(world, old);
    // Nobody is left who might still write the newer one. Isolate 0 gets it from the caches, and so writes nothing.
    await world.restart();
    assert.equal((await world.ask(0, TOKEN, AUTHORIZED)).json.generation, 2);
    await plant(world, old, (bytes) => bytes);
    const { status, json } = await world.ask(1, TOKEN, AUTHORIZED);
    assert.equal(status, 200);
    assert.equal(json.generation, 1, "an old entry is as good as it was");
    assert.ok(Date.parse(json.expires_at) > Date.now());
    assert.equal((await world.ask(0, TOKEN, AUTHORIZED)).json.generation, 2, "whoever has seen the newer one keeps it");
    await renewed(1);
    assert.equal(upstream.calls, 2, "an old report is no reason to mint");
  });
});

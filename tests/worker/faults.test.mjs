// What breaks around the Worker, and what that costs: upstreams that hang, fail and lie, caches that do.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AUTHORIZED, SECRETS, configured } from "./credential.mjs";
import { WAIT_MS, SLACK_MS, tokenOf, section, paths, good, gaps } from "./faults.mjs";
import { World, until } from "./world.mjs";

/** What no answer, no cache and no log may ever show: each bad answer of an upstream holds it as a token. */
const BAD = "bad-token";

/** Keys and values of both caches must be sealed and hashed: none of `words` is anywhere in them. */
async function assertSealed(world, words) {
  for (const { key } of await world.kvEntries()) assert.match(key, /^keyreeve\/[0-9a-f]{64}$/);
  for (const { key } of await world.cacheEntries()) assert.match(key, /^https:\/\/cache\.invalid\/[0-9a-f]+$/);
  for (const tier of ["kv", "cache"]) {
    const bytes = world.bytes(tier);
    for (const word of words) assert.ok(!bytes.includes(word), `${tier} holds \`${word}\` in clear`);
  }
}

const FAULTS = {
  hangs: () => new Promise(() => {}),
  drops: () => false,
  fails: () => ({ status: 500, text: JSON.stringify({ token: BAD }) }),
  away: () => ({ status: 503, text: "" }),
  throttles: () => ({ status: 429, headers: { "retry-after": "3" }, text: "{}" }),
  nojson: () => ({ text: `<html>${BAD}</html>` }),
  noexpiry: () => ({ text: JSON.stringify({ token: BAD }) }),
  expired: () => good(BAD, 0),
  huge: () => good(`${BAD}${"x".repeat(2 << 20)}`),
  denies: () => ({ status: 403, text: JSON.stringify({ token: BAD, error: "no" }) }),
};

test("upstreams that hang, fail and lie are a problem in time; alarms try again, ever more slowly; no cache holds a word", async (t) => {
  let isHealed = false;
  const upstream = await paths((name) => (isHealed ? undefined : FAULTS[name]()));
  const names = Object.keys(FAULTS);
  const tail = names.map((name) => section(upstream, name)).join("");
  const world = await World.start({ isolates: 2, config: configured(upstream, { tail }), secrets: SECRETS });
  try {
    const answers = await Promise.all(names.map((name) => world.ask(0, tokenOf(name), AUTHORIZED)));
    answers.forEach(({ status, headers, json, text, ms }, at) => {
      const what = `${names[at]}: ${status} ${text}`;
      assert.ok([500, 502, 503, 504].includes(status), what);
      assert.equal(headers.get("content-type"), "application/problem+json", what);
      assert.match(json.type, /^urn:keyreeve:problem:(upstream-|in-doubt|needs-)/, what);
      assert.ok(ms < WAIT_MS + SLACK_MS, `${what} after ${ms} ms`);
      assert.ok(!text.includes(BAD), what);
    });
    // From here on nobody asks for anything: what happens, alarms do.
    await until("five tries of each", () => names.every((name) => upstream.by[name].asked.length >= (name === "throttles" ? 4 : 5)), 30_000);
    for (const name of names) {
      const waits = gaps(upstream.by[name].asked);
      if (name === "throttles") assert.ok(Math.min(...waits) >= 3000, `${name} said 3 s: ${waits}`);
      else assert.ok(waits[3] > 2 * waits[0], `${name} backs off: ${waits}`);
    }
    assert.deepEqual([await world.kvEntries(), await world.cacheEntries()], [[], []]);
    isHealed = true;
    await until("a mint of each", () => names.every((name) => upstream.by[name].minted.length === 1), 15_000);
    for (const at of [0, 1]) {
      for (const name of names) {
        const found = await until(`${name} on isolate ${at}`, async () => {
          const { status, json } = await world.ask(at, tokenOf(name), AUTHORIZED);
          return status === 200 && json;
        });
        assert.equal(found.token, `good-token-${name}-1`);
      }
    }
    await until("every credential in both caches", async () =>
      [await world.kvEntries(), await world.cacheEntries()].every(({ length }) => length === names.length));
    await assertSealed(world, [BAD, "good-token", ...names]);
    assert.ok(!world.bytes("do").includes(BAD) && !world.bytes("do").includes("good-token"), "the objects' disks are sealed too");
    assert.ok(!world.log.join("\n").includes(BAD), "nor does a log hold one");
    assert.deepEqual(world.log.filter((line) => /uncaught|hung|panick/i.test(line)), []);
    t.diagnostic(`waits of \`fails\`: ${gaps(upstream.by.fails.asked)} ms, of \`throttles\`: ${gaps(upstream.by.throttles.asked)} ms`);
  } finally {
    await world.stop();
    await upstream.stop();
  }
});

test("caches that were deleted, damaged, swapped or set back cost a question, over restarts, and never an older generation", async () => {
  // The first generation falls due after 4 s, the second one after this test.
  const upstream = await paths((name, call) => good(`good-token-${name}-${call}`, name === "mine" && call === 1 ? 8 : 3600));
  const more = { wait: "5s", life: { lead: "50s", jitter: "0s", spread: "0s" } };
  const tail = section(upstream, "mine", more) + section(upstream, "other", more);
  const world = await World.start({ isolates: 2, config: configured(upstream, { tail }), secrets: SECRETS });
  try {
    const kept = async () => {
      const store = await world.kv();
      const { keys } = await store.list();
      const inKv = await Promise.all(keys.map(async ({ name }) => [name, Buffer.from(await store.get(name, "arrayBuffer"))]));
      const inCache = (await world.cacheEntries()).map(({ cache, key, text }) => [key, Buffer.from(text, "latin1"), cache.replace("named_", "")]);
      return { kv: new Map(inKv), cache: new Map(inCache.map(([key, bytes]) => [key, bytes])), named: inCache[0]?.[2] };
    };
    const filled = (count) =>
      until(`${count} entries in each cache`, async () => {
        const all = await kept();
        return all.kv.size === count && all.cache.size === count && all;
      });
    assert.equal((await world.ask(0, tokenOf("mine"), AUTHORIZED)).json?.token, "good-token-mine-1");
    const old = await filled(1);
    await until("the second generation", async () => (await world.ask(0, tokenOf("mine"), AUTHORIZED)).json.generation === 2);
    const [[kvKey], [cacheKey]] = [[...old.kv.keys()], [...old.cache.keys()]];
    const present = await until("the second generation in the caches", async () => {
      const all = await filled(1);
      return !all.kv.get(kvKey).equals(old.kv.get(kvKey)) && !all.cache.get(cacheKey).equals(old.cache.get(cacheKey)) && all;
    });
    assert.equal((await world.ask(0, tokenOf("other"), AUTHORIZED)).json?.token, "good-token-other-1");
    const both = await filled(2);
    const other = (tier) => [...both[tier]].find(([key]) => ![kvKey, cacheKey].includes(key))[1];
    const flipped = (bytes, share) => {
      const changed = Buffer.from(bytes);
      changed[Math.floor((changed.length - 1) * share)] ^= 0x10;
      return changed;
    };
    const inBoth = (make) => ({ kv: make("kv", kvKey), cache: make("cache", cacheKey) });
    for (const [what, planted, isDamaged] of [
      ["as they are", inBoth((tier, key) => present[tier].get(key)), false],
      ["set back to the generation before", inBoth((tier, key) => old[tier].get(key)), false],
      ["KV behind, the cache empty", { kv: old.kv.get(kvKey), cache: undefined }, false],
      ["deleted", { kv: undefined, cache: undefined }, false],
      ["another credential's", inBoth((tier) => other(tier)), true],
      ["flipped near the start", inBoth((tier, key) => flipped(present[tier].get(key), 0.1)), true],
      ["flipped at the end", inBoth((tier, key) => flipped(present[tier].get(key), 1)), true],
      ["random", inBoth(() => crypto.getRandomValues(Buffer.alloc(300))), true],
    ]) {
      const [store, cache] = [await world.kv(), await world.cache(present.named)];
      if (planted.kv) await store.put(kvKey, new Uint8Array(planted.kv).buffer, { expirationTtl: 600 });
      else await store.delete(kvKey);
      if (planted.cache) {
        await world.cachePut(cacheKey, new Uint8Array(planted.cache), { cache: present.named, headers: { "cache-control": "max-age=600" } });
      } else await cache.delete(cacheKey);
      const lines = world.log.length;
      // All memory goes, so that the caches are asked.
      await world.restart();
      const answers = await Promise.all([0, 1].map((at) => world.ask(at, tokenOf("mine"), AUTHORIZED)));
      assert.deepEqual(answers.map(({ json }) => json?.token), Array(2).fill("good-token-mine-2"), `${what}: ${answers[0].text}`);
      assert.deepEqual([upstream.by.mine.asked.length, upstream.by.other.asked.length], [2, 1], `${what}: nothing is minted for it`);
      if (isDamaged) await until(`a line about what is ${what}`, () => world.log.slice(lines).some((line) => line.includes("passed over")));
    }
    assert.deepEqual(world.log.filter((line) => /uncaught|hung|panick/i.test(line)), []);
  } finally {
    await world.stop();
    await upstream.stop();
  }
});

// What breaks around the Worker, and what that costs: upstreams that hang, fail and lie, isolates and objects that end in the
// middle of a mint, requests that panic.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AUTHORIZED, SECRETS, TOKEN, complaints, configured, renewals } from "./credential.mjs";
import { World, environment, until } from "./world.mjs";

/** How long a caller waits without a credential, and what a busy machine may add to that. */
const WAIT_MS = 700;
const SLACK_MS = 1500;
/** Short enough to see several tries, long enough that each hold is longer than the lease before it. */
const LIFE = {
  max: "1h", skew: "50ms", send: "200ms", timeout: "500ms", lease: "800ms", takeover: "1s", poll: "100ms",
  min_interval: "100ms", hold: "400ms", hold_max: "4s", hard_hold: "400ms", hard_hold_max: "4s",
};
/** What no answer, no cache and no log may ever show: each bad answer of an upstream holds it as a token. */
const BAD = "bad-token";
const SEAL_KEY_ONLY = { SEAL_KEY: SECRETS.SEAL_KEY };

const tokenOf = (name) => `/v1/credentials/${name}/token`;
const historyOf = (name) => `/v1/credentials/${name}/history`;

/** The section of a credential that `upstream` mints at a path of its own. */
function section(upstream, name, { life = {}, ...more } = {}) {
  const lines = Object.entries({ mode: "lease", wait: `${WAIT_MS}ms`, keep: "always", ...more });
  const value = (text) => (typeof text === "string" ? JSON.stringify(text) : String(text));
  const lives = Object.entries({ ...LIFE, ...life }).map(([key, text]) => `${key} = "${text}"`);
  return `
[credential.${name}]
source = "http"
url = "${upstream.url}/${name}"
map = { token = "/token", expires_in = "/expires_in" }
${lines.map(([key, text]) => `${key} = ${value(text)}`).join("\n")}
life = { ${lives.join(", ")} }
`;
}

/** An upstream that mints at every path, and remembers by path when it was asked: `asked`, `minted`, `keys`. */
async function paths(take) {
  const upstream = await renewals();
  const by = {};
  upstream.answer = async (request) => {
    const name = request.url.slice(1);
    const score = (by[name] ??= { asked: [], minted: [], keys: [] });
    score.asked.push(Date.now());
    score.keys.push(request.headers["idempotency-key"]);
    const other = await take(name, score.asked.length);
    if (other !== undefined) return other || undefined;
    score.minted.push(Date.now());
    return good(`good-token-${name}-${score.minted.length}`);
  };
  return Object.assign(upstream, { by });
}

const good = (token, expires_in = 3600) => ({ text: JSON.stringify({ token, expires_in }) });
const gaps = (times) => times.slice(1).map((time, at) => time - times[at]);

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
  const world = await World.start({ isolates: 2, config: configured(upstream, { tail }), secrets: SEAL_KEY_ONLY });
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

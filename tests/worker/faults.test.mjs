// What breaks around the Worker, and what that costs: upstreams that hang, fail and lie, isolates and objects that end in the
// middle of a mint, requests that panic.
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:http2";
import { join } from "node:path";
import { test } from "node:test";
import { AUTHORIZED, SECRETS, configured, renewals } from "./credential.mjs";
import { PickyApns } from "./upstream.mjs";
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
  const life = { lead: "50s", jitter: "0s", spread: "0s" };
  const tail = section(upstream, "mine", { life }) + section(upstream, "other", { life });
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

/** Asks until it is answered: a world that crashes does not answer for a second. */
async function persistently(ask) {
  try {
    return await ask();
  } catch {
    return undefined;
  }
}

/** Presents tokens to the fake Apple as a sender of notifications does. */
async function sender(picky) {
  const session = connect(picky.url, { ca: readFileSync(picky.ca_file) });
  session.on("error", () => {});
  const send = (token) =>
    new Promise((resolve, reject) => {
      const headers = { ":method": "POST", ":path": `/3/device/${"ab".repeat(32)}`, authorization: `bearer ${token}`, "apns-topic": "t" };
      const stream = session.request(headers);
      stream.on("response", (answer) => resolve(answer[":status"]));
      stream.on("error", reject);
      stream.resume();
      stream.end("{}");
    });
  return { send, close: () => session.destroy() };
}

test("objects killed between intent and commit are in doubt, and go on by their policy: never two tokens", async (t) => {
  const MIN_INTERVAL_MS = 5000;
  // The scaled Apple wants 20 minutes, which are 12 s, between tokens; and its hour ends 36 s after it was started.
  const SCALE = 100;
  const HANGS = { lease: 1, same: 1, one: 2, operator: 1, alone: 1 };
  const upstream = await paths((name, call) => {
    if (call <= HANGS[name]) return new Promise(() => {});
    // An idempotent service mints once for a key, whether or not its answer arrived.
    if (name === "same") return good(`token-for-${upstream.by.same.keys[call - 1]}`);
  });
  const exclusive = { mode: "exclusive", life: { lead: "30s", min_interval: `${MIN_INTERVAL_MS}ms` } };
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const tail = `
${section(upstream, "lease")}
${section(upstream, "same", { mode: "replay", idempotent: true })}
${section(upstream, "one", { ...exclusive, on_doubt: "wait", first_mint: "now" })}
${section(upstream, "operator", { ...exclusive, on_doubt: "reauth", first_mint: "now" })}
${section(upstream, "alone")}
[credential.apple]
source = "apns"
mode = "exclusive"
first_mint = "now"
keep = "always"
key = "binding:APNS_KEY"
params = { team_id = "DEF123GHIJ", key_id = "ABC123DEFG" }
life = { max = "30s", lead = "15s", min_interval = "12500ms", backdate = "0s", jitter = "0s", spread = "0s", skew = "50ms", send = "200ms", timeout = "500ms", lease = "800ms", takeover = "1s", poll = "100ms" }
`;
  const secrets = { ...SECRETS, APNS_KEY: privateKey.export({ type: "pkcs8", format: "pem" }) };
  const world = await World.start({ isolates: 2, config: configured(upstream, { tail }), secrets });
  const pem = join(world.folder, "apple.pem");
  writeFileSync(pem, publicKey.export({ type: "spki", format: "pem" }));
  const picky = await PickyApns.start({ keys: [`DEF123GHIJ:ABC123DEFG:${pem}`], scale: SCALE });
  const apple = await sender(picky);
  let isOver = false;
  try {
    const { by } = upstream;
    const names = Object.keys(HANGS);
    const ask = (at, path, init = AUTHORIZED) => persistently(() => world.ask(at, path, init));
    const history = async (name) => (await ask(1, historyOf(name)))?.json;
    const token = async (name) => {
      const { json, status } = (await ask(0, tokenOf(name))) ?? {};
      return status === 200 && json;
    };
    const presented = { statuses: {}, tokens: new Set() };
    const senders = [0, 1].map(async (at) => {
      while (!isOver) {
        const { status, json } = (await ask(at, tokenOf("apple"))) ?? {};
        if (status === 200) {
          presented.tokens.add(json.token);
          const answer = await apple.send(json.token);
          presented.statuses[answer] = (presented.statuses[answer] ?? 0) + 1;
        }
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    });
    for (const name of names) void ask(0, tokenOf(name));
    await until("a mint of each inside", () => names.every((name) => by[name]?.asked.length === 1));
    await world.crash();

    // In doubt, and seen as that from outside.
    const doubted = await until("one is in doubt", async () => {
      const found = await history("one");
      return found?.status === "in-doubt" && found;
    });
    assert.equal(doubted.intent.generation, 1);
    const refused = await ask(0, tokenOf("one"));
    assert.deepEqual([refused.status, refused.json.type], [503, "urn:keyreeve:problem:in-doubt"], refused.text);
    assert.ok(Number(refused.headers.get("retry-after")) >= 1);

    // A lease: the next generation, once the lease is over. A service that repeats itself: the same again.
    assert.equal((await until("a lease goes on", () => token("lease"))).generation, 2);
    assert.equal(by.lease.asked.length, 2);
    assert.ok((await history("lease")).history.some(({ kind }) => kind === "taken-over"));
    const same = await until("the same again", () => token("same"));
    assert.deepEqual([same.generation, by.same.asked.length], [1, 2]);
    assert.equal(new Set(by.same.keys).size, 1, "one Idempotency-Key");
    assert.equal(same.token, `token-for-${by.same.keys[0]}`);

    // In exclusive mode the second one is lost in a crash as well, and the third waits as long again.
    await until("the second mint of one", () => by.one.asked.length === 2);
    await world.crash();
    assert.equal((await until("one goes on", () => token("one"))).generation, 3);
    const waits = gaps(by.one.asked);
    assert.ok(waits.length === 2 && Math.min(...waits) >= MIN_INTERVAL_MS, `a mint that may have happened counts: ${waits}`);

    // Where an operator is to say, nothing happens without one.
    assert.equal((await history("operator")).status, "needs-reauth");
    assert.equal((await ask(0, tokenOf("operator"))).json.type, "urn:keyreeve:problem:needs-reauth");
    assert.equal(by.operator.asked.length, 1);
    const init = { method: "POST", headers: { ...AUTHORIZED.headers, "content-type": "application/json" }, body: `{"decision":"discard"}` };
    const resolved = await ask(0, "/v1/credentials/operator/resolve", init);
    assert.ok(resolved.status < 300, resolved.text);
    assert.equal((await until("it goes on", () => token("operator"))).generation, 2);

    // The one that nobody has asked for since was taken up by an alarm.
    await until("the alarm of alone", () => by.alone.asked.length === 2, 30_000);

    // Apple, through all of this and two more ends of the world about its renewal.
    await until("a second token for Apple", () => presented.tokens.size === 2, 20_000);
    await world.crash();
    await world.restart();
    const sent = Object.values(presented.statuses).reduce((sum, count) => sum + count, 0);
    await until("Apple is served again", () => Object.values(presented.statuses).reduce((sum, count) => sum + count, 0) > sent + 4);
    isOver = true;
    await Promise.all(senders);
    const score = await picky.score();
    assert.deepEqual(Object.keys(presented.statuses), ["200"]);
    assert.deepEqual([score.minted, score.allowed, score.by_reason], [2, 2, {}]);
    t.diagnostic(`Apple: ${score.ok} requests, ${score.minted} tokens, most valid at once ${score.most_valid_at_once}; waits of \`one\`: ${waits} ms`);
    for (const name of names) assert.ok((await history(name)).history.length > 0, name);
    assert.deepEqual(world.log.filter((line) => /uncaught|hung|panick/i.test(line)), []);
  } finally {
    isOver = true;
    apple.close();
    await picky.stop();
    await world.stop();
    await upstream.stop();
  }
});

/** All of them, for later: should the test fail before it awaits them, it says why itself. */
function together(promises) {
  const all = Promise.all(promises);
  all.catch(() => {});
  return all;
}

test("a panic in a request or in the object of a credential is one caller's 500, and the mint goes on for all others", async () => {
  let release;
  const upstream = await paths(async (name, call) => {
    if (call === 1) await new Promise((resolve) => (release = resolve));
  });
  const tail = section(upstream, "slow", { wait: "8s", life: { timeout: "8s", lease: "10s", takeover: "12s" } });
  const build = environment("KEYREEVE_WORKER_TESTING");
  const world = await World.start({ isolates: 2, build, config: configured(upstream, { tail }), secrets: SECRETS });
  try {
    const waiting = together([0, 1, 0, 1, 0, 1].map((at) => world.ask(at, tokenOf("slow"), AUTHORIZED)));
    await until("the mint is inside", () => upstream.inside === 1);
    for (const path of ["/testing/panic", "/testing/panic-later", "/testing/credential/slow/panic", "/testing/credential/slow/panic-later"]) {
      const answers = await Promise.all([0, 1].map((at) => world.ask(at, path)));
      for (const { status, json, text, ms } of answers) {
        assert.equal(status, 500, `${path}: ${text}`);
        // What comes out of an object that fell over is for the Worker alone; here a route of the test passes it on.
        if (!path.includes("/credential/")) assert.equal(json.type, "urn:keyreeve:problem:internal-error");
        assert.ok(ms < 1000, `${path}: answered after ${ms} ms`);
        assert.doesNotMatch(text, /deliberate|\.rs|\.js|wasm/);
      }
    }
    assert.equal(upstream.inside, 1, "the mint has outlived them");
    release();
    const answers = await waiting;
    assert.deepEqual(answers.map(({ status, json }) => [status, json.token]), Array(6).fill([200, "good-token-slow-1"]));

    // The record is whole: it can be read, and renewed.
    const history = (await world.ask(1, historyOf("slow"), AUTHORIZED)).json;
    assert.deepEqual([history.status, history.generation, history.intent], ["ready", 1, null]);
    assert.deepEqual(history.history.map(({ kind }) => kind), ["minted"]);
    const renew = { method: "POST", headers: AUTHORIZED.headers };
    await until("a renewal", async () => (await world.ask(0, "/v1/credentials/slow/renew", renew)).status < 300);
    await until("the next generation", async () => (await world.ask(0, historyOf("slow"), AUTHORIZED)).json.generation === 2);
    assert.equal(upstream.by.slow.asked.length, 2);
    assert.equal(world.log.filter((line) => line.includes("Rust panic")).length, 8);
  } finally {
    await world.stop();
    await upstream.stop();
  }
});

test("an object that is cut off alone in the middle of a mint costs its callers a problem, and the next generation is minted", async () => {
  const upstream = await paths((name, call) => (call === 1 ? new Promise(() => {}) : undefined));
  const tail = section(upstream, "cut");
  const build = environment("KEYREEVE_WORKER_TESTING");
  const world = await World.start({ isolates: 2, build, config: configured(upstream, { tail }), secrets: SECRETS });
  try {
    const waiting = together([0, 1, 0, 1].map((at) => world.ask(at, tokenOf("cut"), AUTHORIZED)));
    await until("the mint is inside", () => upstream.by.cut?.asked.length === 1);
    // No unwinding catches this: the memory of the object is gone, the isolates that wait for it stay.
    const { status, ms } = await world.ask(0, "/testing/credential/cut/abort");
    assert.ok(status === 500 && ms < 1000, `${status} after ${ms} ms`);
    for (const { status, headers, text, ms } of await waiting) {
      assert.equal(status, 503, text);
      assert.equal(headers.get("content-type"), "application/problem+json");
      assert.ok(ms < WAIT_MS + SLACK_MS, `${ms} ms`);
    }
    const found = await until("a token", async () => {
      const { status, json } = await world.ask(1, tokenOf("cut"), AUTHORIZED);
      return status === 200 && json;
    });
    assert.deepEqual([found.generation, found.token], [2, "good-token-cut-1"]);
    assert.equal(upstream.by.cut.asked.length, 2);
    const { history } = (await world.ask(0, historyOf("cut"), AUTHORIZED)).json;
    assert.deepEqual(history.map(({ kind }) => kind).sort(), ["minted", "taken-over"]);
  } finally {
    await world.stop();
    await upstream.stop();
  }
});

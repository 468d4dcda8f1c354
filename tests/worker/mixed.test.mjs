// A mixed fleet: native nodes and the isolates of a Worker share one credential, in one register, by one protocol.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AUTHORIZED, SECRETS, SHORT_LIFE, TOKEN, complaints, configured, renewals } from "./credential.mjs";
import { Folder, Native } from "./native.mjs";
import { World, until } from "./world.mjs";

const STORE_KEY = "a register key of more than 32 bytes";

/** Two isolates and two native nodes around one upstream. `ask` takes "isolate-0", "isolate-1", "node-1" or "node-2". */
async function fleet({ more, ...upstreamOptions }, body) {
  const upstream = await renewals(upstreamOptions);
  const folder = new Folder();
  const natives = [];
  let world;
  try {
    world = await World.start({
      isolates: 2,
      config: configured(upstream, { more, top: `store.key = "binding:STORE_KEY"` }),
      secrets: { ...SECRETS, STORE_KEY },
    });
    const [seal, key] = [folder.secret("seal.key", SECRETS.SEAL_KEY), folder.secret("store.key", STORE_KEY)];
    const native = configured(upstream, { more, top: `store.key = "${key}"` })
      .replace("do:KEYREEVE", world.url(0).origin)
      .replace(/^store.caches.*$/m, "")
      .replace("binding:SEAL_KEY", seal);
    const start = (name) => Native.start(folder, name, native);
    natives.push(await start("node-1"), await start("node-2"));
    const doors = {
      "isolate-0": (...what) => world.ask(0, ...what),
      "isolate-1": (...what) => world.ask(1, ...what),
      "node-1": (...what) => natives[0].ask(...what),
      "node-2": (...what) => natives[1].ask(...what),
    };
    const ask = (door, path = TOKEN, init = AUTHORIZED) => doors[door](path, init);
    const askAll = async (names = Object.keys(doors)) => {
      const answers = await Promise.all(names.map((name) => ask(name)));
      for (const [at, { status, text }] of answers.entries()) assert.equal(status, 200, `${names[at]}: ${text}`);
      return answers.map(({ json }) => json);
    };
    await body({ world, upstream, natives, ask, askAll });
    assert.deepEqual(complaints(world), []);
  } catch (error) {
    for (const { log } of natives) console.error(log.slice(-20).join("\n"));
    throw error;
  } finally {
    for (const native of natives) await native.kill();
    await world?.stop();
    await upstream.stop();
    folder.remove();
  }
}

const report = (ask, door, generation) =>
  ask(door, "/v1/credentials/up/report", {
    method: "POST",
    headers: { ...AUTHORIZED.headers, "content-type": "application/json" },
    body: JSON.stringify({ generation, upstream_status: 401 }),
  });

const DOORS = ["isolate-0", "isolate-1", "node-1", "node-2"];

test("a cold start on native nodes and isolates at once is one mint in the world", async (t) => {
  await fleet({ delayMs: 300, more: `mode = "lease"` }, async ({ upstream, ask }) => {
    const answers = await Promise.all(Array.from({ length: 400 }, (_, at) => ask(DOORS[at % 4])));
    const counted = {};
    for (const { status, json, text } of answers) {
      const what = `${status} ${json?.token ?? text}`;
      counted[what] = (counted[what] ?? 0) + 1;
    }
    assert.deepEqual(counted, { "200 token-number-1": 400 });
    assert.equal(upstream.calls, 1);
    const slowest = DOORS.map((door, at) => `${door} ${Math.max(...answers.filter((_, n) => n % 4 === at).map(({ ms }) => ms)).toFixed(0)} ms`);
    t.diagnostic(`slowest cold answers, upstream 300 ms: ${slowest.join(", ")}`);
  });
});

test("whoever renews, it is one mint, and everybody hands out the same token", async () => {
  await fleet({ lifeS: 12, more: `mode = "lease"\n${SHORT_LIFE}` }, async ({ upstream, askAll }) => {
    await askAll();
    upstream.state.delayMs = 500;
    await until("three renewals seen by all", async () => {
      const all = await askAll();
      for (const { expires_at: at } of all) assert.ok(Date.parse(at) > Date.now(), "never an expired one");
      for (const { token, generation } of all) assert.equal(token, `token-number-${generation}`, "no mint but the published ones");
      return all.every(({ generation }) => generation === 4);
    }, 60_000);
    assert.equal(upstream.calls, 4);
  });
});

test("a report through a native node renews for the isolates too, and one through an isolate for the native nodes", async () => {
  // Only the first one is short-lived: from the second on, nothing but a report renews.
  await fleet({ lifeS: 12, more: `mode = "lease"\n${SHORT_LIFE.replace("12s", "1h")}` }, async ({ upstream, ask, askAll }) => {
    assert.deepEqual(new Set((await askAll()).map(({ token }) => token)), new Set(["token-number-1"]));
    upstream.state.lifeS = 3600;
    assert.equal((await report(ask, "node-1", 1)).status, 202);
    await until("generation 2 everywhere", async () => (await askAll()).every(({ token }) => token === "token-number-2"), 20_000);
    assert.equal(upstream.calls, 2);
    // A report of what has been replaced is too late, whoever hears it.
    for (const door of DOORS) assert.equal((await report(ask, door, 1)).json.result, "ignored-stale", door);
    assert.equal((await report(ask, "isolate-1", 2)).status, 202);
    await until("generation 3", async () => (await askAll(["isolate-1"]))[0].token === "token-number-3");
    // Native nodes hold what they have until they are told as well.
    for (const door of ["node-1", "node-2", "isolate-0"]) {
      assert.ok((await report(ask, door, 2)).status < 300);
      await until(`generation 3 on ${door}`, async () => (await askAll([door]))[0].token === "token-number-3");
    }
    assert.equal(upstream.calls, 3);
  });
});

// In lease mode the others wait out the lease; in exclusive mode also what the upstream asks for between two.
for (const [mode, more, leastMs] of [
  ["lease", SHORT_LIFE, 3000],
  ["exclusive", `first_mint = "now"\n` + SHORT_LIFE.replace("100ms", "4s").replace("12s", "20s").replace("8s", "10s"), 4000],
]) {
  test(`${mode}: a native node that dies in the middle of its mint is followed by the protocol, never too early`, async (t) => {
    await fleet({ more: `mode = "${mode}"\nwait = "9s"\n${more}`, lifeS: 20 }, async ({ upstream, natives, ask, askAll }) => {
      const arrivals = [];
      upstream.state.take = () => {
        arrivals.push(Date.now());
        return arrivals.length === 1 ? new Promise(() => {}) : undefined;
      };
      const dying = ask("node-1").catch(() => "hung up");
      await until("the first mint", () => arrivals.length === 1);
      // Everybody waits for it; nobody mints beside it.
      const waiting = ["isolate-0", "isolate-1", "node-2"].map((door) => ask(door));
      await natives[0].kill();
      assert.equal(await dying, "hung up");
      // In exclusive mode those who wait are told, once it is known, that the mint is in doubt.
      for (const { status, json, text } of await Promise.all(waiting)) {
        if (mode === "lease") assert.equal(json?.token, "token-number-1", text);
        else assert.deepEqual([status, json.type], [503, "urn:keyreeve:problem:in-doubt"]);
      }
      await until("a token everywhere", async () => {
        const answers = await Promise.all(["isolate-0", "isolate-1", "node-2"].map((door) => ask(door)));
        return answers.every(({ json }) => json.token === "token-number-1");
      }, 30_000);
      const gapMs = arrivals[1] - arrivals[0];
      t.diagnostic(`${gapMs} ms from the mint that nobody saw end to the next`);
      assert.ok(gapMs >= leastMs, `${gapMs} ms is too early`);
      assert.equal(arrivals.length, 2);
      assert.equal(new Set((await askAll(["isolate-0", "isolate-1", "node-2"])).map(({ token }) => token)).size, 1);
    });
  });
}

// Isolates and objects that end in the middle of a mint: the protocol goes on from what they wrote, and nobody gets two tokens.
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:http2";
import { join } from "node:path";
import { test } from "node:test";
import { AUTHORIZED, SECRETS, configured } from "./credential.mjs";
import { WAIT_MS, SLACK_MS, tokenOf, historyOf, section, paths, good, gaps } from "./faults.mjs";
import { PickyApns } from "./upstream.mjs";
import { World, environment, until } from "./world.mjs";

/** What `ask` brings, or nothing: a world that crashes does not answer for a second. */
async function ifAnswered(ask) {
  try {
    return await ask();
  } catch {
    return undefined;
  }
}

/** Presents tokens to the fake Apple as a sender of notifications does. */
function sender(picky) {
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
  // Twenty minutes of this Apple are 12 s. Its clock runs away from the real one that tokens are signed by: after 36 s it would
  // find the newest of them an hour old.
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
life = { max = "27s", lead = "14s", handover = "4s", min_interval = "12500ms", backdate = "0s", jitter = "0s", spread = "0s", skew = "50ms", send = "200ms", timeout = "500ms", lease = "800ms", takeover = "1s", poll = "100ms" }
`;
  const secrets = { ...SECRETS, APNS_KEY: privateKey.export({ type: "pkcs8", format: "pem" }) };
  const world = await World.start({ isolates: 2, config: configured(upstream, { tail }), secrets });
  const pem = join(world.folder, "apple.pem");
  writeFileSync(pem, publicKey.export({ type: "spki", format: "pem" }));
  const picky = await PickyApns.start({ keys: [`DEF123GHIJ:ABC123DEFG:${pem}`], scale: SCALE });
  const apple = sender(picky);
  let isOver = false;
  try {
    const { by } = upstream;
    const names = Object.keys(HANGS);
    const ask = (at, path, init = AUTHORIZED) => ifAnswered(() => world.ask(at, path, init));
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

    // Apple's renewal: the world ends between the mint of the next token and the moment from which all use it.
    await until("the next token for Apple", async () => (await history("apple"))?.next, 20_000);
    await world.crash();

    // The one that nobody has asked for since was taken up by an alarm.
    await until("the alarm of alone", () => by.alone.asked.length === 2, 30_000);

    await until("a second token for Apple", () => presented.tokens.size === 2, 20_000);
    await world.restart();
    const sent = () => Object.values(presented.statuses).reduce((sum, count) => sum + count, 0);
    const before = sent();
    await until("Apple is served again", () => sent() > before + 4);
    isOver = true;
    await Promise.all(senders);
    const score = await picky.score();
    assert.deepEqual(Object.keys(presented.statuses), ["200"], JSON.stringify(score));
    assert.deepEqual([score.minted, score.allowed, score.most_valid_at_once_strict], [2, 2, 1]);
    t.diagnostic(`Apple: ${score.ok} requests, ${score.minted} tokens; waits of \`one\`: ${waits} ms`);
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
    await until("it on the isolate that was asked", async () => (await world.ask(0, tokenOf("slow"), AUTHORIZED)).json.generation === 2);
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

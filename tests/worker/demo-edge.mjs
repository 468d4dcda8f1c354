// `keyreeve demo edge`: the Worker in workerd, broken on purpose, while a strict fake Apple keeps score.
//   tests/worker/run --demo [--seed N] [--short] [--json]
// Two acts. In the first, two Workers of four isolates each share one credential; in the second, native nodes join them.
// --short is the first act with its first fault.
import { createHash, createPrivateKey, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect } from "node:http2";
import { parseArgs } from "node:util";
import { Folder, Native } from "./native.mjs";
import { PickyApns, Upstream } from "./upstream.mjs";
import { World } from "./world.mjs";

// Apple's rules are the real ones, 90 times as fast: 20 minutes between two tokens are 13.3 s, 60 minutes of life are 40 s.
const SCALE = 90;
const REST_MS = 150;
const CLIENTS = 24;
// How long the signing service takes: the middle of a renewal.
const SIGN_MS = 700;
// A token is good for this long, by the signing service's answer: less than the 40 s of the rules.
const LIFE_S = 38;
// All in real time. A crash costs send + timeout + min_interval = 17.3 s, which the lead absorbs.
const LIFE = `life = { max = "38s", lead = "23s", min_interval = "14300ms", send = "1s", timeout = "2s", lease = "3500ms", takeover = "4500ms", skew = "100ms", hold = "300ms", hold_max = "1s", poll = "250ms", spread = "0s", jitter = "0s" }`;
// A push that is not taken by then has failed: workerd needs seconds to come back, and no other machine takes over for it here.
const PUSH_MS = 12_000;
const ASK_MS = 1500;
// A token is used without asking for this long at the most.
const HOLD_MS = 250;
// The switch to a new token is seen by everybody within this long.
const SWITCH_MS = 3000;
const ACT_MS = 240_000;
// An act goes on until so many tokens have come after its last fault.
const TOKENS_AFTER = 2;
const TEAM = "DEMOTEAM01";
const KEY_ID = "DEMOKEY001";
const CALLER = randomBytes(16).toString("hex");
const STORE_KEY = randomBytes(32).toString("hex");
const SEAL_KEY = randomBytes(32).toString("hex");
const TOKEN = "/v1/credentials/push/token";
const DEVICE = "/3/device/00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0";

const { values: options } = parseArgs({ options: { seed: { type: "string", default: "1" }, json: { type: "boolean", default: false }, short: { type: "boolean", default: false } } });
const seed = Number(options.seed);
const say = (line) => (options.json ? process.stderr : process.stdout).write(`${line}\n`);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Numbers that depend on the seed and nothing else (splitmix64). */
class Dice {
  constructor(seed) {
    this.state = BigInt(seed);
  }
  below(end) {
    const wrap = (number) => BigInt.asUintN(64, number);
    this.state = wrap(this.state + 0x9e3779b97f4a7c15n);
    let x = this.state;
    x = wrap((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n);
    x = wrap((x ^ (x >> 27n)) * 0x94d049bb133111ebn);
    return Number((x ^ (x >> 31n)) % BigInt(end));
  }
  shuffle(items) {
    for (let end = items.length - 1; end > 0; end -= 1) {
      const other = this.below(end + 1);
      [items[end], items[other]] = [items[other], items[end]];
    }
    return items;
  }
}

const TOLD = {
  kill: "whoever mints is killed",
  rollout: "every isolate and object is thrown away",
  caches: "every cache is emptied",
};

/** Which renewal is struck by what, and when after the signing service was asked. */
function plan(seed) {
  const dice = new Dice(seed);
  const strikes = (faults) => dice.shuffle(faults).map((fault) => ({ fault, after_ms: 50 + dice.below(SIGN_MS - 150) }));
  return { workers: strikes(["kill", "rollout", "caches"]), mixed: strikes(["kill", "kill", "caches"]) };
}

// Ended in any case, the last one first.
const ending = [];
async function end() {
  for (const one of ending.splice(0).reverse()) await one().catch((error) => say(`while ending: ${error.message}`));
}

class Act {
  events = [];
  counts = { pushes: 0, failed: 0, retried: 0, waited: 0, slowest_ms: 0, refusals: {}, failures: {} };
  signed = 0;
  struck = [];
  isOver = false;

  constructor(name, strikes) {
    Object.assign(this, { name, strikes, started: performance.now() });
  }

  tell(text) {
    const at_ms = Math.round(performance.now() - this.started);
    this.events.push({ at_ms, text });
    say(`${this.name.padEnd(8)} ${(at_ms / 1000).toFixed(1).padStart(6)}s  ${text}`);
  }

  async start({ natives, isolates }) {
    this.folder = new Folder();
    ending.push(async () => this.folder.remove());
    const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
    this.key = createPrivateKey(pair.privateKey.export({ type: "pkcs8", format: "pem" }));
    const publicKey = this.folder.secret("AuthKey.pub.pem", pair.publicKey.export({ type: "spki", format: "pem" }));
    const keys = [`${TEAM}:${KEY_ID}:${publicKey.slice("file:".length)}`];
    this.apple = await PickyApns.start({ keys, scale: SCALE, more: ["--handover", String((SWITCH_MS / 1000) * SCALE)] });
    ending.push(() => this.apple.stop());
    this.signer = await Upstream.start((request) => this.sign(request));
    ending.push(() => this.signer.stop());
    await this.startWorkers(isolates);
    await this.startNatives(natives);
    this.sessions = await this.connect();
    ending.push(async () => this.sessions.forEach((session) => session.destroy()));
  }

  /** One Worker has a cache in each data centre and KV; the other, of the same code, has a cache only. */
  async startWorkers(isolates) {
    const config = (at) => this.config("object", { store: "do:KEYREEVE", seal: "binding:SEAL_KEY", key: "binding:STORE_KEY",
      caches: at !== undefined && at >= isolates / 2 ? `store.caches = ["cache"]` : `store.caches = ["cache", "kv:KV"]` });
    this.world = await World.start({ isolates, config, secrets: { SEAL_KEY, STORE_KEY } });
    ending.push(() => this.world.stop());
    this.doors = Array.from({ length: isolates }, (_, at) => ({
      name: `worker-${at < isolates / 2 ? "a" : "b"}/${(at % (isolates / 2)) + 1}`,
      url: () => this.world.url(at, TOKEN),
    }));
  }

  async startNatives(natives) {
    const [seal, key] = [this.folder.secret("seal.key", SEAL_KEY), this.folder.secret("store.key", STORE_KEY)];
    this.natives = new Map();
    this.startNative = async (name) => {
      // The way in that a native node takes is an isolate like any other.
      const native = await Native.start(this.folder, name, this.config(name, { store: this.world.url(0).origin, seal, key, caches: "" }));
      this.natives.set(name, native);
    };
    ending.push(async () => void (await Promise.all([...this.natives.values()].map((native) => native.kill()))));
    for (let at = 1; at <= natives; at += 1) {
      await this.startNative(`node-${at}`);
      this.doors.push({ name: `node-${at}`, url: () => new URL(TOKEN, this.natives.get(`node-${at}`).url) });
    }
  }

  config(who, { store, seal, key, caches }) {
    return `
store.url = "${store}"
store.key = "${key}"
${caches}
seal.keys = ["${seal}"]
[caller.clients]
key_sha256 = "${createHash("sha256").update(CALLER).digest("hex")}"
can = ["token", "report"]
credentials = ["*"]
[credential.push]
source = "http"
url = "${this.signer.url}/sign?for=${who}"
map = { token = "/token", expires_in = "/expires_in" }
mode = "exclusive"
first_mint = "now"
keep = "always"
wait = "1s"
${LIFE}
`;
  }

  /** The signing service: each answer is another token, and takes its time. Which is what makes it worth to strike. */
  async sign(request) {
    const holder = new URL(request.url, "http://signer").searchParams.get("for");
    this.signed += 1;
    const iat = Math.floor(this.now() / 1000);
    const part = (object) => Buffer.from(JSON.stringify(object)).toString("base64url");
    const head = `${part({ alg: "ES256", kid: KEY_ID })}.${part({ iss: TEAM, iat })}`;
    const token = `${head}.${sign("sha256", Buffer.from(head), { key: this.key, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
    this.tell(`${holder} asks for token ${this.signed}`);
    if (this.isReady) this.strike(holder);
    await sleep(SIGN_MS);
    return { text: JSON.stringify({ token, expires_in: LIFE_S }) };
  }

  /** The time of the fake Apple. */
  now() {
    const { epoch_unix_ms: epoch, scale } = this.apple.clock;
    return epoch + (Date.now() - epoch) * scale;
  }

  /** The next planned fault, if everybody has got over the last one. */
  strike(holder) {
    if (this.isStriking || this.changes() === this.changesAtStrike) return;
    const strike = this.strikes[this.struck.length];
    if (!strike) return;
    this.isStriking = true;
    this.changesAtStrike = this.changes();
    this.struck.push({ ...strike, holder });
    setTimeout(() => {
      const carriedOut = this.carryOut(strike.fault, holder).catch((error) => {
        this.struck.at(-1).error = error.message;
        this.tell(`the fault could not be carried out: ${error.message}`);
      });
      void carriedOut.then(() => (this.isStriking = false));
    }, strike.after_ms);
  }

  async carryOut(fault, holder) {
    if (fault === "kill" && holder !== "object") {
      this.tell(`${holder} is killed in the middle of its mint`);
      await this.natives.get(holder).kill();
      await sleep(3000);
      await this.startNative(holder);
      this.tell(`${holder} is back`);
    } else if (fault === "kill") {
      this.tell("workerd is killed in the middle of the mint");
      await this.world.crash();
      this.tell("workerd is back");
    } else if (fault === "rollout") {
      this.tell("every isolate and every object is thrown away in the middle of the mint");
      await this.world.restart();
      this.tell("new isolates answer");
    } else {
      const entries = await this.emptyCaches();
      this.tell(`the caches are emptied: ${entries} entries`);
    }
  }

  async emptyCaches() {
    const kv = await this.world.kv();
    const { keys } = await kv.list();
    for (const { name } of keys) await kv.delete(name);
    const cached = await this.world.cacheEntries();
    for (const { cache, key } of cached) await (await this.world.cache(cache === "default" ? undefined : cache)).delete(key);
    return keys.length + cached.length;
  }

  changes() {
    return this.score?.changes.length ?? 0;
  }

  async connect() {
    const ca = readFileSync(this.apple.ca_file);
    return Promise.all(Array.from({ length: 8 }, () => new Promise((resolve, reject) => {
      const session = connect(this.apple.url, { ca });
      session.once("connect", () => resolve(session)).on("error", (error) => (this.isOver ? undefined : reject(error)));
    })));
  }

  async run() {
    const clients = Array.from({ length: CLIENTS }, (_, number) => new Client(this, number).run());
    const until = performance.now() + ACT_MS;
    let told = 0;
    let calm;
    while (performance.now() < until) {
      await sleep(100);
      this.score = await this.apple.score();
      for (; told < this.changes(); told += 1) this.tell(`Apple takes token ${told + 1} as the team's new one`);
      if (!this.isReady && told > 0 && this.counts.pushes >= CLIENTS) {
        this.isReady = true;
        this.tell(`pushes come through ${this.doors.length} doors`);
      }
      const after = options.short ? 1 : TOKENS_AFTER;
      const isDone = this.struck.length === this.strikes.length && !this.isStriking && told >= this.changesAtStrike + after;
      calm = isDone ? (calm ?? performance.now()) : undefined;
      if (calm && performance.now() - calm > 1500) break;
    }
    this.isOver = true;
    await Promise.all(clients);
    this.score = await this.apple.score();
    return this.result();
  }

  result() {
    const { minted, allowed, most_valid_at_once: atOnce, stragglers } = this.score;
    const problems = [];
    if (atOnce > 1) problems.push(`${atOnce} tokens were valid at once`);
    if (minted !== allowed) problems.push(`Apple was shown ${minted} tokens, and ${allowed} were allowed`);
    if (this.counts.failed > 0) problems.push(`${this.counts.failed} of ${this.counts.pushes} pushes failed`);
    const missed = this.strikes.length - this.struck.filter(({ error }) => !error).length;
    if (missed > 0) problems.push(`${missed} of the planned faults did not strike, so this run proves less`);
    return { act: this.name, is_clean: problems.length === 0, problems, signed: this.signed, minted, allowed, most_valid_at_once: atOnce,
      stragglers, clients: this.counts, faults: this.struck, real_ms: Math.round(performance.now() - this.started), upstream: this.score, timeline: this.events };
  }
}

/** One who pushes: takes a token from its own door, or the next that answers, and tries once more after a refusal. */
class Client {
  constructor(act, number) {
    Object.assign(this, { act, number, home: number % act.doors.length, newest: 0 });
    this.dice = new Dice(BigInt(seed) * 1000n + BigInt(number));
  }

  async run() {
    const { act } = this;
    while (!act.isOver) {
      const started = performance.now();
      const failure = await this.push(started + PUSH_MS);
      const tookMs = Math.round(performance.now() - started);
      const { counts } = act;
      counts.pushes += 1;
      counts.slowest_ms = Math.max(counts.slowest_ms, tookMs);
      counts.waited += Number(tookMs > 1000);
      if (failure) {
        counts.failed += 1;
        counts.failures[failure] = (counts.failures[failure] ?? 0) + 1;
        if (counts.failed <= 5) act.tell(`a push failed: ${failure}`);
      }
      await sleep(REST_MS / 2 + this.dice.below(REST_MS));
    }
  }

  async push(until) {
    let token = await this.token(0, until);
    if (!token) return "no token";
    let refusal = await this.send(token);
    if (!refusal) return undefined;
    this.act.counts.retried += 1;
    void this.report(token, refusal);
    token = await this.token(token.generation, until);
    if (!token) return `no other token after ${refusal}`;
    refusal = await this.send(token);
    return refusal;
  }

  /** A token of another generation than `refused`, and never an older one than was seen. */
  async token(refused, until) {
    const { held } = this;
    const isGood = (one) => one && one.generation !== refused && one.generation >= this.newest;
    if (isGood(held) && performance.now() < held.freshUntil) return held;
    const { doors } = this.act;
    while (performance.now() < until) {
      for (let step = 0; step < doors.length; step += 1) {
        const got = await this.ask(doors[(this.home + step) % doors.length]);
        if (!isGood(got)) continue;
        this.newest = got.generation;
        this.held = got;
        return got;
      }
      // Nobody answers: what is held is good until it expires.
      if (isGood(held) && Date.now() < held.expiresAt) return held;
      await sleep(100);
    }
    return undefined;
  }

  async ask(door) {
    try {
      const answer = await fetch(door.url(), { headers: { authorization: `Bearer ${CALLER}` }, signal: AbortSignal.timeout(ASK_MS) });
      const json = await answer.json();
      if (answer.status !== 200) return undefined;
      const maxAge = /max-age=(\d+)/.exec(answer.headers.get("cache-control") ?? "")?.[1] ?? 0;
      const freshUntil = performance.now() + Math.min(Number(maxAge) * 1000, HOLD_MS);
      return { token: json.token, generation: json.generation, expiresAt: Date.parse(json.expires_at), freshUntil, door };
    } catch {
      return undefined;
    }
  }

  async report(token, refusal) {
    const [status, reason] = refusal.split(" ");
    const url = new URL("/v1/credentials/push/report", token.door.url());
    const headers = { authorization: `Bearer ${CALLER}`, "content-type": "application/json" };
    const body = JSON.stringify({ generation: token.generation, upstream_status: Number(status), reason });
    await fetch(url, { method: "POST", headers, body, signal: AbortSignal.timeout(ASK_MS) }).then((answer) => answer.arrayBuffer()).catch(() => {});
  }

  /** Resolves to nothing, or to why the push was refused. */
  send({ token }) {
    const { sessions, counts } = this.act;
    return new Promise((resolve) => {
      const stream = sessions[this.number % sessions.length].request({ ":method": "POST", ":path": DEVICE, authorization: `bearer ${token}`, "apns-topic": "push" });
      let status = 0;
      let text = "";
      stream.on("response", (headers) => (status = headers[":status"]));
      stream.setEncoding("utf8").on("data", (part) => (text += part));
      stream.on("error", () => resolve("0 no answer from Apple"));
      stream.on("end", () => {
        if (status === 200) return resolve(undefined);
        const refusal = `${status} ${/"reason":"(\w+)"/.exec(text)?.[1] ?? ""}`;
        counts.refusals[refusal] = (counts.refusals[refusal] ?? 0) + 1;
        resolve(refusal);
      });
      stream.end(`{"aps":{"alert":"hello"}}`);
    });
  }
}

function table(results) {
  const head = ["act", "signed", "minted", "allowed", "at once", "pushes", "failed", "retried", "waited"];
  const row = ({ act, signed, minted, allowed, most_valid_at_once: atOnce, clients: { pushes, failed, retried, waited } }) =>
    [act, signed, minted, allowed, atOnce, pushes, failed, retried, waited].map(String);
  const rows = [head, ...results.map(row)];
  const widths = head.map((_, at) => Math.max(...rows.map((cells) => cells[at].length)));
  return rows.map((cells) => cells.map((cell, at) => (at === 0 ? cell.padEnd(widths[at]) : cell.padStart(widths[at]))).join("  "));
}

async function main() {
  const { workers, mixed } = plan(seed);
  const planned = options.short ? { workers: workers.slice(0, 1) } : { workers, mixed };
  const planHash = createHash("sha256").update(JSON.stringify(planned)).digest("hex").slice(0, 16);
  say(`Apple's rules ${SCALE} times as fast: 20 minutes are ${((20 * 60) / SCALE).toFixed(1)} s; ${CLIENTS} clients; seed ${seed}, plan ${planHash}`);
  for (const [act, strikes] of Object.entries(planned)) {
    for (const [at, { fault, after_ms: after }] of strikes.entries()) say(`  ${act}, fault ${at + 1}: ${TOLD[fault]}, ${after} ms into a mint`);
  }
  const results = [];
  const fleets = { workers: { natives: 0, isolates: 8 }, mixed: { natives: 2, isolates: 4 } };
  for (const [name, strikes] of Object.entries(planned)) {
    say("");
    const act = new Act(name, strikes);
    await act.start(fleets[name]);
    results.push(await act.run());
    await end();
  }
  say("");
  for (const line of table(results)) say(line);
  say("signed: answers of the signing service, those that nobody got included. minted: distinct tokens shown to Apple. allowed: rightful");
  say("changes among them. at once: tokens in use at the same time. waited: pushes that took more than a second, token and retry included.");
  for (const { act, problems, minted, allowed, clients } of results) {
    if (problems.length === 0) say(`${act}: one token at a time, ${minted} of ${allowed} allowed ones, no push failed; the slowest took ${clients.slowest_ms} ms`);
    for (const problem of problems) say(`${act}: ${problem}`);
  }
  const isClean = results.every((result) => result.is_clean);
  if (options.json) process.stdout.write(`${JSON.stringify({ demo: "edge", seed, plan: planned, plan_hash: planHash, scale: SCALE, is_clean: isClean, acts: results })}\n`);
  return isClean ? 0 : 1;
}

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => void end().then(() => {
    process.stderr.write("error: interrupted; everything that was started has been ended\n");
    process.exit(1);
  }));
}
try {
  process.exitCode = await main();
} catch (error) {
  await end();
  process.stderr.write(`error: ${error.message}\n`);
  process.exitCode = 5;
}

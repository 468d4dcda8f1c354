// A small piece of Cloudflare's network on loopback: several isolates of the Worker that scripts/build-worker made, in
// real workerd, around one Durable Object namespace, one KV namespace, one R2 bucket and one cache.
//
//   const world = await World.start({ isolates: 4, config: `...`, secrets: { API_KEY: "..." } });
//   const answer = await world.fetch(2, "/livez");
//   await world.stop();
//
// Each isolate has memory of its own and a port of its own; what they share is what isolates of one data centre share.
// Miniflare sets it up, and plays KV, R2 and the cache on files below `world.folder`.
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";

/** A request of a test that has no answer by then has failed. */
export const DEADLINE_MS = 10_000;
// What a configuration names the bindings by.
const OBJECTS = { KEYREEVE: "Keyreeve" };
const KV = "KV";
const BUCKET = "BUCKET";
/** The worker whose isolate the objects live in: none of those that take requests, as in production. */
const HOME = "home";
// What `keyreeve build worker` writes into its wrangler.toml.
const COMPATIBILITY_DATE = "2026-04-01";

/** A package of tests/worker/package.json; scripts/setup installs them outside the checkout. */
export async function npm(name) {
  const folder = environment("KEYREEVE_WORKER_NODE_DIR");
  return import(pathToFileURL(createRequire(join(folder, "package.json")).resolve(name)));
}

/** A variable that tests/worker/run sets. */
export function environment(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run tests/worker/run`);
  return value;
}

/** Polls until `probe` returns something; the error says what was missing. */
export async function until(what, probe, deadlineMs = DEADLINE_MS) {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${deadlineMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export class World {
  #miniflare;
  #options;
  #urls = [];
  /** What workerd wrote, line by line: the log of an operator who runs `wrangler tail`. */
  log = [];

  /**
   * isolates: how many take requests. build: a folder of scripts/build-worker.
   * config: the text of keyreeve.toml, or that of each isolate by its number (undefined: the objects' own), secrets: texts by binding name. objects: Durable Object classes by binding name.
   * workers: more workers, as Miniflare's options; they reach isolate 0 by `serviceBindings: { X: "isolate-0" }`.
   * bindings: more options of Miniflare for the isolates themselves.
   */
  static async start({
    isolates = 4, build = environment("KEYREEVE_WORKER"), config, secrets = {}, objects = OBJECTS, workers = [], bindings = {},
  } = {}) {
    const world = new World();
    world.folder = mkdtempSync(join(tmpdir(), "keyreeve-world-"));
    world.isolates = isolates;
    const { Miniflare, Log, LogLevel } = await npm("miniflare");
    const one = (name, home, at) => ({
      name,
      modules: modulesOf(build, typeof config === "function" ? config(at) : config),
      compatibilityDate: COMPATIBILITY_DATE,
      bindings: secrets,
      kvNamespaces: { [KV]: "kv" },
      r2Buckets: { [BUCKET]: "bucket" },
      durableObjects: mapValues(objects, (className) => ({ className, useSQLite: true, ...home })),
      ...bindings,
    });
    const fronts = Array.from({ length: isolates }, (_, at) => ({
      ...one(isolate(at), { scriptName: HOME }, at),
      unsafeDirectSockets: [{ host: "127.0.0.1", port: 0 }],
    }));
    world.#options = {
      host: "127.0.0.1",
      port: 0,
      // Neither is needed, and both would ask the network.
      cf: false,
      telemetry: { enabled: false },
      log: new Log(LogLevel.ERROR),
      defaultPersistRoot: world.folder,
      handleRuntimeStdio: (...streams) => {
        for (const stream of streams) createInterface({ input: stream }).on("line", (line) => world.log.push(line));
      },
      // Workers of the test come last: Miniflare's own entry leads to the first.
      workers: [...fronts, ...(Object.keys(objects).length > 0 ? [one(HOME, {})] : []), ...workers],
    };
    try {
      world.#miniflare = new Miniflare(world.#options);
      await world.#look();
    } catch (error) {
      console.error(world.log.join("\n"));
      await world.stop();
      throw error;
    }
    return world;
  }

  async #look() {
    await this.#miniflare.ready;
    const names = Array.from({ length: this.isolates }, (_, at) => isolate(at));
    this.#urls = await Promise.all(names.map((name) => this.#miniflare.unsafeGetDirectURL(name)));
  }

  /** Where an isolate listens. */
  url(at, path = "/") {
    return new URL(path, this.#urls[at]);
  }

  /** Where a worker of the test listens that has `unsafeDirectSockets` of its own. */
  direct(name) {
    return this.#miniflare.unsafeGetDirectURL(name);
  }

  /** Asks one isolate; ends after DEADLINE_MS. */
  fetch(at, path, init = {}) {
    return fetch(this.url(at, path), { signal: AbortSignal.timeout(DEADLINE_MS), ...init });
  }

  /** The same as `fetch`, read: `{ status, headers, text, json, ms }`, where `json` is undefined for other texts. */
  async ask(at, path, init = {}) {
    const started = performance.now();
    const answer = await this.fetch(at, path, init);
    const text = await answer.text();
    return { status: answer.status, headers: answer.headers, text, json: parsed(text), ms: performance.now() - started };
  }

  /** Runs the cron event of an isolate. */
  async scheduled(at, cron = "* * * * *") {
    return (await this.#miniflare.getWorker(isolate(at))).scheduled({ cron });
  }

  /** A stranger worker of the test, for `fetch`. */
  worker(name) {
    return this.#miniflare.getWorker(name);
  }

  /** The KV namespace that all isolates share: get, put, list, delete. */
  kv() {
    return this.#miniflare.getKVNamespace(KV, isolate(0));
  }

  bucket() {
    return this.#miniflare.getR2Bucket(BUCKET, isolate(0));
  }

  /** A secret of the Secrets Store, by its binding: create, update, delete. */
  async secretsStore(binding) {
    return (await this.#miniflare.getSecretsStoreSecretAPI(binding, isolate(0)))();
  }

  /** The cache that all isolates share, or a named one: match and delete by URL. */
  async cache(name) {
    const caches = await this.#miniflare.getCaches();
    return name === undefined ? caches.default : caches.open(name);
  }

  /** Puts into a cache what a test wants the isolates to find there. */
  async cachePut(url, text, { cache, headers = { "cache-control": "max-age=60" } } = {}) {
    const { Response } = await npm("miniflare");
    await (await this.cache(cache)).put(url, new Response(text, { headers }));
  }

  /** Everything in KV: `[{ key, text, expiration }]`. */
  async kvEntries() {
    const kv = await this.kv();
    const { keys } = await kv.list();
    return Promise.all(keys.map(async ({ name, expiration }) => ({ key: name, text: await kv.get(name), expiration })));
  }

  /** Everything in every cache: `[{ cache, key, expires_at_ms, headers, text }]`, bytes as Latin-1. */
  async cacheEntries() {
    const reader = [fileURLToPath(new URL("cache_entries.py", import.meta.url)), join(this.folder, "cache")];
    const { stdout } = await promisify(execFile)(environment("KEYREEVE_PYTHON"), reader, { maxBuffer: 64 * 1024 * 1024 });
    return JSON.parse(stdout);
  }

  /** All bytes that a tier keeps on disk, keys and values: for tests that look for a secret. tier: cache, kv, r2, do. */
  bytes(tier) {
    const read = (folder) =>
      readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
        const path = join(folder, entry.name);
        return entry.isDirectory() ? read(path) : [readFileSync(path)];
      });
    return Buffer.concat(read(join(this.folder, tier)));
  }

  /** The processes of workerd that this world runs. */
  pids() {
    const isOurs = (pid) => {
      try {
        const [, name, parent] = /^\d+ \((.*)\) \S (\d+)/.exec(readFileSync(`/proc/${pid}/stat`, "utf8"));
        return name === "workerd" && Number(parent) === process.pid;
      } catch {
        return false;
      }
    };
    return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).filter(isOurs).map(Number);
  }

  /** CPU that the threads of workerd have used so far, in milliseconds, as the kernel's scheduler counts it. */
  cpuMs() {
    const threads = (pid) => readdirSync(`/proc/${pid}/task`).map((task) => `/proc/${pid}/task/${task}/schedstat`);
    const nanoseconds = (path) => Number(readFileSync(path, "utf8").split(" ")[0]);
    return this.pids().flatMap(threads).reduce((sum, path) => sum + nanoseconds(path) / 1e6, 0);
  }

  /** A new version is rolled out: every isolate and every object loses its memory, storage stays. */
  async restart() {
    await this.#miniflare.setOptions(this.#options);
    await this.#look();
  }

  /** The same without a warning: workerd is killed where it stands, and started again. */
  async crash() {
    for (const pid of this.pids()) process.kill(pid, "SIGKILL");
    await this.restart();
  }

  async stop() {
    await this.#miniflare?.dispose();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const isolate = (at) => `isolate-${at}`;
const mapValues = (object, change) => Object.fromEntries(Object.entries(object).map(([key, value]) => [key, change(value)]));

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

// The modules as `keyreeve build worker` lays them out: the configuration is one of them.
function modulesOf(build, config) {
  const index = { type: "ESModule", path: "index.js", contents: readFileSync(join(build, "index.js"), "utf8") };
  const wasm = join(build, "keyreeve.wasm");
  // A Worker of JavaScript alone has none: what others are compared with.
  const own = [index, ...(existsSync(wasm) ? [{ type: "CompiledWasm", path: "keyreeve.wasm", contents: readFileSync(wasm) }] : [])];
  if (config === undefined) return own;
  const main = `import "./config.mjs"; export * from "./index.js"; export { default } from "./index.js";`;
  return [
    { type: "ESModule", path: "main.mjs", contents: main },
    { type: "ESModule", path: "config.mjs", contents: `import text from "./keyreeve.toml"; globalThis.KEYREEVE_CONFIG = text;` },
    { type: "Text", path: "keyreeve.toml", contents: config },
    ...own,
  ];
}

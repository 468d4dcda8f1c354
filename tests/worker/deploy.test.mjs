// What `keyreeve build worker` writes: wrangler takes it as it is, and workerd starts what wrangler makes of it.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { DEADLINE_MS, environment, until } from "./world.mjs";

const WRANGLER = join(environment("KEYREEVE_WORKER_NODE_DIR"), "node_modules/.bin/wrangler");
const QUIET = { ...process.env, WRANGLER_SEND_METRICS: "false", CI: "1", NO_COLOR: "1" };
// Wrangler bundles and checks; it talks to nobody.
const WRANGLER_MS = 60_000;
const CONFIG = `
store.url = "do:KEYREEVE"
store.key = "binding:REGISTER_KEY"
store.caches = ["cache", "kv:CREDENTIALS"]
seal.keys = ["binding:SEAL_KEY"]
`;
const MORE = `
[credential.vendor]
source = "http"
url = "service:RENEWAL/renew"
[credential.bank]
source = "http"
url = "https://bank.example.org/token"
via = "binding:BANK"
`;
const APNS = `
[credential.apns]
source = "jwt"
key = "binding:SIGNING_KEY"
params = { alg = "HS256", claims = { iss = "me", iat = "{iat}", exp = "{exp}" } }
`;

let folder;
before(() => (folder = mkdtempSync(join(tmpdir(), "keyreeve-deploy-"))));
after(() => rmSync(folder, { recursive: true, force: true }));

/** Builds the folder `name`, and gives its path. */
async function build(name, config, ...more) {
  const [file, out] = [join(folder, `${name}.toml`), join(folder, name)];
  writeFileSync(file, config);
  const script = environment("KEYREEVE_WORKER");
  await promisify(execFile)(environment("KEYREEVE_BIN"), ["build", "worker", "-c", file, "--script", script, "--out", out, ...more]);
  return out;
}

test("wrangler would deploy the folder as it is, with every binding that the configuration names", async (t) => {
  const out = await build("all", CONFIG + MORE, "--bind", "RENEWAL=renewal", "--bind", "BANK=0f1e", "--bind", "SEAL_KEY=8f0a/seal-key");
  const bundle = join(folder, "bundle");
  const run = promisify(execFile)(WRANGLER, ["deploy", "--dry-run", "--outdir", bundle], { cwd: out, env: QUIET, timeout: WRANGLER_MS });
  const { stdout, stderr } = await run;
  for (const binding of ["env.KEYREEVE (Keyreeve)", "env.CREDENTIALS", "env.RENEWAL (renewal)", "env.BANK (0f1e)", "env.SEAL_KEY"]) {
    assert.ok(stdout.includes(binding), `${binding} is not bound:\n${stdout}`);
  }
  assert.ok(!/warning|error/i.test(stdout + stderr), `${stdout}${stderr}`);
  t.diagnostic(/Total Upload.*/.exec(stdout)[0]);
  const configuration = readdirSync(bundle).find((name) => name.endsWith("keyreeve.toml"));
  assert.equal(readFileSync(join(bundle, configuration), "utf8"), CONFIG + MORE);
  assert.ok(statSync(join(bundle, "main.js")).size > 0);
});

test("workerd starts what wrangler makes of the folder", async () => {
  const out = await build("runs", CONFIG + APNS);
  const key = "0123456789abcdef".repeat(4);
  writeFileSync(join(out, ".dev.vars"), `SEAL_KEY=${key}\nREGISTER_KEY=${key}\nSIGNING_KEY=${key}\n`);
  const arguments_ = ["dev", "--local", "--ip", "127.0.0.1", "--port", "0", "--inspector-port", "0", "--show-interactive-dev-session=false"];
  // A group of its own: wrangler starts workerd, and both have to end.
  const wrangler = spawn(WRANGLER, arguments_, { cwd: out, env: QUIET, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  let said = "";
  for (const stream of [wrangler.stdout, wrangler.stderr]) stream.on("data", (text) => (said += text));
  try {
    const ready = () => {
      assert.equal(wrangler.exitCode, null, said);
      return /Ready on (http:\S+)/.exec(said)?.[1];
    };
    const url = await until("wrangler is ready", ready, WRANGLER_MS);
    const answer = await fetch(new URL("/livez", url), { signal: AbortSignal.timeout(DEADLINE_MS) });
    assert.equal(answer.status, 200, said);
    assert.ok(!said.includes(key), "a secret is in the log");
  } finally {
    process.kill(-wrangler.pid, "SIGKILL");
  }
});

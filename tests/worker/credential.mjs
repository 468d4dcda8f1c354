// What the tests of credentials share: a caller, a renewal service, a configuration around them.
import { createHash } from "node:crypto";
import { Upstream } from "./upstream.mjs";

export const KEY = "the-key-of-a-test";
export const AUTHORIZED = { headers: { authorization: `Bearer ${KEY}` } };
export const SECRETS = { SEAL_KEY: "5e".repeat(32) };
export const TOKEN = "/v1/credentials/up/token";

/** Lives of seconds, so that a test sees renewals; everything else as it comes. */
export const SHORT_LIFE =
  `life = { max = "12s", lead = "8s", lease = "3s", takeover = "3600ms", skew = "50ms", send = "500ms", timeout = "2s", min_interval = "100ms", hold = "200ms", hold_max = "1s", poll = "100ms", spread = "0s", jitter = "0s" }`;

/** A renewal service whose tokens say which one they are. `life_s` may change while it runs; `answer` may take over. */
export async function renewals({ delayMs = 0, lifeS = 3600 } = {}) {
  const state = { lifeS, delayMs, take: undefined, minted: [], keys: [] };
  const upstream = await Upstream.start(async (request) => {
    state.keys.push(request.headers["idempotency-key"]);
    const other = state.take && (await state.take(request));
    if (other !== undefined) return other || undefined;
    if (state.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, state.delayMs));
    state.minted.push(Date.now());
    return { text: JSON.stringify({ token: `token-number-${state.minted.length}`, expires_in: state.lifeS }) };
  });
  return Object.assign(upstream, { state });
}

/** A configuration with one credential, `up`, from `upstream`. more: lines of its section. */
export function configured(upstream, { caches = `["cache", "kv:KV"]`, more = "", tail = "", top = "" } = {}) {
  return `
store.url = "do:KEYREEVE"
store.caches = ${caches}
seal.keys = ["binding:SEAL_KEY"]
${top}
[caller.app]
key_sha256 = "${createHash("sha256").update(KEY).digest("hex")}"
can = ["list", "token", "report", "renew", "resolve", "history"]
credentials = ["*"]

[credential.up]
source = "http"
url = "${upstream.url}/mint"
map = { token = "/token", expires_in = "/expires_in" }
${more}
${tail}
`;
}

/** Lines of the log that say that something went wrong. */
export const complaints = (world) => world.log.filter((line) => /error|uncaught|exception|hung|cancel/i.test(line));

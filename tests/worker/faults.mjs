// What the tests of faults share: credentials with lives of seconds, from an upstream that a test may break path by path.
import { renewals } from "./credential.mjs";

/** How long a caller waits without a credential, and what a busy machine may add to that. */
export const WAIT_MS = 700;
export const SLACK_MS = 1500;
/** Short enough to see several tries, long enough that each hold is longer than the lease before it. */
export const LIFE = {
  max: "1h", skew: "50ms", send: "200ms", timeout: "500ms", lease: "800ms", takeover: "1s", poll: "100ms",
  min_interval: "100ms", hold: "400ms", hold_max: "4s", hard_hold: "400ms", hard_hold_max: "4s",
};
export const tokenOf = (name) => `/v1/credentials/${name}/token`;
export const historyOf = (name) => `/v1/credentials/${name}/history`;

/** The section of a credential that `upstream` mints at a path of its own. */
export function section(upstream, name, { life = {}, ...more } = {}) {
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
export async function paths(take) {
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

export const good = (token, expires_in = 3600) => ({ text: JSON.stringify({ token, expires_in }) });
export const gaps = (times) => times.slice(1).map((time, at) => time - times[at]);

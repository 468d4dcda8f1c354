// Asks a running keyreeve for its token and lets jose judge it.
//
// usage: verify_jose.mjs DEV_JSON      (as `keyreeve dev --data DIR` writes it to DIR/dev.json)
// or     KEYREEVE_URL, KEYREEVE_API_KEY, KEYREEVE_CREDENTIAL, KEYREEVE_PUBLIC_KEY (a PEM file),
//        KEYREEVE_TEAM_ID and KEYREEVE_KEY_ID in the environment.
// jose itself is found in KEYREEVE_NODE_DIR/node_modules, outside the checkout: scripts/setup puts it there.
// A judge that accepts everything proves nothing: the same checks must fail for tokens that were spoilt.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = process.env.KEYREEVE_NODE_DIR;
if (!folder) throw new Error("KEYREEVE_NODE_DIR is not set: scripts/setup prints the file that sets it");
const jose = await import(pathToFileURL(createRequire(join(folder, "package.json")).resolve("jose")));
const { version } = JSON.parse(readFileSync(join(folder, "node_modules/jose/package.json"), "utf8"));

// Apple takes a provider token for one hour from its "iat".
const LIFE = "1h";
// The clock of this machine is the clock of the server; a second may tick over in between.
const FUTURE_SECONDS_MAX = 1;
const DEADLINE_MS = 10_000;

function settings() {
  if (process.argv[2]) return JSON.parse(readFileSync(process.argv[2], "utf8"));
  const { env } = process;
  return {
    url: env.KEYREEVE_URL,
    api_key: env.KEYREEVE_API_KEY,
    credential: env.KEYREEVE_CREDENTIAL,
    public_key_pem_path: env.KEYREEVE_PUBLIC_KEY,
    team_id: env.KEYREEVE_TEAM_ID,
    key_id: env.KEYREEVE_KEY_ID,
  };
}

async function fetchToken(dev) {
  const name = dev.credential.split("/").map(encodeURIComponent).join("/");
  const answer = await fetch(`${dev.url.replace(/\/$/, "")}/v1/credentials/${name}/token`, {
    headers: { authorization: `Bearer ${dev.api_key}` },
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  if (answer.status !== 200) throw new Error(`status ${answer.status}: ${await answer.text()}`);
  return answer.json();
}

/** Throws unless `token` is what Apple would accept from this team with this key. */
async function verify(token, key, dev) {
  const result = await jose.jwtVerify(token, key, {
    algorithms: ["ES256"],
    issuer: dev.team_id,
    requiredClaims: ["iss", "iat"],
    maxTokenAge: LIFE,
    clockTolerance: FUTURE_SECONDS_MAX,
  });
  if (result.protectedHeader.kid !== dev.key_id) {
    throw new jose.errors.JWTInvalid(`kid is ${result.protectedHeader.kid}, not ${dev.key_id}`);
  }
  return result;
}

async function refuses(what, token, key, dev) {
  try {
    await verify(token, key, dev);
  } catch (error) {
    if (error instanceof jose.errors.JOSEError) return;
    throw error;
  }
  throw new Error(`jose accepts a token with ${what}`);
}

const spoil = (text) => text.slice(0, 10) + (text[10] === "A" ? "B" : "A") + text.slice(11);

const dev = settings();
const key = await jose.importSPKI(readFileSync(dev.public_key_pem_path, "utf8"), "ES256");
const answer = await fetchToken(dev);
const { token } = answer;
const { payload, protectedHeader } = await verify(token, key, dev);

const [head, body, signature] = token.split(".");
const stranger = await jose.generateKeyPair("ES256");
const header = { alg: "ES256", kid: dev.key_id };
const forged = await new jose.SignJWT(payload).setProtectedHeader(header).sign(stranger.privateKey);
await refuses("one byte of its claims changed", `${head}.${spoil(body)}.${signature}`, key, dev);
await refuses("one byte of its signature changed", `${head}.${body}.${spoil(signature)}`, key, dev);
await refuses("another key", forged, key, dev);
await refuses("no signature", new jose.UnsecuredJWT(payload).encode(), key, dev);
await refuses("another issuer", token, key, { ...dev, team_id: "ANOTHERTEAM" });
await refuses("another key id", token, key, { ...dev, key_id: "ANOTHERKID" });

console.log("token sha256", createHash("sha256").update(token).digest("hex"));
const { alg, kid } = protectedHeader;
console.log(`jose ${version}: alg ${alg}, kid ${kid}, iss ${payload.iss}, iat ${payload.iat}: valid`);

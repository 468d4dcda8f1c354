// Each way to mint that needs something of the platform, through the real Worker, on each kind of register.
import assert from "node:assert/strict";
import { createHash, createPublicKey, generateKeyPairSync, verify } from "node:crypto";
import { after, before, test } from "node:test";
import { StrictServer } from "./mtls.mjs";
import { World } from "./world.mjs";

const CALLER = "the-key-of-a-test";
const AUTHORIZED = { headers: { authorization: `Bearer ${CALLER}` } };
const ISOLATES = 3;
const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
const APP_KEY = rsa.privateKey.export({ type: "pkcs1", format: "pem" });
const SECRETS = { SEAL_KEY: "5e".repeat(32), APP_KEY };

const configured = (store) => `
store.url = "${store}"
seal.keys = ["binding:SEAL_KEY"]
[caller.app]
key_sha256 = "${createHash("sha256").update(CALLER).digest("hex")}"
can = ["token"]
credentials = ["*"]
[credential.app]
source = "jwt"
preset = "github-app-jwt"
key = "binding:APP_KEY"
params = { app_id = "12345" }
[credential.slotted]
source = "jwt"
mode = "slot"
key = "binding:APP_KEY"
params = { alg = "RS256", claims = { iss = "me", iat = "{iat}", exp = "{exp}" } }
[credential.mine]
source = "http"
url = "service:RENEWAL/renew?of=mine"
[credential.vendor]
source = "http"
url = "https://localhost/token"
via = "binding:CERT"
`;

// Counts, and tells what it was asked: the name of a Worker's own renewal service is its URL.
const RENEWAL = `let calls = 0;
export default { async fetch(request) {
  calls += 1;
  const { pathname, search } = new URL(request.url);
  return Response.json({ access_token: ["minted", calls, request.method, pathname + search].join("~"), expires_in: 3600 });
} }`;

let strict;
before(async () => {
  strict = await StrictServer.start((name) => JSON.stringify({ access_token: `for-${name}`, expires_in: 3600 }));
});
after(() => strict?.stop());

async function around({ store = "do:KEYREEVE", secrets = SECRETS, services, objects, compatibilityDate }, body) {
  const serviceBindings = services ?? { RENEWAL: "renewal", CERT: strict.service };
  const world = await World.start({
    isolates: ISOLATES,
    config: configured(store),
    secrets,
    ...(objects && { objects }),
    workers: [{ name: "renewal", modules: [{ type: "ESModule", path: "renewal.mjs", contents: RENEWAL }] }],
    bindings: { serviceBindings, ...(compatibilityDate && { compatibilityDate }) },
  });
  try {
    await body(world);
  } finally {
    await world.stop();
  }
}

const token = (world, at, name) => world.ask(at, `/v1/credentials/${name}/token`, AUTHORIZED);
const everywhere = (world, name) => Promise.all([...Array(3 * ISOLATES).keys()].map((at) => token(world, at % ISOLATES, name)));

/** The one token that all of them got. */
function one(answers) {
  assert.deepEqual(answers.map(({ status }) => status), answers.map(() => 200), answers.find(({ status }) => status !== 200)?.text);
  const tokens = new Set(answers.map(({ json }) => json.token));
  assert.equal(tokens.size, 1);
  return [...tokens][0];
}

function verified(jwt) {
  const [header, claims, signature] = jwt.split(".");
  const isRight = verify("sha256", Buffer.from(`${header}.${claims}`), createPublicKey(rsa.publicKey.export({ type: "spki", format: "pem" })), Buffer.from(signature, "base64url"));
  assert.ok(isRight, "node's own RSA accepts the signature");
  return JSON.parse(Buffer.from(claims, "base64url"));
}

for (const store of ["do:KEYREEVE", "r2:BUCKET"]) {
  test(`${store}: every source that needs the platform mints once for all isolates`, async () => {
    await around({ store }, async (world) => {
      assert.equal(verified(one(await everywhere(world, "app"))).iss, "12345");
      assert.equal(verified(one(await everywhere(world, "slotted"))).iss, "me");
      assert.equal(one(await everywhere(world, "mine")), "minted~1~POST~/renew?of=mine");
      assert.equal(one(await everywhere(world, "vendor")), "for-keyreeve");
      const objects = await (await world.bucket()).list();
      const records = objects.objects.filter(({ key }) => key.startsWith("keyreeve/register/")).length;
      assert.equal(records, store === "r2:BUCKET" ? 3 : 0, "each record is in the bucket, or none");
    });
  });
}

test("what is not bound is named in one sentence, to whoever asks and in the log", async () => {
  const said = async (options, name, expected) =>
    around(options, async (world) => {
      const answer = await token(world, 0, name);
      assert.ok(answer.status >= 500, `${answer.status}`);
      assert.equal(answer.headers.get("content-type"), "application/problem+json");
      assert.match(answer.json.detail, expected);
      assert.doesNotMatch(answer.text, /\.js|\.rs|wasm|    at /, "no stack to a stranger");
      assert.ok(world.log.some((line) => expected.test(line)), world.log.join("\n"));
    });
  await said({ secrets: { APP_KEY } }, "app", /the binding `SEAL_KEY` is missing/);
  await said({ secrets: { SEAL_KEY: SECRETS.SEAL_KEY } }, "app", /the binding `APP_KEY` is missing/);
  await said({ services: { CERT: strict.service } }, "mine", /the binding `RENEWAL` is missing/);
  await said({ services: { RENEWAL: "renewal" } }, "vendor", /the binding `CERT` is missing/);
  await said({ compatibilityDate: "2024-11-10" }, "app", /the `compatibility_date` of this Worker is before 2024-11-11/);
});

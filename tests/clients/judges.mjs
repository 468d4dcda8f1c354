// jose and jsonwebtoken as signers for keyreeve, and as readers of its issuers; oidc-provider as an issuer that it verifies.
//
// usage: judges.mjs make FOLDER                     keys and one token of every algorithm: FOLDER/jose.json, FOLDER/jose.jwks.json, ..
//        judges.mjs read URL SECRET ALG,ALG          every issuer at URL/issuer/NAME: discovery, jose's remote key set, jsonwebtoken
//        judges.mjs judged URL API_KEY FOLDER        what keyreeve says about the tokens that were made, and about spoilt ones
//        judges.mjs provider FILE                    runs oidc-provider; writes its address and two tokens to FILE
// The packages are found in KEYREEVE_NODE_DIR/node_modules, outside the checkout: scripts/setup puts them there.
// A judge that accepts everything proves nothing: what was spoilt must be refused.
import { createPublicKey, generateKeyPairSync } from "node:crypto";
import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folder = process.env.KEYREEVE_NODE_DIR;
if (!folder) throw new Error("KEYREEVE_NODE_DIR is not set: scripts/setup prints the file that sets it");
const load = createRequire(join(folder, "package.json"));
const jose = await import(pathToFileURL(load.resolve("jose")));
const jsonwebtoken = load("jsonwebtoken");
const version = (name) => JSON.parse(readFileSync(join(folder, `node_modules/${name}/package.json`), "utf8")).version;

const DEADLINE_MS = 10_000;
// jsonwebtoken knows no EdDSA.
const knownToJsonwebtoken = (alg) => alg !== "EdDSA";
const now = () => Math.floor(Date.now() / 1000);
const claimsOf = (who, alg) => ({ iss: `https://${who}.example`, aud: "judged", sub: alg, iat: now(), exp: now() + 600 });

function pair(alg) {
  if (alg === "EdDSA") return generateKeyPairSync("ed25519");
  const namedCurve = { ES256: "P-256", ES384: "P-384", ES512: "P-521" }[alg];
  return namedCurve ? generateKeyPairSync("ec", { namedCurve }) : generateKeyPairSync("rsa", { modulusLength: 2048 });
}

async function make(folder) {
  const algorithms = JSON.parse(readFileSync(join(folder, "algorithms.json"), "utf8"));
  for (const who of ["jose", "jsonwebtoken"]) {
    const keys = [];
    const tokens = {};
    for (const alg of algorithms.filter((alg) => who === "jose" || knownToJsonwebtoken(alg))) {
      const { publicKey, privateKey } = pair(alg);
      const kid = `${who}-${alg}`;
      keys.push({ ...publicKey.export({ format: "jwk" }), kid, alg, use: "sig" });
      const claims = claimsOf(who, alg);
      tokens[alg] =
        who === "jose"
          ? await new jose.SignJWT(claims).setProtectedHeader({ alg, kid, typ: "JWT" }).sign(privateKey)
          : jsonwebtoken.sign(claims, privateKey, { algorithm: alg, keyid: kid });
    }
    writeFileSync(join(folder, `${who}.jwks.json`), JSON.stringify({ keys }));
    writeFileSync(join(folder, `${who}.json`), JSON.stringify(tokens));
  }
}

async function ask(url, options = {}) {
  const answer = await fetch(url, { ...options, signal: AbortSignal.timeout(DEADLINE_MS) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${url}: status ${answer.status}: ${text}`);
  return JSON.parse(text);
}

async function tokenOf(document, client, secret) {
  const body = new URLSearchParams({ grant_type: "client_credentials", client_id: client, client_secret: secret });
  return (await ask(document.token_endpoint, { method: "POST", body })).access_token;
}

const spoil = (text, at) => text.slice(0, at) + (text[at] === "A" ? "B" : "A") + text.slice(at + 1);
function spoilt(token) {
  const [head, body, signature] = token.split(".");
  return [`${head}.${spoil(body, 12)}.${signature}`, `${head}.${body}.${spoil(signature, 12)}`];
}

async function read(url, secret, algorithms) {
  for (const alg of algorithms) {
    const issuer = `${url}/issuer/${alg.toLowerCase()}`;
    const document = await ask(`${issuer}/.well-known/openid-configuration`);
    if (document.issuer !== issuer) throw new Error(`the document of ${issuer} names ${document.issuer}`);
    const token = await tokenOf(document, `${alg.toLowerCase()}-client`, `${secret}-${alg.toLowerCase()}`);
    const remote = jose.createRemoteJWKSet(new URL(document.jwks_uri), { timeoutDuration: DEADLINE_MS });
    const rules = { algorithms: [alg], issuer, audience: "judged", typ: "at+jwt", requiredClaims: ["exp", "iat", "sub", "jti"] };
    const { protectedHeader } = await jose.jwtVerify(token, remote, rules);
    for (const other of spoilt(token)) {
      const error = await jose.jwtVerify(other, remote, rules).then(
        () => new Error(`jose accepts a spoilt token of ${alg}`),
        (error) => (error instanceof jose.errors.JOSEError ? null : error),
      );
      if (error) throw error;
    }
    if (!knownToJsonwebtoken(alg)) continue;
    const { keys } = await ask(document.jwks_uri);
    const key = createPublicKey({ key: keys.find((key) => key.kid === protectedHeader.kid), format: "jwk" });
    const judge = (token) => jsonwebtoken.verify(token, key, { algorithms: [alg], issuer, audience: "judged" });
    judge(token);
    for (const other of spoilt(token)) {
      let accepted = true;
      try {
        judge(other);
      } catch (error) {
        if (!(error instanceof jsonwebtoken.JsonWebTokenError)) throw error;
        accepted = false;
      }
      if (accepted) throw new Error(`jsonwebtoken accepts a spoilt token of ${alg}`);
    }
  }
  const both = algorithms.join(" ");
  console.log(`jose ${version("jose")}: its remote key set reads ${algorithms.length} issuers, tokens of ${both}: valid`);
  const known = algorithms.filter(knownToJsonwebtoken).join(" ");
  console.log(`jsonwebtoken ${version("jsonwebtoken")}: tokens of ${known}: valid`);
}

async function judged(url, apiKey, folder) {
  const headers = { authorization: `Bearer ${apiKey}`, "content-type": "application/json" };
  const verdict = (token) => ask(`${url}/v1/verify`, { method: "POST", headers, body: JSON.stringify({ token }) });
  for (const who of ["jose", "jsonwebtoken", "pyjwt"]) {
    const tokens = Object.entries(JSON.parse(readFileSync(join(folder, `${who}.json`), "utf8")));
    for (const [alg, token] of tokens) {
      const said = await verdict(token);
      if (!said.valid || said.claims.sub !== alg || said.source !== `verifier:${who}`) {
        throw new Error(`keyreeve refuses a token of ${who} with ${alg}: ${JSON.stringify(said)}`);
      }
      for (const other of spoilt(token)) {
        if ((await verdict(other)).valid) throw new Error(`keyreeve accepts a spoilt token of ${who} with ${alg}`);
      }
    }
    console.log(`keyreeve: tokens of ${who} with ${tokens.map(([alg]) => alg).join(" ")}: valid`);
  }
  const { access, jwks_uri: jwks, issuer } = JSON.parse(readFileSync(join(folder, "provider.json"), "utf8"));
  const said = await verdict(access);
  if (!said.valid || said.source !== "verifier:provider") {
    throw new Error(`keyreeve refuses a token of oidc-provider: ${JSON.stringify(said)} (${jwks})`);
  }
  for (const other of spoilt(access)) {
    if ((await verdict(other)).valid) throw new Error("keyreeve accepts a spoilt token of oidc-provider");
  }
  console.log(`keyreeve: a token of oidc-provider ${version("oidc-provider")}, its keys found by discovery at ${issuer}: valid`);
}

async function provider(file) {
  const { default: Provider } = await import(pathToFileURL(load.resolve("oidc-provider")));
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const api = { scope: "read", audience: "judged", accessTokenFormat: "jwt", jwt: { sign: { alg: "RS256" } } };
  const oidc = new Provider(issuer, {
    clients: [
      { client_id: "judge", client_secret: "s3cret", grant_types: ["client_credentials"], redirect_uris: [], response_types: [] },
    ],
    jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), kid: "provider-1", alg: "RS256", use: "sig" }] },
    scopes: ["read"],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: () => api, defaultResource: () => "urn:judged" },
    },
  });
  server.on("request", oidc.callback());
  const document = await ask(`${issuer}/.well-known/openid-configuration`);
  const body = new URLSearchParams({ grant_type: "client_credentials", scope: "read", resource: "urn:judged" });
  const authorization = `Basic ${Buffer.from("judge:s3cret").toString("base64")}`;
  const { access_token: access } = await ask(document.token_endpoint, { method: "POST", headers: { authorization }, body });
  writeFileSync(`${file}.new`, JSON.stringify({ issuer, jwks_uri: document.jwks_uri, access }));
  renameSync(`${file}.new`, file);
}

const [command, ...rest] = process.argv.slice(2);
if (command === "make") await make(rest[0]);
else if (command === "read") await read(rest[0], rest[1], rest[2].split(","));
else if (command === "judged") await judged(rest[0], rest[1], rest[2]);
else if (command === "provider") await provider(rest[0]);
else throw new Error(`unknown command ${command}`);

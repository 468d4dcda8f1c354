// jose and fast-jwt on the tokens that `keyreeve-bench jwt` wrote: per CPU second, all threads of the process counted.
//   npm install --prefix bench && node bench/jwt.mjs /tmp/keyreeve-bench-jwt.json
import { createPrivateKey, createPublicKey, createSecretKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSigner, createVerifier } from "fast-jwt";
import * as jose from "jose";

const { tokens, claims, keys } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const ROUNDS = 5, ROUND_MS = 300;

async function measure(who, algorithm, what, act) {
  const rates = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const start = process.cpuUsage();
    let count = 0, spent;
    do {
      for (let i = 0; i < 20; i++, count++) await act();
      const { user, system } = process.cpuUsage(start);
      spent = (user + system) / 1000;
    } while (spent < ROUND_MS);
    if (round > 0) rates.push((count * 1000) / spent);
  }
  const rate = rates.sort((a, b) => a - b)[ROUNDS >> 1];
  console.log(`${algorithm.padEnd(8)} ${what.padEnd(8)} ${who.padEnd(28)} ${Math.round(rate).toString().padStart(12)}`);
}

const pem = { RS256: keys.rsa, PS256: keys.rsa, ES256: keys.p256, EdDSA: keys.ed25519 };
for (const algorithm of Object.keys(tokens)) {
  const token = tokens[algorithm];
  const isSecret = algorithm.startsWith("HS");
  const secret = Buffer.from(keys.secret, "base64url");
  const privateKey = isSecret ? createSecretKey(secret) : createPrivateKey(pem[algorithm]);
  const publicKey = isSecret ? privateKey : createPublicKey(privateKey);
  const wants = { issuer: claims.iss, audience: claims.aud, algorithms: [algorithm] };
  // What jose is fastest with: keys imported into WebCrypto once.
  const [joseSign, joseVerify] = isSecret
    ? [secret, secret]
    : [await jose.importPKCS8(pem[algorithm], algorithm), await jose.importSPKI(publicKey.export({ type: "spki", format: "pem" }), algorithm)];
  await measure("jose", algorithm, "verify", () => jose.jwtVerify(token, joseVerify, wants));
  await measure("jose", algorithm, "sign", () => new jose.SignJWT(claims).setProtectedHeader({ alg: algorithm, typ: "JWT", kid: "key-1" }).sign(joseSign));
  const key = isSecret ? secret : publicKey.export({ type: "spki", format: "pem" });
  const allowed = { key, algorithms: [algorithm], allowedIss: claims.iss, allowedAud: claims.aud };
  const verify = createVerifier({ ...allowed, cache: false });
  await measure("fast-jwt", algorithm, "verify", () => verify(token));
  const cached = createVerifier({ ...allowed, cache: true });
  await measure("fast-jwt, from its cache", algorithm, "verify", () => cached(token));
  const sign = createSigner({ key: isSecret ? secret : pem[algorithm], algorithm, kid: "key-1" });
  await measure("fast-jwt", algorithm, "sign", () => sign(claims));
}

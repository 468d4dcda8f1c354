// What the AWS SDK for JavaScript makes of the credentials that its environment points to: one JSON object.
import { createRequire } from "node:module";
import { join } from "node:path";

const { fromNodeProviderChain, fromHttp } = createRequire(join(process.env.KEYREEVE_NODE_DIR, "x.js"))(
  "@aws-sdk/credential-providers",
);
const started = Date.now();
let said;
try {
  const times = Number(process.argv[2] ?? 1);
  const provider = process.argv[3] === "http" ? fromHttp() : fromNodeProviderChain();
  let credentials;
  for (let n = 0; n < times; n++) credentials = await provider();
  said = {
    key: credentials.accessKeyId,
    secret: credentials.secretAccessKey,
    token: credentials.sessionToken,
    expires: credentials.expiration?.toISOString(),
  };
} catch (error) {
  said = { error: `${error.name}: ${error.message}`, Code: error.Code, Message: error.Message };
}
console.log(JSON.stringify({ ...said, seconds: (Date.now() - started) / 1000 }));

// What google-auth-library makes of the metadata server that its environment points to: one JSON object.
import { createRequire } from "node:module";
import { join } from "node:path";

const { GoogleAuth } = createRequire(join(process.env.KEYREEVE_NODE_DIR, "x.js"))("google-auth-library");
const auth = new GoogleAuth({ scopes: "https://www.googleapis.com/auth/cloud-platform" });
const client = await auth.getClient();
const { token } = await client.getAccessToken();
console.log(JSON.stringify({ kind: client.constructor.name, token, project: await auth.getProjectId() }));

// Load on one isolate, and what its cost is compared with: for bench/worker.mjs and cost.test.mjs.
import { connect } from "node:net";
import { KEY } from "./credential.mjs";

export const CONNECTIONS = 8;

/** Asks for each path, by keep-alive connections with one request each under way; answers have a Content-Length. In milliseconds. */
export async function load(url, paths) {
  const requests = paths.map((path) => `GET ${path} HTTP/1.1\r\nhost: ${url.host}\r\nauthorization: Bearer ${KEY}\r\n\r\n`);
  let asked = 0;
  const started = performance.now();
  await Promise.all(Array.from({ length: CONNECTIONS }, () => new Promise((resolve, reject) => {
    const socket = connect({ port: Number(url.port), host: url.hostname, noDelay: true });
    let seen = "";
    const next = () => {
      if (asked === requests.length) return socket.end(resolve);
      socket.write(requests[asked]);
      asked += 1;
    };
    socket.setEncoding("latin1").on("error", reject).on("connect", next).on("data", (data) => {
      seen += data;
      const end = seen.indexOf("\r\n\r\n");
      if (end < 0) return;
      const length = /content-length: (\d+)/i.exec(seen.slice(0, end))?.[1];
      if (!seen.startsWith("HTTP/1.1 200") || length === undefined) return reject(new Error(seen.slice(0, 400)));
      if (seen.length < end + 4 + Number(length)) return;
      seen = "";
      next();
    });
  })));
  return performance.now() - started;
}

/** The least that a Worker can do: the same text each time. */
export const constant = (body) => `const body = ${JSON.stringify(body)};
export default {
  fetch() {
    return new Response(body, { headers: { "content-type": "application/json" } });
  },
};
`;

// A server that takes nobody without the client certificate, and Miniflare's stand-in for `mtls_certificates`.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** `service` is a value for Miniflare's `serviceBindings`: what is fetched there goes to this server with the certificate. */
export class StrictServer {
  /** answer(name, url) returns the text for the caller whose certificate has this common name. */
  static async start(answer) {
    const strict = new StrictServer();
    strict.folder = mkdtempSync(join(tmpdir(), "keyreeve-mtls-"));
    for (const [name, subject] of [["server", "/CN=localhost"], ["client", "/CN=keyreeve"]]) strict.#certify(name, subject);
    strict.server = createServer(
      {
        key: strict.#text("server.key"),
        cert: strict.#text("server.pem"),
        ca: strict.#text("client.pem"),
        requestCert: true,
        rejectUnauthorized: true,
      },
      (request, response) => response.end(answer(request.socket.getPeerCertificate().subject.CN, request.url)),
    );
    await new Promise((resolve) => strict.server.listen(0, "127.0.0.1", resolve));
    const keypair = { privateKey: strict.#text("client.key"), certificateChain: strict.#text("client.pem") };
    strict.service = {
      external: {
        address: `127.0.0.1:${strict.server.address().port}`,
        // Without this Miniflare takes the service for one in clear.
        http: null,
        https: {
          options: {},
          certificateHost: "localhost",
          tlsOptions: { keypair, trustedCertificates: [strict.#text("server.pem")] },
        },
      },
    };
    return strict;
  }

  #certify(name, subject) {
    const [key, certificate] = [join(this.folder, `${name}.key`), join(this.folder, `${name}.pem`)];
    const options = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    const names = ["-subj", subject, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    execFileSync("openssl", ["req", ...options, ...names, "-keyout", key, "-out", certificate], { stdio: "ignore" });
  }

  #text(name) {
    return readFileSync(join(this.folder, name), "utf8");
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
    rmSync(this.folder, { recursive: true, force: true });
  }
}

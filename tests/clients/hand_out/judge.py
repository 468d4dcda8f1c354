"""Unmodified clients take credentials from a running node. Each case says what was seen, and fails with what was seen instead.

usage: judge.py BINARY CASES...     with KEYREEVE_SDK_PYTHON and the like in the environment, as scripts/setup leaves it
"""

import base64
import concurrent.futures
import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
BINARY = sys.argv[1]
KEY = "kr_judge_of_the_hand_out"
# Of a caller who may not take credentials.
LESSER_KEY = "kr_reader_of_the_hand_out"
PATIENCE = 60


class Failed(Exception):
    pass


def expect(what, found, wanted):
    if found != wanted:
        raise Failed(f"{what}: {found!r} is not {wanted!r}")


def that(what, is_so, found):
    if not is_so:
        raise Failed(f"{what}: {found!r}")


class World:
    """A node over exec sources that do as they are told."""

    def __init__(self, more="", kinds=("aws", "bearer"), life='max = "1h"', secrets=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="keyreeve-hand-out-"))
        os.chmod(self.folder, 0o700)
        seal = subprocess.run([BINARY, "config", "new-seal-key"], check=True, capture_output=True, text=True).stdout
        self.write("seal.key", seal)
        self.write("api.key", KEY)
        for name, text in (secrets or {}).items():
            self.write(name, text)
        parts = [
            f'store.url = "sqlite:{self.folder}/state.db"',
            f'seal.keys = ["file:{self.folder}/seal.key"]',
            '[[listener]]\nbind = "127.0.0.1:0"',
            f'[caller.judge]\nkey_sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"',
            'can = ["list", "token", "report", "renew", "history"]\ncredentials = ["*"]',
            f'[caller.reader]\nkey_sha256 = "{hashlib.sha256(LESSER_KEY.encode()).hexdigest()}"',
            'can = ["list"]\ncredentials = ["*"]',
        ]
        for kind in kinds:
            self.behave(kind)
            command = json.dumps([sys.executable, str(HERE / "mint.py"), str(self.folder), kind])
            parts.append(f'[credential.{kind}]\nsource = "exec"\ncommand = {command}\nlife = {{ {life} }}')
        self.write("keyreeve.toml", "\n".join(parts) + "\n" + more.replace("FOLDER", str(self.folder)))
        self.log = self.folder / "log"
        self.node = subprocess.Popen(
            [BINARY, "serve", "-c", str(self.folder / "keyreeve.toml")],
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
            env={**os.environ, "RUST_LOG": "debug"},
        )
        self.urls = []
        for _ in range(1 + more.count("\nbind = ")):
            line = self.node.stdout.readline()
            if not line.startswith("listening on "):
                raise Failed(f"the node does not listen: {self.log.read_text()}")
            self.urls.append(line.removeprefix("listening on ").strip())
        self.url = self.urls[0]

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        return path

    def behave(self, kind, **behaviour):
        self.write(f"{kind}.behaviour", json.dumps(behaviour))

    def calls(self, kind):
        path = self.folder / f"{kind}.calls"
        return path.stat().st_size if path.exists() else 0

    def asked(self, route):
        """How many requests a route has had."""
        return self.log.read_text().count(route)

    def environment(self, **more):
        """What a client sees: nothing of ours but what it is given."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "KEYREEVE_NODE_DIR") if name in os.environ}
        return {**kept, "HOME": str(self.folder), "AWS_EC2_METADATA_DISABLED": "true", **more}

    def container(self, name="aws", key=KEY, url=None):
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url or self.url}/v1/credentials/{name}/aws",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": key,
        }

    def close(self):
        self.node.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.node.wait(10)
        self.node.kill()
        shutil.rmtree(self.folder)


def fetched(request):
    """Status, headers and text of an answer, whatever it is."""
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def ran(command, environment, **more):
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, **more)


def told(command, environment):
    """The JSON that a client's script prints."""
    done = ran(command, environment)
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise Failed(f"{command}: {done.stdout}{done.stderr}") from None


def python(script, *arguments):
    return [os.environ["KEYREEVE_SDK_PYTHON"], str(HERE / script), *arguments]


CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


@contextlib.contextmanager
def world(*arguments, **settings):
    place = World(*arguments, **settings)
    try:
        yield place
    except Failed as failure:
        raise Failed(f"{failure}\nlog: {place.log.read_text()[-3000:]}") from None
    finally:
        place.close()


def wire_cases(client):
    """The table of the wire formats, 3.1, for one SDK: `client(environment, times)` is what it says."""
    with world() as place:
        said = client(place, place.container())
        expect("access key", said.get("key"), "AKID1")
        expect("secret", said.get("secret"), "secret-1")
        expect("session token", said.get("token"), "session-1")
        # With the scheme before it, and from a file that is read at each fetch.
        expect("Bearer", client(place, place.container(key=f"Bearer {KEY}")).get("key"), "AKID1")
        file = place.container() | {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(place.folder / "api.key")}
        del file["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
        expect("token file", client(place, file).get("key"), "AKID1")
        # A file that ends with a line break is refused by the client itself: `config new-key` says how to write it.
        place.write("broken.key", KEY + "\n")
        broken = file | {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(place.folder / "broken.key")}
        that("a line break in the token file", "error" in client(place, broken), broken)
        # 401, 403 and 404 are errors at once or after the client's own tries, and nothing is minted for them.
        for wrong in (place.container(key="kr_wrong"), place.container(key=LESSER_KEY), place.container(name="absent")):
            said = client(place, wrong)
            that("a refusal is an error", "error" in said and said["seconds"] < 10, said)
        expect("mints", place.calls("aws"), 1)
        expect("named fields only", "error" in client(place, place.container(name="bearer")), True)
    with world() as place:
        place.behave("aws", delay=1.4, timespec="microseconds")
        expect("an answer within the budget", client(place, place.container()).get("key"), "AKID1")
    with world() as place:
        # Slower than any client waits: the first answer is an error in time, the client's own next try has the keys.
        place.behave("aws", delay=2.5)
        said = client(place, place.container())
        expect("a mint of 2.5 s", said.get("key"), "AKID1")
        expect("mints", place.calls("aws"), 1)
    with world() as place:
        place.behave("aws", fail=True)
        said = client(place, place.container())
        that("the source is down", "error" in said and said["seconds"] < 15, said)
        that("one call per back-off step", place.calls("aws") <= 4, place.calls("aws"))
        request = urllib.request.Request(f"{place.url}/v1/credentials/aws/aws", headers={"Authorization": KEY})
        started = time.monotonic()
        status, _, text = fetched(request)
        document = json.loads(text)
        that("within 1.8 s", time.monotonic() - started < 2, time.monotonic() - started)
        expect("status", status, 503)
        that("Code and Message", {"Code", "Message"} <= document.keys() and "aws" in document["Message"], document)
    for minutes in (10, 4):
        with world(life='max = "20m", lead = "2m", jitter = "0s"') as place:
            # Less than a quarter of an hour left, and less than five minutes: asked before each use, answered each time.
            place.behave("aws", life=60 * minutes)
            expect(f"{minutes} minutes left", client(place, place.container(), 5).get("key"), "AKID1")
            expect("mints", place.calls("aws"), 1)


LAKE_NODES = 8
LAKE_CLIENTS = 400
LAKE_ROLE = "arn:aws:iam::123456789012:role/lake"
LAKE = """
[credential.identity]
source = "jwt"
key = "file:FOLDER/identity.jwk"
[credential.identity.params]
alg = "ES256"
claims = { iss = "https://issuer.example.org", sub = "lake", aud = "sts.amazonaws.com", iat = "{iat}", exp = "{exp}" }
[credential.lake]
source = "aws-web-identity"
[credential.lake.params]
role_arn = "ROLE"
region = "eu-central-1"
endpoint = "STS"
assertion = "credential:identity"
"""


@case
def four_hundred_cold_boto3_clients_on_eight_nodes():
    """All of them ask at once, and STS, which takes 0.3 s, is asked once."""
    with contextlib.ExitStack() as open_things:
        folder = pathlib.Path(open_things.enter_context(tempfile.TemporaryDirectory(prefix="keyreeve-lake-")))
        pair = json.loads(subprocess.run([BINARY, "keys", "generate", "--alg", "ES256"], check=True, capture_output=True).stdout)
        (folder / "trusted.json").write_text(json.dumps({"keys": [pair["publicJwk"]]}))

        def ended(process):
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=10)[0]
            process.kill()
            return ""

        def started(command, **more):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **more)
            open_things.callback(ended, process)
            return process

        sts = started(
            [BINARY, "picky", "sts", "--json", "--trust", str(folder / "trusted.json"), "--role", LAKE_ROLE]
            + ["--issuer", "https://issuer.example.org", "--fault", '{"delay_ms":300}']
        )
        url = json.loads(sts.stdout.readline())["url"]
        more = LAKE.replace("ROLE", LAKE_ROLE).replace("STS", url)
        place = open_things.enter_context(world(more, kinds=(), secrets={"identity.jwk": json.dumps(pair["privateJwk"])}))
        nodes = [place.url]
        for number in range(1, LAKE_NODES):
            node = started([BINARY, "serve", "--node", f"n{number}", "-c", str(place.folder / "keyreeve.toml")], stderr=place.log.open("a"))
            nodes.append(node.stdout.readline().removeprefix("listening on ").strip())
        each = str(LAKE_CLIENTS // LAKE_NODES)
        clients = [
            started(python("ask_boto3_lake.py", each), stdin=subprocess.PIPE, env=place.environment(**place.container("lake", url=node)))
            for node in nodes
        ]
        for client in clients:
            expect("a client is ready", client.stdout.readline(), "ready\n")
        for client in clients:
            client.stdin.write("go\n")
            client.stdin.flush()
        answers = [json.loads(client.stdout.readline()) for client in clients]
        score = json.loads(ended(sts))
        expect("calls of STS", (score["calls"], score["issued"]), (1, 1))
        keys = {key: sum(answer["said"].get(key, 0) for answer in answers) for answer in answers for key in answer["said"]}
        expect("how many were given one set of keys", list(keys.values()), [LAKE_CLIENTS])
        that("they are keys", next(iter(keys)).startswith("ASIA"), keys)


@case
def boto3_container():
    wire_cases(lambda place, named, times=1: told(python("ask_boto3.py", str(times)), place.environment(**named)))


@case
def aws_sdk_for_javascript_container():
    def client(place, named, times=1):
        return told(["node", str(HERE / "ask_aws.mjs"), str(times), "http"], place.environment(**named))

    wire_cases(client)
    with world() as place:
        # Its error has what ours says, word for word.
        said = client(place, place.container(key="kr_wrong"))
        expect("Code", said.get("Code"), "unauthenticated")
        that("Message", said["Message"].startswith("this needs an API key"), said)
        chain = told(["node", str(HERE / "ask_aws.mjs"), "1"], place.environment(**place.container()))
        expect("by the default chain", chain.get("key"), "AKID1")


@case
def aws_sdk_for_rust_container():
    def client(place, named, times=1):
        return told([os.environ["KEYREEVE_AWS_RUST"], str(times)], place.environment(**named))

    wire_cases(client)


def awscli(place, *arguments, **named):
    command = [os.environ["KEYREEVE_AWSCLI"], *arguments]
    return ran(command, place.environment(AWS_DEFAULT_REGION="eu-central-1", **named))


IDENTITY = (
    '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
    "<Arn>arn:aws:sts::123456789012:assumed-role/lake/s</Arn><UserId>A:s</UserId><Account>123456789012</Account>"
    "</GetCallerIdentityResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>"
)


def signed_as(place, **named):
    """The key with which the AWS CLI signs a request."""
    server = Server(lambda handler: (200, {"content-type": "text/xml"}, IDENTITY))
    done = awscli(place, "sts", "get-caller-identity", "--endpoint-url", server.url, **named)
    if not server.seen:
        raise Failed(f"the AWS CLI sent nothing: {done.stderr}")
    headers = {name.lower(): value for name, value in server.seen[0][2].items()}
    return headers["authorization"].partition("Credential=")[2].partition("/")[0], headers["x-amz-security-token"]


@case
def awscli_container_and_process():
    with world() as place:
        expect("by the container endpoint", signed_as(place, **place.container()), ("AKID1", "session-1"))
        # By a profile with `credential_process`, which runs no shell.
        home = place.folder / ".aws"
        home.mkdir()
        process = f"{BINARY} aws-credential-process aws --url {place.url} --api-key-file {place.folder}/api.key"
        (home / "config").write_text(f"[default]\nregion = eu-central-1\ncredential_process = {process}\n")
        expect("by credential_process", signed_as(place), ("AKID1", "session-1"))
        expect("boto3 by credential_process", told(python("ask_boto3.py"), place.environment())["key"], "AKID1")
        javascript = told(["node", str(HERE / "ask_aws.mjs"), "1"], place.environment())
        expect("JavaScript by credential_process", javascript.get("key"), "AKID1")
        wrong = process.replace("process aws", "process absent")
        (home / "config").write_text(f"[default]\ncredential_process = {wrong}\n")
        done = awscli(place, "sts", "get-caller-identity")
        that("its refusal has our sentence", "there is no credential named `absent`" in done.stderr, done.stderr)
        expect("mints", place.calls("aws"), 1)
    with world() as place:
        place.behave("aws", fail=True)
        done = awscli(place, "sts", "get-caller-identity", **place.container())
        that("the CLI prints our sentence", done.returncode != 0 and "`aws`" in done.stderr, done.stderr)


FILE = """
[file.lake]
credential = "aws"
path = "FOLDER/credentials"
form = "aws"
"""


@case
def aws_credentials_file():
    with world(FILE) as place:
        path = place.folder / "credentials"
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        said = told(python("ask_boto3.py"), place.environment(AWS_SHARED_CREDENTIALS_FILE=str(path)))
        expect("boto3 by a file", (said.get("key"), said.get("token")), ("AKID1", "session-1"))
        expect("mode", oct(path.stat().st_mode & 0o777), "0o600")


IMDS = """
[metadata.batch]
bind = "127.0.0.2:0"
kind = "aws"
credential = "aws"
role = "lake"
"""


@case
def imds_by_boto3_javascript_and_awscli():
    with world(IMDS) as place:
        named = {
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": place.urls[1] + "/",
        }
        said = told(python("ask_boto3.py"), place.environment(**named))
        expect("boto3", (said.get("key"), said.get("method")), ("AKID1", "iam-role"))
        said = told(["node", str(HERE / "ask_aws.mjs"), "1"], place.environment(**named))
        expect("JavaScript", said.get("key"), "AKID1")
        said = told([os.environ["KEYREEVE_AWS_RUST"], "1"], place.environment(**named))
        expect("Rust", said.get("key"), "AKID1")
        expect("the AWS CLI", signed_as(place, **named), ("AKID1", "session-1"))
        expect("mints", place.calls("aws"), 1)


GCE = """
[metadata.google]
bind = "127.0.0.2:0"
kind = "gce"
credential = "bearer"
project = "acme-prod"
email = "batch@acme-prod.iam.gserviceaccount.com"
audiences = { "https://orders.example" = "identity" }
"""


@case
def gce_metadata_by_google_auth():
    with world(GCE, kinds=("bearer", "identity")) as place:
        host = place.urls[1].removeprefix("http://")
        named = {"GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}
        said = told(python("ask_google.py"), place.environment(**named))
        expect("google-auth", (said["kind"], said["project"], said["token"]), ("Credentials", "acme-prod", "bearer-token-1"))
        expect("account", said["email"], "batch@acme-prod.iam.gserviceaccount.com")
        javascript = told(["node", str(HERE / "ask_google.mjs")], place.environment(**named))
        expect("google-auth-library", javascript, {"kind": "Compute", "token": "bearer-token-1", "project": "acme-prod"})
        expect("mints", place.calls("bearer"), 1)


AZURE = """
[metadata.azure]
bind = "127.0.0.2:0"
kind = "azure"
resources = { "https://vault.azure.net" = "bearer" }
"""


@case
def azure_managed_identity():
    with world(AZURE, kinds=("bearer",)) as place:
        machine = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": place.urls[1]}
        app = {"IDENTITY_ENDPOINT": f"{place.urls[1]}/msi/token", "IDENTITY_HEADER": KEY}
        for named in (machine, app):
            said = told(python("ask_azure.py", "https://vault.azure.net/.default"), place.environment(**named))
            expect(f"azure-identity {said}", said.get("token"), "bearer-token-1")
            that("expires", 3000 < said["left"] <= 3600, said)
            said = told(python("ask_azure.py", "https://storage.azure.com/.default"), place.environment(**named))
            that("another resource is refused", "error" in said, said)
        said = told(python("ask_azure.py", "https://vault.azure.net/.default"), place.environment(**app | {"IDENTITY_HEADER": "x"}))
        that("a wrong identity header is refused", "error" in said, said)
        expect("mints", place.calls("bearer"), 1)


class Server:
    """An HTTP server in a thread, that notes the requests it gets and answers by `answer(handler)`."""

    def __init__(self, answer):
        server = self
        self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_all(self):
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                server.seen.append((self.command, self.path, dict(self.headers), body))
                status, headers, text = answer(self)
                self.send_response(status)
                for name, value in {"content-length": str(len(text)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_POST = do_PUT = handle_all

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@case
def kubernetes_exec_plugin():
    empty = json.dumps({"kind": "NamespaceList", "apiVersion": "v1", "metadata": {}, "items": []})

    def answer(handler):
        is_right = handler.headers.get("Authorization") == "Bearer bearer-token-1"
        return (200, {"content-type": "application/json"}, empty) if is_right else (401, {}, "")

    server = Server(answer)
    with world(kinds=("bearer",)) as place:
        plugin = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": BINARY,
            "args": ["credential", "get", "bearer", "-o", "k8s-exec"],
            "env": [
                {"name": "KEYREEVE_URL", "value": place.url},
                {"name": "KEYREEVE_API_KEY", "value": KEY},
            ],
            "interactiveMode": "Never",
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": server.url}}],
            "users": [{"name": "me", "user": {"exec": plugin}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        }
        path = place.write("kubeconfig", json.dumps(document))
        done = ran([os.environ["KEYREEVE_KUBERNETES_PYTHON"], str(HERE / "ask_kubernetes.py"), str(path)], place.environment())
        expect(f"the Kubernetes client {done.stderr}", done.stdout.strip(), "0")


@case
def git_credential_helper():
    def answer(handler):
        right = base64.b64encode(b"x-access-token:bearer-token-1").decode()
        if handler.headers.get("Authorization") != f"Basic {right}":
            return 401, {"www-authenticate": 'Basic realm="git"'}, ""
        return 200, {"content-type": "application/x-git-upload-pack-advertisement"}, ADVERTISEMENT

    server = Server(answer)
    with world(kinds=("bearer",), life='max = "1h", min_interval = "1s"') as place:
        helper = f"!{BINARY} git-credential bearer --url {place.url} --api-key-file {place.folder}/api.key"
        git = ["git", "-c", "credential.helper=", "-c", f"credential.helper={helper}", "ls-remote", f"{server.url}/a.git"]
        environment = place.environment(GIT_TERMINAL_PROMPT="0", GIT_CONFIG_NOSYSTEM="1")
        done = ran(git, environment)
        that("git", done.returncode == 0 and "refs/heads/main" in done.stdout, done.stdout + done.stderr)
        # A server that refuses the token: git tells the helper to forget it, and the fleet renews once.
        refusing = Server(lambda handler: (401, {"www-authenticate": 'Basic realm="git"'}, ""))
        done = ran([*git[:-1], f"{refusing.url}/a.git"], environment)
        that("git gives up", done.returncode != 0, done.stdout)
        deadline = time.monotonic() + 20
        while place.calls("bearer") < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        expect("mints after a refusal", place.calls("bearer"), 2)
        # Never in clear to another machine, never to another host.
        for asked in ("protocol=http\nhost=git.example\n\n", "protocol=https\nhost=other.example\n\n"):
            command = [BINARY, "git-credential", "bearer", "--host", "git.example", "--url", place.url, "get"]
            done = ran(command, place.environment(KEYREEVE_API_KEY=KEY), input=asked)
            expect("nothing for them", (done.stdout, done.returncode), ("", 0))


def packet(text):
    return f"{len(text) + 4:04x}{text}"


ADVERTISEMENT = (
    packet("# service=git-upload-pack\n")
    + "0000"
    + packet("1" * 40 + " HEAD\0symref=HEAD:refs/heads/main agent=judge\n")
    + packet("1" * 40 + " refs/heads/main\n")
    + "0000"
)


def judged(name):
    started = time.monotonic()
    try:
        CASES[name]()
    except Failed as failure:
        return f"error: {name}: {failure}"
    except Exception as error:
        return f"error: {name}: {type(error).__name__}: {error}"
    print(f"{name}: as it should be, {time.monotonic() - started:.1f} s", flush=True)
    return None


def main():
    wanted = sys.argv[2:] or list(CASES)
    # Most of the time they wait for what clients take to give up.
    with concurrent.futures.ThreadPoolExecutor(3) as several:
        failures = [failure for failure in several.map(judged, wanted) if failure]
    return "\n".join(failures) or 0


if __name__ == "__main__":
    sys.exit(main())

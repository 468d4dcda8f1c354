"""Unmodified clients take credentials from a running node. Each case says what was seen, and fails with what was seen instead.

usage: judge.py BINARY CASES...     with KEYREEVE_SDK_PYTHON and the like in the environment, as scripts/setup leaves it
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
BINARY = sys.argv[1]
KEY = "kr_judge_of_the_hand_out"
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

    def __init__(self, more="", kinds=("aws", "bearer"), life='max = "1h"'):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="keyreeve-hand-out-"))
        os.chmod(self.folder, 0o700)
        seal = subprocess.run([BINARY, "config", "new-seal-key"], check=True, capture_output=True, text=True).stdout
        self.write("seal.key", seal)
        self.write("api.key", KEY)
        parts = [
            f'store.url = "sqlite:{self.folder}/state.db"',
            f'seal.keys = ["file:{self.folder}/seal.key"]',
            '[[listener]]\nbind = "127.0.0.1:0"',
            f'[caller.judge]\nkey_sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"',
            'can = ["list", "token", "report", "renew", "history"]\ncredentials = ["*"]',
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
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "NODE_PATH") if name in os.environ}
        return {**kept, "HOME": str(self.folder), "AWS_EC2_METADATA_DISABLED": "true", **more}

    def container(self, name="aws", key=KEY):
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}/v1/credentials/{name}/aws",
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
        # 401 and 404 are errors at once or after the client's own tries, and nothing is minted for them.
        for wrong in (place.container(key="kr_wrong"), place.container(name="absent")):
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
    with world(life='max = "20m", lead = "2m", jitter = "0s"') as place:
        # Less than a quarter of an hour left: asked before each use, answered each time.
        place.behave("aws", life=600)
        expect("ten minutes left", client(place, place.container(), 5).get("key"), "AKID1")


@case
def boto3_container():
    wire_cases(lambda place, named, times=1: told(python("boto.py", str(times)), place.environment(**named)))


def main():
    wanted = sys.argv[2:] or list(CASES)
    for name in wanted:
        started = time.monotonic()
        try:
            CASES[name]()
        except Failed as failure:
            sys.exit(f"error: {name}: {failure}")
        print(f"{name}: as it should be, {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())

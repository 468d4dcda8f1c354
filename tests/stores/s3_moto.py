#!/usr/bin/env python3
"""A bucket of S3 for one test as moto has it: written by others than s3.py, so that the two are judges of each other.

s3_moto.py [--bucket NAME]..

Says what s3.py says, and knows its orders `status N`, `go` and `score`. The key is that of a user who may do everything with
S3; each request's signature is checked, except for signed URLs, which moto does not know. Runs with the Python that has moto:
scripts/setup names it KEYREEVE_MOTO_PYTHON. Ends when standard input ends.
"""

import argparse
import glob
import json
import logging
import os
import sys
import threading

if not os.environ.get("KEYREEVE_MOTO_AGAIN"):
    # The one version that is pinned; a test runner may have been started without the environment of scripts/setup.
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "keyreeve")
    found = glob.glob(os.path.join(cache, "venv-moto-*", "bin", "python"))
    python = os.environ.get("KEYREEVE_MOTO_PYTHON") or (found[-1] if found else None)
    if python is None:
        sys.exit("moto is missing: scripts/setup installs it")
    os.execve(python, [python, *sys.argv], {**os.environ, "KEYREEVE_MOTO_AGAIN": "1"})

import boto3
import moto.moto_server.werkzeug_app as server
from moto import settings
from werkzeug.serving import make_server

REGION = "eu-central-1"
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


class Door:
    """The way in: counts, and says no when told to."""

    def __init__(self, app):
        self.app, self.status, self.score = app, None, {}

    def __call__(self, environ, start):
        method = environ["REQUEST_METHOD"]
        self.score[method] = self.score.get(method, 0) + 1
        if self.status is None:
            return self.app(environ, start)
        text = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>told to</Message></Error>'
        start(f"{self.status} Told", [("content-type", "application/xml"), ("content-length", str(len(text)))])
        return [] if method == "HEAD" else [text]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bucket", action="append", default=[])
    buckets = parser.parse_args().bucket or ["artifacts"]
    logging.disable()
    door = Door(server.DomainDispatcherApplication(server.create_backend_app))
    http = make_server("127.0.0.1", 0, door, threaded=True, request_handler=server.MotoRequestHandler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{http.server_port}"
    opened = {"endpoint_url": endpoint, "region_name": REGION, "aws_access_key_id": "nobody", "aws_secret_access_key": "yet"}
    for bucket in buckets:
        boto3.client("s3", **opened).create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    iam = boto3.client("iam", **opened)
    iam.create_user(UserName="keyreeve")
    iam.put_user_policy(UserName="keyreeve", PolicyName="everything", PolicyDocument=json.dumps(EVERYTHING))
    key = iam.create_access_key(UserName="keyreeve")["AccessKey"]
    # From now on everybody has to show who they are.
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    door.score = {}
    said = {"endpoint": endpoint, "region": REGION, "access_key_id": key["AccessKeyId"],
            "secret_access_key": key["SecretAccessKey"], "buckets": buckets}
    print(json.dumps(said), flush=True)
    for line in sys.stdin:
        word, _, rest = line.rstrip("\n").partition(" ")
        told = "ok"
        if word == "status":
            door.status = int(rest)
        elif word == "go":
            door.status = None
        elif word == "score":
            told, door.score = json.dumps(door.score), {}
        else:
            sys.exit(f"no such word: {word}")
        print(told, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()

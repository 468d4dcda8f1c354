"""What boto3 makes of the credentials that its environment points to: one JSON object."""

import json
import sys
import time

import boto3
import botocore.awsrequest
import botocore.auth

started = time.monotonic()
said = {}
try:
    session = boto3.Session(region_name="eu-central-1")
    credentials = session.get_credentials()
    if credentials is None:
        raise RuntimeError("no credentials were found")
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
        # What a signature takes.
        frozen = credentials.get_frozen_credentials()
    said = {"key": frozen.access_key, "secret": frozen.secret_key, "token": frozen.token, "method": credentials.method}
except Exception as error:
    said = {"error": f"{type(error).__name__}: {error}"}
said["seconds"] = time.monotonic() - started
print(json.dumps(said))

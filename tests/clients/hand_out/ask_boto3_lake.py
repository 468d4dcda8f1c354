"""So many cold boto3 sessions in one process, each with a provider of its own, that ask at once when told: what each was given.

usage: ask_boto3_lake.py COUNT     prints `ready`, waits for a line, prints one JSON object
"""

import collections
import json
import sys
import threading
import time

import boto3

count = int(sys.argv[1])
sessions = [boto3.Session(region_name="eu-central-1") for _ in range(count)]
start = threading.Barrier(count + 1)
said = collections.Counter()
slowest = 0.0
lock = threading.Lock()


def ask(session):
    global slowest
    start.wait()
    begun = time.monotonic()
    try:
        text = session.get_credentials().get_frozen_credentials().access_key
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    with lock:
        said[text] += 1
        slowest = max(slowest, time.monotonic() - begun)


threads = [threading.Thread(target=ask, args=(session,)) for session in sessions]
for thread in threads:
    thread.start()
print("ready", flush=True)
sys.stdin.readline()
start.wait()
for thread in threads:
    thread.join()
print(json.dumps({"said": said, "slowest": slowest}))

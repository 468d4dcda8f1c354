#!/usr/bin/env python3
"""What GraphQL Hive stores of its tokens, computed by Python's bcrypt and hmac: nothing of ours.

Says {} on a line of standard output, and then answers what it is asked, a word a line on standard input:

    hash TEXT           its bcrypt hash as Hive makes it: `$2a$`, cost 10
    is TEXT HASH        `yes` where the hash is one of the text, else `no`
    legacy SECRET TARGET   the legacy token of a target; the secret has no space in it
    key ID PRIVATE      the text of an `hv2` token

Runs with the Python that has bcrypt: scripts/setup names it KEYREEVE_PYTHON. Ends when standard input ends.
"""

import base64
import glob
import hashlib
import hmac
import os
import sys

try:
    import bcrypt
except ImportError:
    # A test runner that was started without the environment of scripts/setup.
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "keyreeve")
    found = glob.glob(os.path.join(cache, "venv-*", "lib", "python3*", "site-packages", "bcrypt"))
    found = [os.path.join(path.partition("/lib/")[0], "bin", "python") for path in found]
    python = os.environ.get("KEYREEVE_PYTHON") or (found[-1] if found else None)
    if python is None or os.environ.get("KEYREEVE_HASHES_AGAIN"):
        if not found or os.environ.get("KEYREEVE_HASHES_AGAIN") == "2":
            sys.exit("bcrypt is missing: scripts/setup installs it")
        python = found[-1]
    again = "2" if os.environ.get("KEYREEVE_HASHES_AGAIN") else "1"
    os.execve(python, [python, *sys.argv], {**os.environ, "KEYREEVE_HASHES_AGAIN": again})

COST = 10


def answer(word, *rest):
    if word == "hash":
        (text,) = rest
        return bcrypt.hashpw(text.encode(), bcrypt.gensalt(COST, b"2a")).decode()
    if word == "is":
        text, hashed = rest
        return "yes" if bcrypt.checkpw(text.encode(), hashed.encode()) else "no"
    if word == "legacy":
        secret, target = rest
        return base64.b64encode(hmac.new(secret.encode(), target.encode(), hashlib.sha256).digest()).decode()
    if word == "key":
        return "hv2" + base64.b64encode(":".join(rest).encode()).decode()
    sys.exit(f"no such word: {word}")


def main():
    print("{}", flush=True)
    for line in sys.stdin:
        print(answer(*line.split()), flush=True)


if __name__ == "__main__":
    main()

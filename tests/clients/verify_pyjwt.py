"""Asks a running keyreeve for its token and lets PyJWT judge it.

usage: verify_pyjwt.py DEV_JSON      (as `keyreeve dev --data DIR` writes it to DIR/dev.json)
or     KEYREEVE_URL, KEYREEVE_API_KEY, KEYREEVE_CREDENTIAL, KEYREEVE_PUBLIC_KEY (a PEM file),
       KEYREEVE_TEAM_ID and KEYREEVE_KEY_ID in the environment.
A judge that accepts everything proves nothing: the same checks must fail for tokens that were spoilt.
"""

import hashlib
import json
import os
import sys
import time
import urllib.parse
import urllib.request

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

# Apple takes a provider token for one hour from its "iat".
LIFE_SECONDS_MAX = 3600
# The clock of this machine is the clock of the server; a second may tick over in between.
FUTURE_SECONDS_MAX = 1


def settings():
    if len(sys.argv) > 1:
        with open(sys.argv[1], encoding="utf-8") as file:
            return json.load(file)
    names = {"public_key_pem_path": "KEYREEVE_PUBLIC_KEY"}
    keys = ("url", "api_key", "credential", "public_key_pem_path", "team_id", "key_id")
    return {key: os.environ[names.get(key, "KEYREEVE_" + key.upper())] for key in keys}


def fetch(dev):
    name = urllib.parse.quote(dev["credential"], safe="/")
    request = urllib.request.Request(
        f"{dev['url'].rstrip('/')}/v1/credentials/{name}/token",
        headers={"authorization": f"Bearer {dev['api_key']}"},
    )
    # Straight to loopback, whatever proxy the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return json.load(answer)


def verify(token, key, dev):
    """Raises unless `token` is what Apple would accept from this team with this key."""
    header = jwt.get_unverified_header(token)
    if header.get("kid") != dev["key_id"]:
        raise jwt.InvalidTokenError(f"kid is {header.get('kid')!r}, not {dev['key_id']!r}")
    claims = jwt.decode(
        token,
        key,
        algorithms=["ES256"],
        issuer=dev["team_id"],
        options={"require": ["iss", "iat"], "verify_aud": False},
        leeway=FUTURE_SECONDS_MAX,
    )
    age = time.time() - claims["iat"]
    if not -FUTURE_SECONDS_MAX <= age < LIFE_SECONDS_MAX:
        raise jwt.InvalidTokenError(f"iat is {age:.0f} s ago")
    return header, claims


def refuses(what, token, key, dev):
    try:
        verify(token, key, dev)
    except jwt.PyJWTError:
        return
    sys.exit(f"error: PyJWT accepts a token with {what}")


def main():
    dev = settings()
    with open(dev["public_key_pem_path"], "rb") as file:
        pem = file.read()
    key = serialization.load_pem_public_key(pem)
    answer = fetch(dev)
    token = answer["token"]
    header, claims = verify(token, key, dev)
    if answer["name"] != dev["credential"] or answer["header"]["authorization"].split(" ", 1)[1] != token:
        sys.exit("error: name or authorization header of the answer do not fit the credential and its token")

    head, body, signature = token.split(".")
    other_body = ("A" if body[10] != "A" else "B").join((body[:10], body[11:]))
    other_signature = ("A" if signature[10] != "A" else "B").join((signature[:10], signature[11:]))
    stranger = ec.generate_private_key(ec.SECP256R1())
    refuses("one byte of its claims changed", f"{head}.{other_body}.{signature}", key, dev)
    refuses("one byte of its signature changed", f"{head}.{body}.{other_signature}", key, dev)
    refuses("another key", jwt.encode(claims, stranger, "ES256", headers={"kid": dev["key_id"]}), key, dev)
    refuses("no signature", jwt.encode(claims, None, "none", headers={"kid": dev["key_id"]}), key, dev)
    refuses("another issuer", token, key, {**dev, "team_id": "ANOTHERTEAM"})
    refuses("another key id", token, key, {**dev, "key_id": "ANOTHERKID"})

    print("token sha256", hashlib.sha256(token.encode()).hexdigest())
    print(f"PyJWT {jwt.__version__}: alg {header['alg']}, kid {header['kid']}, iss {claims['iss']}, iat {claims['iat']}: valid")


main()

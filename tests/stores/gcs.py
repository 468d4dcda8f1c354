#!/usr/bin/env python3
"""A bucket store for one test that speaks Google Cloud Storage's XML API, in memory: as much of it as clients of objects use.

gcs.py [--bucket NAME].. [--port PORT]

As s3.py, with the same orders on standard input; it says {"endpoint": .., "buckets": [..], "key": ..}, where `key` is a service
account in JSON, made for this run. Whoever asks shows a JWT that this account has signed (AIP-4111), or a URL that it has
signed (V4, GOOG4-RSA-SHA256): for the host that the request names, which a client that signs for Google's has to name too.
"""

import base64
import json
import time
import urllib.parse
from xml.sax.saxutils import escape

import s3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

EMAIL = "keyreeve@test.iam.gserviceaccount.com"
KEY_ID = "0123456789abcdef0123456789abcdef01234567"
SCOPES = ("https://www.googleapis.com/auth/cloud-platform", "https://www.googleapis.com/auth/devstorage.read_write")
LIFE_S_MAX = 3600
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def account():
    pem = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return json.dumps({
        "type": "service_account", "project_id": "test", "private_key_id": KEY_ID, "private_key": pem.decode(),
        "client_email": EMAIL, "client_id": "1", "token_uri": "https://oauth2.googleapis.com/token",
    })


def is_signed(signature, message):
    try:
        KEY.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        return True
    except InvalidSignature:
        return False


def unpacked(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def check_token(token):
    refusal = s3.Refusal(401, "AuthenticationRequired", "Authentication required.")
    parts = token.split(".")
    if len(parts) != 3:
        raise refusal
    try:
        head, claims, signature = json.loads(unpacked(parts[0])), json.loads(unpacked(parts[1])), unpacked(parts[2])
    except ValueError:
        raise refusal from None
    now = time.time()
    is_good = (
        head.get("alg") == "RS256" and head.get("kid") == KEY_ID
        and claims.get("iss") == claims.get("sub") == EMAIL
        and set(claims.get("scope", "").split()) & set(SCOPES)
        and claims["iat"] <= now + 60 and now < claims["exp"] <= claims["iat"] + LIFE_S_MAX
    )
    if not is_good or not is_signed(signature, ".".join(parts[:2]).encode()):
        raise refusal


def quoted(text):
    return urllib.parse.quote(text, safe="-_.~")


def check_url(method, path, pairs, headers):
    """A V4 signed URL: https://cloud.google.com/storage/docs/authentication/canonical-requests"""
    given = dict(pairs)
    moment, signed = given.get("X-Goog-Date", ""), given.get("X-Goog-SignedHeaders", "")
    scope = f"{moment[:8]}/auto/storage/goog4_request"
    if given.get("X-Goog-Algorithm") != "GOOG4-RSA-SHA256" or given.get("X-Goog-Credential") != f"{EMAIL}/{scope}":
        raise s3.Refusal(400, "InvalidArgument", "the credential, or its scope")
    if "host" not in signed.split(";"):
        raise s3.Refusal(400, "InvalidArgument", "`host` is not signed")
    s3.check_age(moment, int(given.get("X-Goog-Expires", "0")))
    query = "&".join(sorted(f"{quoted(name)}={quoted(value)}" for name, value in pairs if name != "X-Goog-Signature"))
    told = "".join(f"{name}:{headers.get(name, '')}\n" for name in signed.split(";"))
    digest = hashes.Hash(hashes.SHA256())
    digest.update(f"{method}\n{path}\n{query}\n{told}\n{signed}\nUNSIGNED-PAYLOAD".encode())
    text = f"GOOG4-RSA-SHA256\n{moment}\n{scope}\n{digest.finalize().hex()}"
    try:
        signature = bytes.fromhex(given["X-Goog-Signature"])
    except ValueError:
        signature = b""
    if not is_signed(signature, text.encode()):
        raise s3.Refusal(403, "SignatureDoesNotMatch", "The request signature we calculated does not match")


class State(s3.State):
    own = "x-goog-meta-"
    last = 0

    def mark(self, kept):
        # A number of its own for each write, as Google's are.
        self.last = max(self.last + 1, time.time_ns() // 1000)
        kept["x-goog-generation"], kept["x-goog-metageneration"] = str(self.last), "1"


class Handler(s3.Handler):
    def check(self, path, query, headers, body):
        pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
        if any(name == "X-Goog-Signature" for name, _ in pairs):
            return check_url(self.command, path, pairs, headers)
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            raise s3.Refusal(403, "AccessDenied", "Anonymous caller does not have storage.objects.get access")
        check_token(token)

    def told(self, refusal):
        bucket, _, key = self.path.partition("?")[0].lstrip("/").partition("/")
        key = escape(urllib.parse.unquote(key))
        details = {"NoSuchKey": f"<Details>No such object: {bucket}/{key}</Details>"}.get(refusal.code, "")
        return f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{refusal.code}</Code><Message>{escape(refusal.message)}</Message>{details}</Error>"

    def check_condition(self, there, headers):
        wanted = headers.get("x-goog-if-generation-match")
        found = "0" if there is None else there[1]["x-goog-generation"]
        if wanted is not None and wanted != found:
            raise s3.Refusal(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")


if __name__ == "__main__":
    s3.main(Handler, State, {"key": account()})

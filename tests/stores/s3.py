#!/usr/bin/env python3
"""A bucket store for one test, in memory: as much of S3 as clients of objects use, and every signature checked by botocore.

s3.py [--bucket NAME].. [--port PORT]

Says {"endpoint": .., "region": .., "access_key_id": .., "secret_access_key": .., "buckets": [..]} on a line of standard output,
and then does what it is told, a word a line on standard input, and says `ok` after each:

    hang              requests are read and never answered
    status N          requests are answered with this status and an error in XML, as by a bucket that says no
    page N            requests are answered with this status and a page in HTML, as by a proxy in front of a bucket
    refuse            connections are closed without a word
    cut N             answers break off after N bytes of their body
    slow MS           answers come after this many milliseconds
    loose             conditions (If-Match, If-None-Match) are not heeded, as by some that speak S3
    go                ends all of these
    put BUCKET KEY TEXT / delete BUCKET KEY
                      what somebody else does to the bucket, meanwhile
    get BUCKET KEY    its text on a line, or `none`, instead of `ok`
    score             {"GET": n, "HEAD": n, ..} of requests since the last time instead of `ok`, refused ones among them

Runs with the Python that has botocore: scripts/setup names it KEYREEVE_SDK_PYTHON. Ends when standard input ends.
"""

import argparse
import datetime
import email.utils
import glob
import hashlib
import hmac
import http.server
import json
import os
import sys
import threading
import urllib.parse
import xml.etree.ElementTree as tree
from xml.sax.saxutils import escape

try:
    from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
except ImportError:
    # A test runner that was started without the environment of scripts/setup.
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "keyreeve")
    found = [path for path in glob.glob(os.path.join(cache, "venv-sdk-*", "bin", "python")) if path != sys.executable]
    python = os.environ.get("KEYREEVE_SDK_PYTHON") or (found[-1] if found else None)
    if python is None or os.environ.get("KEYREEVE_S3_AGAIN"):
        sys.exit("botocore is missing: scripts/setup installs it")
    os.execve(python, [python, *sys.argv], {**os.environ, "KEYREEVE_S3_AGAIN": "1"})

REGION = "eu-central-1"
KEY_ID = "AKIAKEYREEVETESTKEY"
SECRET = "test/secret+of=nobody0123456789abcdefghi"
BODY_BYTES_MAX = 64 << 20
CLOCK_SKEW_S = 900
#: What one page of a list holds at the most.
PAGE_MAX = 1000


class Refusal(Exception):
    """An answer in S3's way of saying no."""

    def __init__(self, status, code, message=""):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message or code


class State:
    """The objects, and what is wrong with the store at the moment."""

    #: What the names of headers with a person's own metadata begin with.
    own = "x-amz-meta-"

    def __init__(self, buckets):
        self.lock = threading.Lock()
        self.buckets = {name: {} for name in buckets}
        self.score = {}
        self.clear()

    def clear(self):
        self.status = self.page = self.cut = None
        self.refuse = self.loose = False
        self.slow_s = 0.0
        self.hanging = None

    def put(self, bucket, key, body, headers):
        kept = {name: value for name, value in headers.items() if name.startswith(self.own)}
        for name in ("content-type", "cache-control", "content-encoding", "content-disposition"):
            if name in headers:
                kept[name] = headers[name]
        kept["etag"] = '"' + hashlib.md5(body).hexdigest() + '"'
        kept["last-modified"] = email.utils.formatdate(usegmt=True)
        self.mark(kept)
        self.buckets[bucket][key] = (body, kept)
        return kept

    def mark(self, kept):
        """Adds what this kind of store says of an object that was written, besides."""


def check_signature(method, path, query, headers, body):
    """Whether the request was signed with the one key there is: as botocore would have signed it."""
    pairs = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    if "X-Amz-Signature" in pairs:
        scope, signed, given = pairs.get("X-Amz-Credential", ""), pairs.get("X-Amz-SignedHeaders", ""), pairs["X-Amz-Signature"]
        moment = pairs.get("X-Amz-Date", "")
        query = "&".join(part for part in query.split("&") if not part.startswith("X-Amz-Signature="))
        life_s = int(pairs.get("X-Amz-Expires", "0"))
    else:
        kind, _, rest = headers.get("authorization", "").partition(" ")
        if kind != "AWS4-HMAC-SHA256":
            raise Refusal(403, "AccessDenied", "Anonymous access is forbidden")
        parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        scope, signed, given = parts.get("Credential", ""), parts.get("SignedHeaders", ""), parts.get("Signature", "")
        moment, life_s = headers.get("x-amz-date", ""), None
    key_id, _, rest = scope.partition("/")
    if key_id != KEY_ID:
        raise Refusal(403, "InvalidAccessKeyId")
    check_age(moment, life_s)
    if rest != f"{moment[:8]}/{REGION}/s3/aws4_request":
        raise Refusal(400, "AuthorizationHeaderMalformed", f"the region is {REGION}")
    named = signed.split(";")
    if "host" not in named or life_s is None and "x-amz-content-sha256" not in named:
        raise Refusal(403, "SignatureDoesNotMatch", "too few headers are signed")
    request = AWSRequest(method, f"http://{headers['host']}{path}" + (f"?{query}" if query else ""))
    for name in named:
        request.headers[name] = headers.get(name, "")
    request.context["timestamp"] = moment
    auth = (S3SigV4Auth if life_s is None else S3SigV4QueryAuth)(Credentials(KEY_ID, SECRET), "s3", REGION)
    if life_s is not None:
        auth.payload = lambda _: "UNSIGNED-PAYLOAD"
    wanted = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    if not hmac.compare_digest(wanted, given):
        raise Refusal(403, "SignatureDoesNotMatch")
    said = headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    if said != "UNSIGNED-PAYLOAD" and said != hashlib.sha256(body).hexdigest():
        raise Refusal(400, "XAmzContentSHA256Mismatch")


def check_age(moment, life_s):
    try:
        made = datetime.datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        raise Refusal(403, "AccessDenied", "there is no date") from None
    age_s = (datetime.datetime.now(datetime.timezone.utc) - made).total_seconds()
    if not -CLOCK_SKEW_S <= age_s <= (CLOCK_SKEW_S if life_s is None else life_s):
        raise Refusal(403, "RequestTimeTooSkewed" if life_s is None else "AccessDenied", "Request has expired")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state = None

    def log_message(self, *_):
        pass

    def do_any(self):
        state = self.state
        headers = {name.lower(): value.strip() for name, value in self.headers.items()}
        length = int(headers.get("content-length", "0"))
        body = self.rfile.read(length) if length <= BODY_BYTES_MAX else b""
        with state.lock:
            state.score[self.command] = state.score.get(self.command, 0) + 1
            hanging, refuse, status, page, slow_s = state.hanging, state.refuse, state.status, state.page, state.slow_s
        if hanging:
            hanging.wait()
            refuse = True
        if refuse:
            self.close_connection = True
            return
        if slow_s:
            threading.Event().wait(slow_s)
        if page:
            return self.answer(page, {"content-type": "text/html"}, b"<html><h1>Not here</h1><!-- NoSuchKey --></html>")
        try:
            if length > BODY_BYTES_MAX:
                raise Refusal(400, "EntityTooLarge")
            if status:
                raise Refusal(status, "AccessDenied" if status == 403 else "SlowDown", "told to")
            path, _, query = self.path.partition("?")
            self.check(path, query, headers, body)
            if state.loose:
                headers = {name: value for name, value in headers.items() if name not in ("if-match", "if-none-match")}
            self.route(path, query, headers, body)
        except Refusal as refusal:
            self.answer(refusal.status, {"content-type": "application/xml"}, self.told(refusal).encode())

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = do_any

    def check(self, path, query, headers, body):
        """Refuses whoever may not ask."""
        check_signature(self.command, path, query, headers, body)

    def told(self, refusal):
        """The body of a refusal, as the service writes it."""
        bucket, _, key = self.path.partition("?")[0].lstrip("/").partition("/")
        about = {"NoSuchKey": f"<Key>{escape(urllib.parse.unquote(key))}</Key>", "NoSuchBucket": f"<BucketName>{escape(bucket)}</BucketName>"}
        return (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{refusal.code}</Code><Message>{escape(refusal.message)}</Message>'
            f"{about.get(refusal.code, '')}<RequestId>TEST</RequestId><HostId>test</HostId></Error>"
        )

    def route(self, path, query, headers, body):
        bucket, _, key = path.lstrip("/").partition("/")
        bucket, key = urllib.parse.unquote(bucket), urllib.parse.unquote(key)
        pairs = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        objects = self.state.buckets.get(bucket)
        if objects is None:
            raise Refusal(404, "NoSuchBucket", "The specified bucket does not exist")
        if not key:
            if self.command == "GET" and pairs.get("list-type") == "2":
                return self.list(bucket, objects, pairs)
            if self.command == "POST" and "delete" in pairs:
                return self.delete_several(objects, body)
            if self.command == "HEAD":
                return self.answer(200, {}, b"")
        elif self.command in ("GET", "HEAD"):
            return self.read(objects, key, headers)
        elif self.command == "PUT" and not pairs.keys() - {"x-id"} and "x-amz-copy-source" not in headers:
            return self.write(bucket, objects, key, headers, body)
        elif self.command == "DELETE":
            with self.state.lock:
                objects.pop(key, None)
            return self.answer(204, {}, b"")
        raise Refusal(501, "NotImplemented")

    def read(self, objects, key, headers):
        with self.state.lock:
            found = objects.get(key)
        if found is None:
            raise Refusal(404, "NoSuchKey", "The specified key does not exist.")
        body, kept = found
        etags = [etag.strip() for etag in headers.get("if-match", "").split(",") if etag.strip()]
        if etags and "*" not in etags and kept["etag"] not in etags:
            raise Refusal(412, "PreconditionFailed")
        etags = [etag.strip() for etag in headers.get("if-none-match", "").split(",")]
        if "*" in etags or kept["etag"] in etags:
            return self.answer(304, {"etag": kept["etag"]}, b"")
        told = {**kept, "accept-ranges": "bytes"}
        if "range" not in headers:
            return self.answer(200, told, body)
        unit, _, span = headers["range"].partition("=")
        first, _, last = span.partition("-")
        if unit != "bytes" or "," in span or not (first + last).isdigit():
            return self.answer(200, told, body)
        begin, end = (int(first), min(int(last or len(body)), len(body) - 1)) if first else (max(len(body) - int(last), 0), len(body) - 1)
        if begin > end:
            raise Refusal(416, "InvalidRange")
        self.answer(206, {**told, "content-range": f"bytes {begin}-{end}/{len(body)}"}, body[begin : end + 1])

    def write(self, bucket, objects, key, headers, body):
        with self.state.lock:
            self.check_condition(objects.get(key), headers)
            kept = self.state.put(bucket, key, body, headers)
        self.answer(200, {name: value for name, value in kept.items() if name not in ("content-type", "last-modified")}, b"")

    def check_condition(self, there, headers):
        """Refuses a write whose condition does not hold."""
        if headers.get("if-none-match") == "*" and there is not None:
            raise Refusal(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
        wanted = headers.get("if-match")
        if wanted is not None and (there is None or there[1]["etag"] != wanted):
            raise Refusal(404 if there is None else 412, "NoSuchKey" if there is None else "PreconditionFailed")

    def list(self, bucket, objects, pairs):
        prefix, delimiter = pairs.get("prefix", ""), pairs.get("delimiter", "")
        after = max(pairs.get("start-after", ""), pairs.get("continuation-token", ""))
        most = min(int(pairs.get("max-keys", PAGE_MAX)), PAGE_MAX)
        with self.state.lock:
            keys = sorted(objects)
            sizes = {key: (len(body), kept) for key, (body, kept) in objects.items()}
        contents, folders, last, is_more = [], [], "", False
        for key in keys:
            if not key.startswith(prefix) or key <= after:
                continue
            rest = key[len(prefix) :]
            folder = prefix + rest.partition(delimiter)[0] + delimiter if delimiter and delimiter in rest else None
            if folder is not None and (folder in folders or folder <= after and after.startswith(folder)):
                continue
            if len(contents) + len(folders) >= most:
                is_more = True
                break
            last = key
            (folders if folder else contents).append(folder or key)
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{stamp}</LastModified><ETag>{escape(sizes[key][1]['etag'])}</ETag>"
            f"<Size>{sizes[key][0]}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key in contents
        )
        entries += "".join(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in folders)
        more = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if is_more else ""
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(contents) + len(folders)}</KeyCount>"
            f"<MaxKeys>{most}</MaxKeys><IsTruncated>{str(is_more).lower()}</IsTruncated>{more}{entries}</ListBucketResult>"
        )
        self.answer(200, {"content-type": "application/xml"}, text.encode())

    def delete_several(self, objects, body):
        keys = [element.text for element in tree.fromstring(body).iter() if element.tag.endswith("Key")]
        with self.state.lock:
            for key in keys:
                objects.pop(key, None)
        done = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{done}</DeleteResult>'
        self.answer(200, {"content-type": "application/xml"}, text.encode())

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD" or status in (204, 304):
            return
        cut = self.state.cut
        if cut is not None and cut < len(body):
            body = body[:cut]
            self.close_connection = True
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        """A client that hung up."""


def obey(state):
    for line in sys.stdin:
        word, _, rest = line.rstrip("\n").partition(" ")
        said = "ok"
        with state.lock:
            if word == "hang":
                state.hanging = state.hanging or threading.Event()
            elif word == "status":
                state.status = int(rest)
            elif word == "page":
                state.page = int(rest)
            elif word == "refuse":
                state.refuse = True
            elif word == "loose":
                state.loose = True
            elif word == "cut":
                state.cut = int(rest)
            elif word == "slow":
                state.slow_s = int(rest) / 1000
            elif word == "go":
                if state.hanging:
                    state.hanging.set()
                state.clear()
            elif word == "put":
                bucket, key, text = rest.split(" ", 2)
                state.put(bucket, key, text.encode(), {})
            elif word == "delete":
                bucket, key = rest.split(" ", 1)
                state.buckets[bucket].pop(key, None)
            elif word == "get":
                bucket, key = rest.split(" ", 1)
                found = state.buckets[bucket].get(key)
                said = "none" if found is None else found[0].decode()
            elif word == "score":
                said, state.score = json.dumps(state.score), {}
            else:
                sys.exit(f"no such word: {word}")
        print(said, flush=True)


def main(handler, state, about):
    """Serves, says where and what opens it, and obeys until nobody writes any more."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bucket", action="append", default=[])
    parser.add_argument("--port", type=int, default=0)
    asked = parser.parse_args()
    buckets = asked.bucket or ["artifacts"]
    handler.state = state(buckets)
    server = Server(("127.0.0.1", asked.port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"endpoint": f"http://127.0.0.1:{server.server_address[1]}", "buckets": buckets, **about}), flush=True)
    obey(handler.state)
    # Requests that hang have threads that nobody waits for.
    os._exit(0)


if __name__ == "__main__":
    main(Handler, State, {"region": REGION, "access_key_id": KEY_ID, "secret_access_key": SECRET})

"""PyJWT as a signer for keyreeve, and as a reader of its issuers.

usage: judges.py make FOLDER            keys and one token of every algorithm: FOLDER/pyjwt.jwks.json, FOLDER/pyjwt.json
       judges.py read URL CLIENT:SECRET  every issuer at URL/issuer/NAME: discovery, keys by PyJWKClient, a token of each
A judge that accepts everything proves nothing: what was spoilt must be refused.
"""

import json
import pathlib
import sys
import time
import urllib.parse
import urllib.request

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}


def key_for(alg):
    if alg == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if alg in CURVES:
        return ec.generate_private_key(CURVES[alg]())
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def make(folder):
    jwks, tokens = [], {}
    now = int(time.time())
    for alg in json.loads(pathlib.Path(folder, "algorithms.json").read_text()):
        key, kid = key_for(alg), f"pyjwt-{alg}"
        public = jwt.get_algorithm_by_name(alg).to_jwk(key.public_key(), as_dict=True)
        public = {name: value for name, value in public.items() if name not in ("key_ops", "alg")}
        jwks.append({**public, "kid": kid, "alg": alg, "use": "sig"})
        claims = {"iss": "https://pyjwt.example", "aud": "judged", "sub": alg, "iat": now, "exp": now + 600}
        tokens[alg] = jwt.encode(claims, key, alg, headers={"kid": kid})
    pathlib.Path(folder, "pyjwt.jwks.json").write_text(json.dumps({"keys": jwks}))
    pathlib.Path(folder, "pyjwt.json").write_text(json.dumps(tokens))


def fetch(url, form=None, secret=""):
    data = urllib.parse.urlencode(form).encode() if form else None
    request = urllib.request.Request(url, data=data)
    if secret:
        import base64

        request.add_header("authorization", "Basic " + base64.b64encode(secret.encode()).decode())
    with OPENER.open(request, timeout=10) as answer:
        return json.load(answer)


def read(url, secret, algorithms):
    for alg in algorithms:
        issuer = f"{url}/issuer/{alg.lower()}"
        document = fetch(f"{issuer}/.well-known/openid-configuration")
        if document["issuer"] != issuer:
            sys.exit(f"error: the document of {issuer} names {document['issuer']}")
        client = f"{alg.lower()}-client:{secret}-{alg.lower()}"
        token = fetch(document["token_endpoint"], {"grant_type": "client_credentials"}, client)["access_token"]
        # Loopback, so no proxy is asked.
        keys = jwt.PyJWKClient(document["jwks_uri"], cache_keys=True)
        key = keys.get_signing_key_from_jwt(token)
        rules = {"algorithms": [alg], "issuer": issuer, "audience": "judged", "options": {"require": ["exp", "iat", "sub", "jti"]}}
        claims = jwt.decode(token, key, **rules)
        if claims["client_id"] != f"{alg.lower()}-client":
            sys.exit(f"error: {alg}: the token is of {claims['client_id']}")
        head, body, signature = token.split(".")
        spoilt = [f"{head}.{body}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}", f"{head}.{body[:-2]}AA.{signature}"]
        for other in spoilt:
            try:
                jwt.decode(other, key, **rules)
            except jwt.PyJWTError:
                continue
            sys.exit(f"error: {alg}: PyJWT accepts a token that was spoilt")
    print(f"PyJWT {jwt.__version__}: PyJWKClient reads {len(algorithms)} issuers, tokens of {' '.join(algorithms)}: valid")


if sys.argv[1] == "make":
    make(sys.argv[2])
else:
    read(sys.argv[2], sys.argv[3], sys.argv[4].split(","))

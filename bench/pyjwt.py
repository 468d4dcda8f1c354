"""PyJWT on the tokens that `keyreeve-bench jwt` wrote: per CPU second of the process.

    python3 bench/pyjwt.py /tmp/keyreeve-bench-jwt.json     (needs PyJWT and cryptography)
"""

import base64
import json
import sys
import time

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key

ROUNDS, ROUND_S = 5, 0.3


def measure(algorithm, what, act):
    rates = []
    for round_ in range(ROUNDS + 1):
        start, count = time.process_time(), 0
        while (spent := time.process_time() - start) < ROUND_S:
            for _ in range(10):
                act()
            count += 10
        if round_ > 0:
            rates.append(count / spent)
    print(f"{algorithm:<8} {what:<8} {'PyJWT ' + jwt.__version__:<28} {sorted(rates)[ROUNDS // 2]:>12.0f}")


with open(sys.argv[1], encoding="utf-8") as file:
    given = json.load(file)
claims, keys = given["claims"], given["keys"]
pem = {"RS256": keys["rsa"], "PS256": keys["rsa"], "ES256": keys["p256"], "EdDSA": keys["ed25519"]}
for algorithm, token in given["tokens"].items():
    if algorithm.startswith("HS"):
        private = public = base64.urlsafe_b64decode(keys["secret"] + "==")
    else:
        private = load_pem_private_key(pem[algorithm].encode(), None)
        public = private.public_key()
    wants = {"algorithms": [algorithm], "issuer": claims["iss"], "audience": claims["aud"]}
    measure(algorithm, "verify", lambda: jwt.decode(token, public, **wants))
    measure(algorithm, "sign", lambda: jwt.encode(claims, private, algorithm, headers={"kid": "key-1"}))

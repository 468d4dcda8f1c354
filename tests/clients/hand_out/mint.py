"""An `exec` source that does as the file `behaviour` in its folder says, and counts what it minted there."""

import datetime
import json
import pathlib
import sys
import time

folder = pathlib.Path(sys.argv[1])
kind = sys.argv[2]
with (folder / f"{kind}.calls").open("a") as calls:
    calls.write(".")
number = (folder / f"{kind}.calls").stat().st_size
behaviour = json.loads((folder / f"{kind}.behaviour").read_text())
time.sleep(behaviour.get("delay", 0))
if behaviour.get("fail"):
    sys.exit("the vendor is away")
expires_at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=behaviour.get("life", 3600))
text = expires_at.isoformat(timespec=behaviour.get("timespec", "seconds")).replace("+00:00", "Z")
if kind == "aws":
    document = {
        "Version": 1,
        "AccessKeyId": f"AKID{number}",
        "SecretAccessKey": f"secret-{number}",
        "SessionToken": f"session-{number}",
        "Expiration": text,
    }
else:
    document = {"token": f"{kind}-token-{number}", "expires_at": text}
print(json.dumps(document))

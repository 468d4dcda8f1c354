"""What azure-identity makes of the managed identity that its environment points to: one JSON object."""

import json
import sys
import time

from azure.identity import ManagedIdentityCredential

said = {}
try:
    token = ManagedIdentityCredential().get_token(sys.argv[1])
    said = {"token": token.token, "left": token.expires_on - time.time()}
except Exception as error:
    said = {"error": f"{type(error).__name__}: {error}"}
print(json.dumps(said))

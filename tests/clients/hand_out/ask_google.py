"""What google-auth makes of the metadata server that its environment points to: one JSON object."""

import json
import sys

import google.auth
import google.auth.compute_engine
import google.auth.transport.requests

request = google.auth.transport.requests.Request()
credentials, project = google.auth.default()
credentials.refresh(request)
said = {
    "kind": type(credentials).__name__,
    "project": project,
    "token": credentials.token,
    "email": credentials.service_account_email,
    "is_expired": credentials.expired,
}
if len(sys.argv) > 1:
    identity = google.auth.compute_engine.IDTokenCredentials(request, sys.argv[1], use_metadata_identity_endpoint=True)
    identity.refresh(request)
    said["identity"] = identity.token
print(json.dumps(said))

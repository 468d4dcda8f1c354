"""What the Kubernetes client sends to its API server, with the kubeconfig in its environment: asks once for namespaces."""

import sys

from kubernetes import client, config

config.load_kube_config(sys.argv[1])
print(len(client.CoreV1Api().list_namespace().items))

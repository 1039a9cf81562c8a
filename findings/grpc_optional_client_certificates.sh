#!/bin/bash
# A gRPC server in Python that is given root certificates and does not demand client certificates does not ask for them
# either: a client that would show a good one is a stranger to it. There is no "optional" in between, as Python's ssl
# has with CERT_OPTIONAL, so daemons with certificates and users without cannot share a port and be told apart by them.
#
# Exits 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install "grpcio==1.76.0" "trustme==1.2.1"
"$folder/venv/bin/python" - <<'PYTHON'
import sys
from concurrent import futures

import grpc
import trustme

print("python", sys.version.split()[0], "grpcio", grpc.__version__)
authority = trustme.CA()
own, callers = authority.issue_cert("localhost"), authority.issue_cert("client.example")
roots = authority.cert_pem.bytes()
seen = []


class Handlers(grpc.GenericRpcHandler):
    def service(self, details):
        def answer(request, context):
            seen.append(context.auth_context().get("x509_subject_alternative_name", []))
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


for required in (True, False):
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Handlers()])
    pair = (own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())
    credentials = grpc.ssl_server_credentials([pair], root_certificates=roots, require_client_auth=required)
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    shown = grpc.ssl_channel_credentials(roots, callers.private_key_pem.bytes(), callers.cert_chain_pems[0].bytes())
    with grpc.secure_channel(f"localhost:{port}", shown) as channel:
        channel.unary_unary("/any/method")(b"", timeout=30)
    server.stop(None).wait()
    print(f"require_client_auth={required}: the server knows the client as {seen[-1]}")
sys.exit(0 if seen == [[b"client.example"], []] else 1)
PYTHON

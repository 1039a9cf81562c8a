#!/bin/bash
# Over TLS 1.3 a client's handshake succeeds although its server refuses the client's certificate: the client has nothing
# left to wait for when it sends it. It hears of it with a later read, or not at all: if it has written meanwhile and the
# server closes, the connection is reset, and the alert that says why is thrown away. Over TLS 1.2 the handshake fails.
# So "connected" proves nothing about a client certificate, and a server has to linger for its reason to arrive.
#
# Exits 1 when that has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install "trustme==1.2.1"
"$folder/venv/bin/python" - <<'PYTHON'
import socket
import ssl
import sys
import threading

import trustme

print("python", sys.version.split()[0], ssl.OPENSSL_VERSION)
authority, another = trustme.CA(), trustme.CA()
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
authority.issue_cert("localhost").configure_cert(server)
authority.configure_trust(server)
server.verify_mode = ssl.CERT_REQUIRED
outcomes = []
for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    another.issue_cert("client.example").configure_cert(client)
    client.maximum_version = version
    here, there = socket.socketpair()
    refused = []

    def serve():
        try:
            server.wrap_socket(there, server_side=True)
        except ssl.SSLError as error:
            refused.append(error.reason)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        session = client.wrap_socket(here, server_hostname="localhost")
        outcome = "succeeds"
    except ssl.SSLError as error:
        outcome = error.reason
    thread.join()
    print(f"{version.name}: the server says {refused}; the client's handshake: {outcome}")
    outcomes.append((refused, outcome))
expected = [
    (["CERTIFICATE_VERIFY_FAILED"], "TLSV1_ALERT_UNKNOWN_CA"),
    (["CERTIFICATE_VERIFY_FAILED"], "succeeds"),
]
sys.exit(0 if outcomes == expected else 1)
PYTHON

#!/bin/sh
# linkerd2-proxy as the inbound sidecar of an application. Nobody has run this here: it is what the proxy's source
# (linkerd/app/src/env.rs and linkerd/app/src/env/, 2025) reads, for who has its control plane.
#
#   outrigger-bench run --against 'linkerd=sh benches/peers/linkerd/inbound.sh {listen_port} {application_port}'
#
# It does not run alone, and no variable makes it:
# - it asks for policies, destinations and a certificate before it serves: name all three services, and the documents that
#   go with its identity, in the variables that are required below;
# - it sends a connection where the kernel says that it was meant for (SO_ORIGINAL_DST) and knows no other way. So callers
#   have to be redirected: as root, with the proxy run as the user PROXY_UID whose own connections are left alone,
#     nft add table ip bench
#     nft add chain ip bench output '{ type nat hook output priority -100 ; }'
#     nft add rule ip bench output meta skuid != $PROXY_UID tcp dport $LISTEN_PORT redirect to :$INBOUND_PORT
#   and what is meant for LISTEN_PORT has to end at the application:
#     nft add rule ip bench output meta skuid $PROXY_UID tcp dport $LISTEN_PORT dnat to 127.0.0.1:$APPLICATION_PORT
set -eu

: "${LINKERD2_PROXY:?is the binary}"
: "${LINKERD2_PROXY_DESTINATION_SVC_ADDR:?is the address of the destination service}"
: "${LINKERD2_PROXY_POLICY_SVC_ADDR:?is the address of the policy service}"
: "${LINKERD2_PROXY_IDENTITY_SVC_ADDR:?is the address of the identity service}"
: "${LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS:?is the text of the trust bundle, in PEM}"
: "${LINKERD2_PROXY_IDENTITY_DIR:?is the folder with the key and the signing request}"
: "${LINKERD2_PROXY_IDENTITY_TOKEN_FILE:?is the file of the token that proves who the proxy is}"
: "${LINKERD2_PROXY_IDENTITY_LOCAL_NAME:?is the name that its certificate is for}"

# Loopback services are spoken to without TLS; of others the name is needed too (…_SVC_NAME).
export LINKERD2_PROXY_POLICY_WORKLOAD="${LINKERD2_PROXY_POLICY_WORKLOAD:-bench:bench}"
export LINKERD2_PROXY_INBOUND_LISTEN_ADDR="127.0.0.1:${INBOUND_PORT:-4143}"
export LINKERD2_PROXY_INBOUND_PORTS="$1"
export LINKERD2_PROXY_INBOUND_DEFAULT_POLICY=all-unauthenticated
export LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR=127.0.0.1:0
export LINKERD2_PROXY_CONTROL_LISTEN_ADDR=127.0.0.1:0
export LINKERD2_PROXY_ADMIN_LISTEN_ADDR=127.0.0.1:0
export LINKERD2_PROXY_LOG=warn
# As many threads as the other proxies have; none for each line of an access log.
export LINKERD2_PROXY_CORES="${WORKERS:-1}"
# Connections are kept, as those of the others are: its own limit is 3 s.
export LINKERD2_PROXY_INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT=3600s

exec "$LINKERD2_PROXY"

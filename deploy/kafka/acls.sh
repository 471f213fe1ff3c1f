#!/bin/sh
# Allows the worker's user what it needs and nothing more; harmless where that is allowed already.
#   BOOTSTRAP_SERVERS=kafka:9092 PRINCIPAL=User:sessions deploy/kafka/acls.sh [--command-config admin.properties]
# Needs Kafka's own kafka-acls.sh on the PATH.  With a client certificate the principal is its subject, as the brokers'
# ssl.principal.mapping.rules make it.  Describe is implied by Read and Write; the topics must exist (create-topics.sh).
set -eu
: "${BOOTSTRAP_SERVERS:=localhost:9092}"
: "${PRINCIPAL:=User:sessions}"
: "${GROUP_ID:=session-aggregator}"
: "${INPUT_TOPIC:=otlp_spans}"
: "${SUMMARY_TOPIC:=session_summaries}"
: "${DEAD_LETTER_TOPIC:=otlp_spans_dead_letter}"

kafka-acls.sh --bootstrap-server "$BOOTSTRAP_SERVERS" --add --allow-principal "$PRINCIPAL" \
  --operation Read --topic "$INPUT_TOPIC" --group "$GROUP_ID" "$@"
kafka-acls.sh --bootstrap-server "$BOOTSTRAP_SERVERS" --add --allow-principal "$PRINCIPAL" \
  --operation Write --topic "$SUMMARY_TOPIC" --topic "$DEAD_LETTER_TOPIC" "$@"

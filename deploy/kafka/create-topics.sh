#!/bin/sh
# Creates the service's topics; harmless where they are there already.
#   BOOTSTRAP_SERVERS=kafka:9092 PARTITIONS=12 REPLICATION=3 deploy/kafka/create-topics.sh [--command-config client.properties]
# Needs Kafka's own kafka-topics.sh on the PATH.  The same topics for Strimzi: the chart's strimzi.enabled.
set -eu
: "${BOOTSTRAP_SERVERS:=localhost:9092}"
: "${PARTITIONS:=12}" # as many as there will ever be workers; they can be added later, never taken away
: "${REPLICATION:=3}"
: "${MIN_IN_SYNC:=2}"
: "${INPUT_TOPIC:=otlp_spans}"
: "${SUMMARY_TOPIC:=session_summaries}"
: "${DEAD_LETTER_TOPIC:=otlp_spans_dead_letter}"

create() { # topic, partitions, settings...
  topic=$1 partitions=$2
  shift 2
  for setting; do
    set -- "$@" --config "$setting"
    shift
  done
  kafka-topics.sh --bootstrap-server "$BOOTSTRAP_SERVERS" --create --if-not-exists --topic "$topic" \
    --partitions "$partitions" --replication-factor "$REPLICATION" "$@" $more
}

more=$*
in_sync="min.insync.replicas=$MIN_IN_SYNC"
# Two days: for longer than Redis may be away, and than sessions are kept, so that all can be rebuilt from the log.
# LogAppendTime: producers' clocks do not matter then.  Records up to 8 MiB, as the brokers' clients compressed them.
create "$INPUT_TOPIC" "$PARTITIONS" cleanup.policy=delete "$in_sync" retention.ms=172800000 \
  message.timestamp.type=LogAppendTime max.message.bytes=8388608 compression.type=producer
# A week, for whoever reads summaries and whoever mends what could not be used.
create "$SUMMARY_TOPIC" 6 cleanup.policy=delete "$in_sync" retention.ms=604800000 \
  max.message.bytes=8388608 compression.type=producer
create "$DEAD_LETTER_TOPIC" 1 cleanup.policy=delete "$in_sync" retention.ms=604800000 \
  max.message.bytes=8388608 compression.type=producer

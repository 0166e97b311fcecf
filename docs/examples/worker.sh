#!/bin/sh
# A worker for a Queue, or a durable subscription of a Topic, in plain shell: takes one message after the other, hands its
# body to a command, and answers.
#
#   worker.sh URL COMMAND [ARGUMENT]...
#
# URL is the destination's, such as http://127.0.0.1:8080/mq/demo/Queues/jobs. COMMAND has the body on its standard input and,
# in its environment, MQ_MESSAGE_ID and MQ_REDELIVERED (true or false). Exit code 0: the message is done; any other: it goes
# back and comes again. So does the message of a worker that dies, when its lease is over.
#
#   MQ_LEASE   seconds a message may take (60)
#   MQ_WAIT    seconds of each wait for a message (20)
#   MQ_SUBSCRIPTION   of a Topic: the durable subscription to take from
#   MQ_IDLE    end after a wait in which none came, if set to anything
#
# Needs curl and nothing else.
set -u
[ $# -ge 2 ] || { echo "usage: $0 URL COMMAND [ARGUMENT]..." >&2; exit 2; }
queue=$1
subscription=${MQ_SUBSCRIPTION:+&subscription=$MQ_SUBSCRIPTION}
shift

folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# Value of a response header, without regard to the case of its name.
header() {
    tr -d '\r' < "$folder/head" | while IFS=: read -r name value; do
        [ "$(printf %s "$name" | tr '[:upper:]' '[:lower:]')" = "$1" ] && printf %s "${value# }" && break
    done
}

while :; do
    status=$(curl --silent --show-error --max-time $((${MQ_WAIT:-20} + 10)) --request POST \
        --header 'Accept: application/octet-stream' --dump-header "$folder/head" --output "$folder/body" \
        --write-out '%{http_code}' "$queue/receive?wait=${MQ_WAIT:-20}&lease=${MQ_LEASE:-60}$subscription") || status=000
    case $status in
    200) ;;
    204)
        [ -z "${MQ_IDLE:-}" ] || exit 0
        continue
        ;;
    4??)
        echo "$0: $status $(cat "$folder/body")" >&2
        exit 1
        ;;
    *)
        sleep 1 # the gateway or its broker is away
        continue
        ;;
    esac

    lease=$(header mq-lease)
    MQ_MESSAGE_ID=$(header mq-message-id)
    MQ_REDELIVERED=$(header mq-redelivered)
    export MQ_MESSAGE_ID MQ_REDELIVERED
    if "$@" < "$folder/body"; then answer=ack; else answer=nack; fi
    # 207: the lease was over, and the message comes again.
    curl --silent --show-error --max-time 10 --output /dev/null --request POST "$queue/$answer?lease=$lease$subscription"
done

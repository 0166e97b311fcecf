#!/bin/sh
# Install what the tests run against where it is missing: brokers.sh
# Only as root and with apt. Nothing that is installed is upgraded, and no service is started or restarted.
set -eu

policy=/usr/sbin/policy-rc.d

missing() {
    case $1 in
    rabbitmq-server) [ ! -x /usr/lib/rabbitmq/bin/rabbitmq-server ] ;;
    default-jdk-headless) ! command -v java >/dev/null || ! command -v javac >/dev/null ;;
    activemq) [ ! -e /usr/share/activemq/bin/activemq.jar ] ;;
    chromium) ! command -v chromium >/dev/null ;;
    nginx) [ ! -x /usr/sbin/nginx ] ;;
    iproute2) ! command -v ip >/dev/null ;;
    esac
}

# The packages' scripts ask policy-rc.d before they start a service; 101 forbids it.
starts_forbidden() {
    [ -x "$policy" ] || return 1
    code=0
    "$policy" rabbitmq-server start >/dev/null 2>&1 || code=$?
    [ "$code" = 101 ]
}

forbid_services() {
    ! starts_forbidden || return 0
    trap 'rm -f "$policy"; [ ! -e "$policy.kept" ] || mv "$policy.kept" "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    [ ! -e "$policy" ] || mv "$policy" "$policy.kept"
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
}

fetch() {
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends --no-upgrade \
        -o DPkg::Lock::Timeout=120 "$1" >/dev/null
}

wanted=
for package in rabbitmq-server default-jdk-headless activemq chromium nginx iproute2; do
    ! missing "$package" || wanted="$wanted $package"
done
[ -n "$wanted" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing$wanted"
    forbid_services
    apt-get update -qq || echo "apt-get update failed; trying with the lists that are here" >&2
    for package in $wanted; do
        fetch "$package" || true
    done
fi

status=0
for package in $wanted; do
    ! missing "$package" || {
        echo "MISSING: $package; its tests do not run. As root: apt-get install $package" >&2
        status=1
    }
done
# In CI a missing broker is a failure, and the tests that need it say so one by one.
[ "$status" = 0 ] || [ "${CI-}" != true ] || echo "CI=true: the tests that need them will fail" >&2

#!/bin/sh
# Installs RabbitMQ from the distribution's packages, for the tests: they start nodes of their own,
# so no service is started or enabled to start. Does nothing when rabbitmq-server is there already.
set -eu

if command -v rabbitmq-server >/dev/null 2>&1 || [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
    exit 0
fi

fail() {
    echo "$1" >&2
    echo "The tests need RabbitMQ 3.10 or newer and its Erlang. Install the package" >&2
    echo "'rabbitmq-server' with your package manager; erl, epmd and rabbitmq-server must then" >&2
    echo "be in PATH. No service needs to run." >&2
    exit 1
}

command -v apt-get >/dev/null 2>&1 || fail "cannot install RabbitMQ: there is no apt-get here"

if [ "$(id -u)" -eq 0 ]; then
    root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    root="sudo -n"
else
    fail "cannot install RabbitMQ: not root, and no sudo without a password"
fi

# invoke-rc.d asks this script before it starts a service: 101 means "do not".
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$root rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
    $root chmod 755 "$policy"
fi

$root apt-get update -q
$root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends rabbitmq-server
# Nor at the next start of the machine.
if command -v systemctl >/dev/null 2>&1; then
    $root systemctl disable rabbitmq-server >/dev/null 2>&1 || true
fi

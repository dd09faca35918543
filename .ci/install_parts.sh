#!/bin/sh
# Install the real counterparts the tests talk to. As root it installs what is missing; as anybody
# else it says exactly what is missing and fails. It never leaves one out in silence.
set -eu

parts="dcmtk orthanc rsyslog rsyslog-openssl openssl sslscan testssl.sh strace jing trang"

if ! command -v dpkg-query >/dev/null; then
    echo "not a Debian system; the tests need these programs of Debian 12: $parts" >&2
    exit 1
fi

missing=""
for part in $parts; do
    state=$(dpkg-query -W -f='${db:Status-Status}' "$part" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $part"
done
# Debian's python3 comes without; a Python from elsewhere has it.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
    echo "missing Debian packages; run as root: apt-get install$missing" >&2
    exit 1
fi

echo "installing:$missing"
hold=/usr/sbin/policy-rc.d
if [ ! -e "$hold" ]; then
    # The tests start their own; no package is to start a service on this machine.
    printf '#!/bin/sh\nexit 101\n' >"$hold"
    chmod +x "$hold"
    trap 'rm -f "$hold"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
# shellcheck disable=SC2086 # a list of names
apt-get install -y -qq --no-install-recommends $missing </dev/null >/dev/null

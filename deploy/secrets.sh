#!/usr/bin/env bash
# Makes random secrets for deploy/compose.yaml in deploy/secrets (or the directory given), each in a file of its own.
# What is there already stays. The chat's secret (e2ee_host_jwt_secret) and the certificate are yours to put there.
set -euo pipefail
directory=${1:-$(dirname "${BASH_SOURCE[0]}")/secrets}
umask 077
mkdir -p "$directory"
cd "$directory"

# Containers read these files as users of their own; the directory keeps everybody else out.
write() { [ -e "$1" ] || { printf '%s\n' "$2" > "$1.new" && chmod 0444 "$1.new" && mv "$1.new" "$1"; }; }
random() { openssl rand -hex 32; }

write e2ee_token_secret "$(random)"
write postgres_password "$(random)"
write e2ee_database "postgresql://e2ee:$(cat postgres_password)@postgres/e2ee"
[ -e redis_configuration ] || {
    password=$(random)
    rm -f e2ee_rate_limits
    write e2ee_rate_limits "redis://:$password@redis:6379/0"
    write redis_configuration "requirepass $password"
}
echo "secrets are in $PWD; still missing:" $(for name in e2ee_host_jwt_secret tls_certificate tls_key; do [ -e "$name" ] || echo "$name"; done)

#!/usr/bin/env bash
# The whole suite. Closes with one line "N passed, 0 failed" over all its parts, and fails if
# anything failed, was ignored, or did not run.
set -euo pipefail
cd "$(dirname "$0")/.."

# strongSwan reads elliptic certificates with its openssl plugin, of the standard plugins.
tests/need.sh softhsm2 strongswan-pki libstrongswan-standard-plugins \
    libstrongswan-extra-plugins openssl

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test --workspace --locked --no-fail-fast 2>&1 | tee "$log" || status=$?

read -r passed failed ignored < <(awk '
    /^test result:/ { passed += $4; failed += $6; ignored += $8 }
    END { print passed + 0, failed + 0, ignored + 0 }' "$log")
if [ "$ignored" -ne 0 ]; then
    echo "run.sh: $ignored tests are ignored; none may be" >&2
    status=1
fi
if [ "$passed" -eq 0 ]; then
    echo "run.sh: no test ran" >&2
    status=1
fi
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
    failed=1
fi
echo "$passed passed, $failed failed"
exit "$status"

#!/usr/bin/env bash
# The demo: makes an appliance on SoftHSM, starts it, mints a challenge, enrols with strongSwan's
# SCEP client, and has openssl verify the chain. The argument is the folder of the programs.
set -euo pipefail

programs=$(realpath "$1")
chancery=$programs/chancery
dir=$(mktemp -d "${TMPDIR:-/tmp}/chancery-demo.XXXXXX")
appliance=
cleanup() {
    if [ -n "$appliance" ]; then
        kill "$appliance" 2>/dev/null || true
        wait "$appliance" 2>/dev/null || true
    fi
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say() { printf '\n== %s\n' "$*"; }
fail() {
    echo "demo: $*" >&2
    exit 1
}

say "1. Making a demo appliance in $dir"
mkfifo "$dir/lines"
"$chancery" quickstart --dir "$dir/appliance" --listen 127.0.0.1:0 >"$dir/lines" 2>"$dir/log" &
appliance=$!
declare -A facts
while read -r key value; do
    facts[$key]=$value
    [ "$key" = ready ] && break
    echo "$key $value"
done <"$dir/lines"
if [ -z "${facts[ready]+set}" ]; then
    cat "$dir/log" >&2
    fail "the appliance did not start, see above"
fi

say "2. Minting a challenge for one device: CN=probe-1, probe-1.example"
challenge=$("$chancery" --dir "$dir/appliance" challenge new --profile devices \
    --subject "CN=probe-1" --san dns:probe-1.example)
echo "$challenge (used once, expires in 60 minutes)"

say "3. Enrolling with strongSwan's SCEP client"
cd "$dir"
# Debian's build tries a TPM at every start and says so where there is none.
cat >strongswan.conf <<'EOT'
libstrongswan {
    plugins {
        tpm {
            load = no
        }
    }
}
EOT
export STRONGSWAN_CONF=$dir/strongswan.conf
pki --gen --type rsa --size 2048 --outform pem >key.pem
pki --scepca --url "${facts[url]}" --caout ca.crt --raout ra.crt --outform pem
# Two RA certificates: one receives, the other signs. Their keyUsage tells which is which.
with_usage() {
    local file
    for file in ra*.crt; do
        if openssl x509 -in "$file" -noout -ext keyUsage | grep -q "$1"; then
            echo "$file"
            return
        fi
    done
    fail "no RA certificate has keyUsage $1"
}
pki --scep --url "${facts[url]}" --in key.pem --dn "CN=probe-1" --san probe-1.example \
    --password "$challenge" --cacert-enc "$(with_usage 'Key Encipherment')" \
    --cacert-sig "$(with_usage 'Digital Signature')" \
    --cacert appliance/root.pem --cacert appliance/issuing.pem \
    --cipher aes --digest sha256 --outform pem >cert.pem

say "4. The certificate"
openssl x509 -in cert.pem -noout -subject -issuer -serial -dates -ext subjectAltName,keyUsage,extendedKeyUsage

say "5. openssl verifies its chain"
openssl verify -CAfile appliance/root.pem -untrusted appliance/issuing.pem cert.pem

say "6. What the appliance knows of it"
"$chancery" --dir "$dir/appliance" cert find probe-1.example

cat <<EOT

It works. To go on:
  $chancery quickstart --dir DIR --listen 127.0.0.1:8080     an appliance to keep
  $chancery --dir DIR challenge new --profile devices --subject CN=laptop-1
  $chancery --dir DIR doctor                                 checks everything
  README.md                                                  what it is, and how it is built
EOT

#!/bin/sh
# Makes the vectors beside this file: GRAMMAR/accepted/*.der and GRAMMAR/refused/*.der.
# Needs openssl 3 and printf. Keys, nonces and signatures are new each time; the structure is not.
set -eu
cd "$(dirname "$0")"
rm -rf message request
mkdir -p message/accepted message/refused request/accepted request/refused
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
names='-subj /O=Example/CN=probe-1 -addext subjectAltName=DNS:probe-1.example'
cat >"$work/openssl.cnf" <<'CONFIGURATION'
[req]
distinguished_name = dn
[dn]
CONFIGURATION
export OPENSSL_CONF="$work/openssl.cnf"

# Requests: RSA and EC keys, with subjectAltName; a version 1 certificate signs the messages.
openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$work/rsa.pem"
openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/ec.pem"
for key in rsa ec; do
    # $names is meant to be split.
    openssl req -new -key "$work/$key.pem" $names -outform DER -out "request/accepted/$key.der"
    openssl req -new -x509 -key "$work/$key.pem" $names -out "$work/$key.crt"
done
openssl req -new -key "$work/ec.pem" -subj / -outform DER -out request/accepted/empty-subject.der

# Messages: DER, and BER with indefinite lengths and chunked strings outside, inside, and both.
message() {
    name=$1
    outside=$2
    inside=$3
    openssl cms -encrypt -binary -aes128 $inside -in request/accepted/ec.der -outform DER \
        -out "$work/enveloped" "$work/rsa.crt"
    openssl cms -sign -binary -nodetach $outside -in "$work/enveloped" -signer "$work/rsa.crt" \
        -inkey "$work/rsa.pem" -outform DER -out "message/accepted/$name.der"
}
message der '' ''
message ber -stream -stream
message ber-outside -stream ''
message ber-inside '' -stream
openssl cms -sign -binary -in request/accepted/ec.der -signer "$work/ec.crt" \
    -inkey "$work/ec.pem" -outform DER -out message/accepted/no-content.der

# Refused: cut, longer than itself, of the other grammar, or not elements at all.
for grammar in message request; do
    [ $grammar = message ] && whole=message/accepted/ber.der || whole=request/accepted/rsa.der
    head -c 200 $whole >$grammar/refused/cut.der
    { cat $whole; printf '\0'; } >$grammar/refused/trailing.der
    : >$grammar/refused/empty.der
    printf '\060\200' >$grammar/refused/never-closed.der
    printf '\060\201\005\005\000\005\000\000' >$grammar/refused/length-not-minimal.der
    printf '\060\003\037\201\001' >$grammar/refused/high-tag.der
    printf '\060\002\000\000' >$grammar/refused/end-of-contents-in-definite.der
    # Forty elements, each inside the one before.
    { for _ in $(seq 40); do printf '\060\200'; done; for _ in $(seq 40); do printf '\0\0'; done; } \
        >$grammar/refused/deep.der
done
cp request/accepted/ec.der message/refused/a-request.der
cp message/accepted/der.der request/refused/a-message.der
openssl cms -encrypt -binary -aes128 -in request/accepted/ec.der -outform DER \
    -out message/refused/enveloped-only.der "$work/rsa.crt"
openssl cms -sign -binary -nodetach -in request/accepted/ec.der -signer "$work/rsa.crt" \
    -inkey "$work/rsa.pem" -outform DER -out message/refused/signed-request.der

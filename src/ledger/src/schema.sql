-- The ledger's schema, version 1. Times are Unix seconds, digests SHA-256.

-- First answers, by the caller-made id of the write, for repetitions within 24 hours.
CREATE TABLE writes (
    id      BLOB PRIMARY KEY,
    request BLOB NOT NULL,      -- digest of socket and packet: an id names one request only
    reply   BLOB NOT NULL,      -- DER
    time    INTEGER NOT NULL
) STRICT;
CREATE INDEX writes_time ON writes (time);

-- Challenges as sealed by the CA. The id is the digest of the handle.
CREATE TABLE challenges (
    id      BLOB PRIMARY KEY,
    key_id  BLOB NOT NULL,
    body    BLOB NOT NULL,
    mac     BLOB NOT NULL,
    profile TEXT NOT NULL,
    expires INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0 CHECK (revoked IN (0, 1))
) STRICT;

-- Certificates from their reservation on.
CREATE TABLE certificates (
    id                INTEGER PRIMARY KEY,
    state             INTEGER NOT NULL CHECK (state IN (0, 1, 2)),  -- intent, issued, abandoned
    ca                TEXT NOT NULL,
    serial            BLOB NOT NULL,        -- big-endian, no leading zero octet
    retry             BLOB NOT NULL,        -- digest of the retry identity; with the next three the sealed row
    key_id            BLOB NOT NULL,
    body              BLOB NOT NULL,
    mac               BLOB NOT NULL,
    challenge         BLOB REFERENCES challenges (id),  -- NULL: certificate of one of our own keys
    profile           TEXT NOT NULL,
    subject           TEXT NOT NULL,        -- RFC 4514
    sans              TEXT NOT NULL,        -- kind:value, one a line
    device_id         TEXT NOT NULL,
    public_key        BLOB NOT NULL,        -- digest of the SubjectPublicKeyInfo
    not_before        INTEGER NOT NULL,
    not_after         INTEGER NOT NULL,
    transaction_id    TEXT NOT NULL,
    reserved_at       INTEGER NOT NULL,
    issued_at         INTEGER,
    sha256            BLOB,
    certificate       BLOB,                 -- DER
    revoked_at        INTEGER,
    revocation_reason INTEGER,              -- CRLReason; NULL: unspecified
    UNIQUE (ca, serial),
    CHECK ((state = 1) = (issued_at IS NOT NULL)),
    CHECK ((state = 1) = (sha256 IS NOT NULL)),
    CHECK ((state = 1) = (certificate IS NOT NULL))
) STRICT;
CREATE INDEX certificates_state ON certificates (state, issued_at);
CREATE INDEX certificates_retry ON certificates (retry);
CREATE INDEX certificates_serial ON certificates (serial);
CREATE INDEX certificates_sha256 ON certificates (sha256);
CREATE INDEX certificates_public_key ON certificates (public_key);
CREATE INDEX certificates_device_id ON certificates (device_id) WHERE device_id <> '';
CREATE INDEX certificates_transaction_id ON certificates (transaction_id) WHERE transaction_id <> '';

-- What a certificate is found by, in lower case: subject, its attribute values, values of SANs.
CREATE TABLE names (
    certificate INTEGER NOT NULL REFERENCES certificates (id),
    value       TEXT NOT NULL,
    PRIMARY KEY (certificate, value)
) STRICT, WITHOUT ROWID;
CREATE INDEX names_value ON names (value);

-- Uses of challenges, counted from 1.
CREATE TABLE spends (
    challenge   BLOB NOT NULL REFERENCES challenges (id),
    n           INTEGER NOT NULL,
    retry       BLOB NOT NULL,
    public_key  BLOB NOT NULL,
    certificate INTEGER NOT NULL REFERENCES certificates (id),
    PRIMARY KEY (challenge, n)
) STRICT, WITHOUT ROWID;

-- Under a challenge of several uses each name belongs to the first key that took it.
CREATE TABLE holdings (
    challenge  BLOB NOT NULL REFERENCES challenges (id),
    name       BLOB NOT NULL,       -- digest
    public_key BLOB NOT NULL,
    PRIMARY KEY (challenge, name)
) STRICT, WITHOUT ROWID;

-- The audit log.
CREATE TABLE records (
    seq    INTEGER PRIMARY KEY,
    time   INTEGER NOT NULL,
    record BLOB NOT NULL,       -- canonical DER
    leaf   BLOB NOT NULL        -- leaf hash, RFC 6962 section 2.1
) STRICT;
CREATE TRIGGER records_are_kept BEFORE DELETE ON records
    BEGIN SELECT RAISE(ABORT, 'audit records are never deleted'); END;
CREATE TRIGGER records_are_final BEFORE UPDATE ON records
    BEGIN SELECT RAISE(ABORT, 'audit records are never changed'); END;

-- Signed heads of the log.
CREATE TABLE checkpoints (
    size INTEGER PRIMARY KEY,
    root BLOB NOT NULL,
    note TEXT NOT NULL,
    time INTEGER NOT NULL
) STRICT;

-- What front serves to anybody.
CREATE TABLE blobs (
    name       TEXT PRIMARY KEY,
    media_type TEXT NOT NULL,
    content    BLOB NOT NULL
) STRICT;

-- The first record that journald may not have.
CREATE TABLE journal_position (
    id   INTEGER PRIMARY KEY CHECK (id = 0),
    next INTEGER NOT NULL
) STRICT;
INSERT INTO journal_position (id, next) VALUES (0, 0);

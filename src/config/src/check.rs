//! From the file as written to values that need no further check.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chancery_protocol::hex;
use chancery_protocol::name::{AttributeKind, SAN_KINDS};

use crate::error::ConfigError;
use crate::{
    Audit, Authority, Config, ExtendedKeyUsage, Front, KeyRef, Ledger, MAX_SOCKET_PATH, Profile,
    Ra, SOCKETS, SecretKeyRef, Token, raw,
};

pub(crate) fn check(path: &Path, raw: raw::Config) -> Result<Config, ConfigError> {
    let checker = Checker {
        file: path.to_path_buf(),
        folder: path.parent().unwrap_or(Path::new("/")).to_path_buf(),
    };
    checker.names_are_unique(&raw)?;
    let tokens = raw
        .token
        .iter()
        .map(|t| checker.token(t))
        .collect::<Result<Vec<_>, _>>()?;
    let authorities = raw
        .ca
        .iter()
        .map(|ca| checker.authority(&raw, ca))
        .collect::<Result<Vec<_>, _>>()?;
    let profiles = raw
        .profile
        .iter()
        .map(|profile| checker.profile(profile, &authorities))
        .collect::<Result<Vec<_>, _>>()?;
    let config = Config {
        path: path.to_path_buf(),
        name: checker.appliance_name(&raw.appliance.name)?,
        development: raw.appliance.development,
        operators: raw.appliance.operators.clone(),
        run: checker.path(&raw.appliance.run),
        state: checker.path(&raw.appliance.state),
        journal: checker.path(&raw.appliance.journal),
        tokens,
        authorities,
        ra: checker.ra(&raw)?,
        challenge_key: checker.secret_key(&raw, "challenge.key", &raw.challenge.key)?,
        audit: checker.audit(&raw)?,
        profiles,
        front: checker.front(&raw.front)?,
        ledger: Ledger {
            database: checker.path(&raw.ledger.database),
            origin: format!("{}/audit", raw.appliance.name),
        },
    };
    checker.keys_have_one_purpose(&raw)?;
    checker.sockets_fit(&config)?;
    Ok(config)
}

struct Checker {
    file: PathBuf,
    folder: PathBuf,
}

impl Checker {
    fn value(
        &self,
        key: impl Into<String>,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Value {
            file: self.file.clone(),
            key: key.into(),
            cause: cause.into(),
            remedy: remedy.into(),
        }
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    fn appliance_name(&self, name: &str) -> Result<String, ConfigError> {
        let fits = (1..=200).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"./-_".contains(&b));
        if fits {
            Ok(name.into())
        } else {
            Err(self.value(
                "appliance.name",
                "has characters that a log's origin cannot carry",
                "use letters, digits, and . / - _, for example ca.example.com/node-1",
            ))
        }
    }

    fn names_are_unique(&self, raw: &raw::Config) -> Result<(), ConfigError> {
        let lists: [(&str, Vec<&str>); 4] = [
            (
                "token.name",
                raw.token.iter().map(|t| t.name.as_str()).collect(),
            ),
            (
                "key.name",
                raw.key.iter().map(|k| k.name.as_str()).collect(),
            ),
            ("ca.id", raw.ca.iter().map(|c| c.id.as_str()).collect()),
            (
                "profile.name",
                raw.profile.iter().map(|p| p.name.as_str()).collect(),
            ),
        ];
        for (key, names) in lists {
            let mut seen = BTreeSet::new();
            for name in names {
                let fits = (1..=40).contains(&name.len())
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
                if !fits {
                    return Err(self.value(
                        key,
                        format!("\"{name}\" is not a name"),
                        "use 1 to 40 lower-case letters, digits and hyphens",
                    ));
                }
                if !seen.insert(name) {
                    return Err(self.value(key, format!("\"{name}\" stands twice"), "rename one"));
                }
            }
        }
        Ok(())
    }

    fn token(&self, raw: &raw::Token) -> Result<Token, ConfigError> {
        let key = |key: &str| format!("token \"{}\", {key}", raw.name);
        if raw.label.is_empty() || raw.label.len() > 32 {
            return Err(self.value(
                key("label"),
                "is empty or longer than 32 octets",
                "give the token's label as `pkcs11-tool --list-slots` shows it",
            ));
        }
        for name in raw.environment.keys() {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(self.value(
                    key("environment"),
                    format!("\"{name}\" is no variable name"),
                    "correct it",
                ));
            }
        }
        let credential = raw.pin_file.components().count() == 1;
        let pin_file = match std::env::var_os("CREDENTIALS_DIRECTORY") {
            Some(folder) if credential => Path::new(&folder).join(&raw.pin_file),
            _ => self.path(&raw.pin_file),
        };
        Ok(Token {
            name: raw.name.clone(),
            module: self.path(&raw.module),
            label: raw.label.clone(),
            serial: raw.serial.clone(),
            pin_file,
            environment: raw.environment.clone().into_iter().collect(),
            files: raw.files.iter().map(|f| self.path(f)).collect(),
        })
    }

    fn find_key<'r>(
        &self,
        raw: &'r raw::Config,
        at: &str,
        name: &str,
    ) -> Result<(&'r raw::Key, Vec<u8>), ConfigError> {
        let found = raw.key.iter().find(|key| key.name == name).ok_or_else(|| {
            self.value(
                at,
                format!("there is no [[key]] named \"{name}\""),
                "the ceremony writes these; check its transcript",
            )
        })?;
        if !raw.token.iter().any(|token| token.name == found.token) {
            return Err(self.value(
                format!("key \"{name}\", token"),
                format!("there is no [[token]] named \"{}\"", found.token),
                "add it, or correct the name",
            ));
        }
        let id = hex::decode(&found.id)
            .filter(|id| !id.is_empty())
            .ok_or_else(|| {
                self.value(
                    format!("key \"{name}\", id"),
                    "is not hexadecimal",
                    "give CKA_ID as two digits an octet",
                )
            })?;
        Ok((found, id))
    }

    fn key_pair(&self, raw: &raw::Config, at: &str, name: &str) -> Result<KeyRef, ConfigError> {
        let (found, pinned_id) = self.find_key(raw, at, name)?;
        let public_key = found
            .public_key
            .as_deref()
            .and_then(|text| STANDARD.decode(text).ok())
            .filter(|spki| !spki.is_empty())
            .ok_or_else(|| {
                self.value(
                    format!("key \"{name}\", public_key"),
                    "is missing or not base64",
                    "give the SubjectPublicKeyInfo that the ceremony printed",
                )
            })?;
        Ok(KeyRef {
            token: found.token.clone(),
            pinned_id,
            public_key,
        })
    }

    fn secret_key(
        &self,
        raw: &raw::Config,
        at: &str,
        name: &str,
    ) -> Result<SecretKeyRef, ConfigError> {
        let (found, pinned_id) = self.find_key(raw, at, name)?;
        let check = found
            .check
            .as_deref()
            .and_then(hex::decode)
            .and_then(|octets| octets.try_into().ok())
            .ok_or_else(|| {
                self.value(
                    format!("key \"{name}\", check"),
                    "is missing or not 64 hexadecimal digits",
                    "give the check value that the ceremony printed",
                )
            })?;
        Ok(SecretKeyRef {
            token: found.token.clone(),
            pinned_id,
            check,
        })
    }

    fn authority(&self, raw: &raw::Config, ca: &raw::Authority) -> Result<Authority, ConfigError> {
        let at = |key: &str| format!("ca \"{}\", {key}", ca.id);
        let dangling = ca
            .issuer
            .as_ref()
            .filter(|issuer| **issuer == ca.id || !raw.ca.iter().any(|other| other.id == **issuer));
        if let Some(issuer) = dangling {
            return Err(self.value(
                at("issuer"),
                format!("there is no other [[ca]] with id \"{issuer}\""),
                "add it, or correct the id",
            ));
        }
        let key = ca
            .key
            .as_deref()
            .map(|name| self.key_pair(raw, &at("key"), name))
            .transpose()?;
        Ok(Authority {
            id: ca.id.clone(),
            certificate: self.path(&ca.certificate),
            issuer: ca.issuer.clone(),
            key,
        })
    }

    fn profile(
        &self,
        raw: &raw::Profile,
        authorities: &[Authority],
    ) -> Result<Profile, ConfigError> {
        let at = |key: &str| format!("profile \"{}\", {key}", raw.name);
        let issues = authorities
            .iter()
            .any(|ca| ca.id == raw.ca && ca.key.is_some());
        if !issues {
            return Err(self.value(
                at("ca"),
                format!("there is no [[ca]] \"{}\" with a key", raw.ca),
                "name an issuing CA",
            ));
        }
        self.within(&at("validity_days"), u64::from(raw.validity_days), 1, 3650)?;
        self.within(&at("backdate_seconds"), raw.backdate_seconds, 0, 86_400)?;
        self.within(
            &at("challenge_minutes_max"),
            raw.challenge_minutes_max,
            1,
            525_600,
        )?;
        let open_subject = raw
            .open_subject
            .iter()
            .map(|short| {
                AttributeKind::by_short(short).ok_or_else(|| {
                    self.value(
                        at("open_subject"),
                        format!("\"{short}\" is no supported attribute"),
                        "use short names such as CN, O, OU, serialNumber",
                    )
                })
            })
            .collect::<Result<_, _>>()?;
        for kind in &raw.open_sans {
            if !SAN_KINDS.contains(&kind.as_str()) {
                return Err(self.value(
                    at("open_sans"),
                    format!("\"{kind}\" is no supported kind"),
                    "use dns, email, uri or ip",
                ));
            }
        }
        let extended_key_usage = raw
            .extended_key_usage
            .iter()
            .map(|usage| match usage.as_str() {
                "client" => Ok(ExtendedKeyUsage::ClientAuth),
                "server" => Ok(ExtendedKeyUsage::ServerAuth),
                _ => Err(self.value(
                    at("extended_key_usage"),
                    format!("\"{usage}\" is not supported"),
                    "use client or server",
                )),
            })
            .collect::<Result<Vec<_>, _>>()?;
        if extended_key_usage.is_empty() {
            return Err(self.value(at("extended_key_usage"), "is empty", "use client or server"));
        }
        Ok(Profile {
            name: raw.name.clone(),
            ca: raw.ca.clone(),
            validity_days: raw.validity_days,
            backdate_seconds: raw.backdate_seconds,
            open_subject,
            open_sans: raw.open_sans.clone(),
            extended_key_usage,
            challenge_ttl_max: raw.challenge_minutes_max.saturating_mul(60),
        })
    }

    fn ra(&self, raw: &raw::Config) -> Result<Ra, ConfigError> {
        self.within("ra.workers", raw.ra.workers as u64, 1, 256)?;
        Ok(Ra {
            decryption: self.key_pair(raw, "ra.decryption_key", &raw.ra.decryption_key)?,
            signing: self.key_pair(raw, "ra.signing_key", &raw.ra.signing_key)?,
            workers: raw.ra.workers,
        })
    }

    fn audit(&self, raw: &raw::Config) -> Result<Audit, ConfigError> {
        self.within(
            "audit.checkpoint_seconds",
            raw.audit.checkpoint_seconds,
            1,
            3600,
        )?;
        self.within("audit.ca_workers", raw.audit.ca_workers as u64, 1, 256)?;
        Ok(Audit {
            key: self.key_pair(raw, "audit.key", &raw.audit.key)?,
            checkpoint_seconds: raw.audit.checkpoint_seconds,
            workers: raw.audit.ca_workers,
        })
    }

    fn front(&self, raw: &raw::Front) -> Result<Front, ConfigError> {
        self.within("front.connections", raw.connections as u64, 1, 65_536)?;
        self.within("front.per_peer", raw.per_peer as u64, 1, 65_536)?;
        self.within("front.queue", raw.queue as u64, 1, 65_536)?;
        Ok(Front {
            listen: raw.listen.clone(),
            connections: raw.connections,
            per_peer: raw.per_peer,
            queue: raw.queue,
        })
    }

    fn within(&self, key: &str, value: u64, least: u64, most: u64) -> Result<(), ConfigError> {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        Err(self.value(
            key,
            format!("{value} is out of range"),
            format!("use {least} to {most}"),
        ))
    }

    /// Promise 1: one purpose a key, and no key of the RA in the CA's token.
    fn keys_have_one_purpose(&self, raw: &raw::Config) -> Result<(), ConfigError> {
        let mut uses: Vec<(String, &str)> = vec![
            ("ra.decryption_key".into(), &raw.ra.decryption_key),
            ("ra.signing_key".into(), &raw.ra.signing_key),
            ("challenge.key".into(), &raw.challenge.key),
            ("audit.key".into(), &raw.audit.key),
        ];
        uses.extend(
            raw.ca
                .iter()
                .filter_map(|ca| Some((format!("ca \"{}\", key", ca.id), ca.key.as_deref()?))),
        );
        let mut seen = BTreeSet::new();
        for (at, name) in &uses {
            let pinned = raw
                .key
                .iter()
                .find(|key| key.name == *name)
                .map(|key| (&key.token, &key.id));
            if !seen.insert(pinned) {
                return Err(self.value(
                    at,
                    "this key serves another purpose too",
                    "give each purpose a key of its own",
                ));
            }
        }
        let token_of = |name: &str| {
            raw.key
                .iter()
                .find(|key| key.name == name)
                .map(|key| &key.token)
        };
        let ra = token_of(&raw.ra.decryption_key);
        if token_of(&raw.ra.signing_key) != ra {
            return Err(self.value(
                "ra.signing_key",
                "is in another token than ra.decryption_key",
                "keep both RA keys in the RA's token",
            ));
        }
        let foreign = uses.iter().skip(2).find(|(_, name)| token_of(name) == ra);
        if let Some((at, _)) = foreign {
            return Err(self.value(
                at,
                "is in the RA's token",
                "keep CA, challenge and audit keys in a token that the RA cannot open",
            ));
        }
        Ok(())
    }

    fn sockets_fit(&self, config: &Config) -> Result<(), ConfigError> {
        let longest = SOCKETS
            .iter()
            .map(|(_, name)| config.socket(name))
            .max_by_key(|p| p.as_os_str().len());
        match longest {
            Some(path) if path.as_os_str().len() > MAX_SOCKET_PATH => Err(self.value(
                "appliance.run",
                format!(
                    "socket paths such as {} exceed {MAX_SOCKET_PATH} octets",
                    path.display()
                ),
                "choose a shorter folder",
            )),
            _ => Ok(()),
        }
    }
}

//! The module: loaded and initialised once a process, and its tokens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as CryptokiError, RvError};
use cryptoki::slot::{Limit, Slot, TokenInfo as RawTokenInfo};

use crate::context::{TokenConfig, TokenInfo};
use crate::error::{OpenError, TokenError};

/// The modules that this process has initialised, by their canonical paths. They are never
/// finalised: with several libraries' exit handlers behind them that is where modules crash, and
/// the process ends anyway. The lock is held while slots are listed as well, since modules may
/// build that list as they are asked for it, and while a free slot is chosen and initialised.
static MODULES: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// The modules, and the sole right to list their slots.
pub(crate) struct Modules(MutexGuard<'static, BTreeMap<PathBuf, Pkcs11>>);

impl Modules {
    pub(crate) fn lock() -> Self {
        Self(MODULES.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Loads and initialises a module, unless this process has done so already.
    pub(crate) fn load(&mut self, path: &Path) -> Result<Pkcs11, CryptokiError> {
        let key = canonical(path);
        if let Some(module) = self.0.get(&key) {
            return Ok(module.clone());
        }
        let module = Pkcs11::new(path)?;
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(CryptokiError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(error),
        }
        self.0.insert(key, module.clone());
        Ok(module)
    }

    /// The slots with a token that can be described. One that cannot is left out: it must not keep
    /// the others from being used.
    pub(crate) fn tokens(
        &self,
        module: &Pkcs11,
    ) -> Result<Vec<(Slot, RawTokenInfo)>, CryptokiError> {
        let slots = module.get_slots_with_token()?;
        Ok(slots
            .into_iter()
            .filter_map(|slot| Some((slot, module.get_token_info(slot).ok()?)))
            .collect())
    }
}

/// The one token that a configuration means, found but not logged in to.
pub(crate) struct Connection {
    pub(crate) module: Pkcs11,
    /// The module's file, canonical.
    pub(crate) path: PathBuf,
    pub(crate) slot: Slot,
    pub(crate) info: TokenInfo,
}

impl Connection {
    pub(crate) fn open(config: &TokenConfig) -> Result<Self, OpenError> {
        let mut modules = Modules::lock();
        let module = modules
            .load(&config.module)
            .map_err(|error| OpenError::Module {
                token: config.name.clone(),
                path: config.module.clone(),
                cause: error.into(),
            })?;
        let present = modules
            .tokens(&module)
            .map_err(|error| TokenError::call(&config.name, error))?;
        drop(modules);

        let matching: Vec<_> = present
            .iter()
            .filter(|(_, info)| info.token_initialized() && info.label() == config.label.trim_end())
            .filter(|(_, info)| {
                config
                    .serial
                    .as_ref()
                    .is_none_or(|serial| info.serial_number() == serial)
            })
            .collect();
        match matching.as_slice() {
            [(slot, info)] => Ok(Self {
                module,
                path: canonical(&config.module),
                slot: *slot,
                info: describe(info),
            }),
            [] => Err(OpenError::NotFound {
                token: config.name.clone(),
                label: config.label.clone(),
                serial: config.serial.clone(),
                seen: listing(&present),
            }),
            _ => Err(OpenError::Ambiguous {
                token: config.name.clone(),
                label: config.label.clone(),
                seen: listing(&present),
            }),
        }
    }

    /// Why a PIN must not be tried after a login that was interrupted: the token has counted
    /// failures, or does not say whether it has.
    pub(crate) fn pin_doubt(&self) -> Option<&'static str> {
        match self.module.get_token_info(self.slot) {
            Err(_) => Some("the token does not say whether attempts failed"),
            Ok(info) if info.user_pin_locked() => Some("the token's PIN is locked"),
            Ok(info) if info.user_pin_final_try() => Some("the token grants one last attempt"),
            Ok(info) if info.user_pin_count_low() => Some("the token counts failed attempts"),
            Ok(_) => None,
        }
    }
}

/// A module that is not in the file system (a bare library name) goes by the name given.
fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// What a token says about itself, in our own words.
pub(crate) fn describe(info: &RawTokenInfo) -> TokenInfo {
    let text =
        |text: &str| Some(text.trim_end_matches('\0').to_owned()).filter(|text| !text.is_empty());
    let firmware = info.firmware_version();
    TokenInfo {
        label: info.label().to_owned(),
        serial: info.serial_number().to_owned(),
        manufacturer: text(info.manufacturer_id()),
        model: text(info.model()),
        firmware: Some(format!("{}.{}", firmware.major(), firmware.minor())),
        max_sessions: match info.max_session_count() {
            Limit::Max(limit) => Some(limit),
            Limit::Unavailable | Limit::Infinite => None,
        },
    }
}

fn listing(tokens: &[(Slot, RawTokenInfo)]) -> String {
    let names: Vec<String> = tokens
        .iter()
        .filter(|(_, info)| info.token_initialized())
        .map(|(_, info)| {
            format!(
                "{:?} (serial number {:?})",
                info.label(),
                info.serial_number()
            )
        })
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

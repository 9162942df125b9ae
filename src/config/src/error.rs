//! What can be wrong with a configuration.

use std::path::PathBuf;

/// An error of the configuration: file, key, cause, remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}; name another file with --config or --dir", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is no TOML, a key is unknown or missing, or a value has the wrong type.
    #[error("{}: {source}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Line, key and cause.
        source: Box<toml::de::Error>,
    },
    /// A value is of the right type but cannot be used.
    #[error("{}: {key}: {cause}; {remedy}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key, with the name of its table.
        key: String,
        /// What is wrong.
        cause: String,
        /// What to do.
        remedy: String,
    },
}

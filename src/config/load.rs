//! Reading a recipe and changing single keys of it.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use super::{Config, Resize, upgrade};

/// Why a configuration is refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a recipe: the inner error quotes the line.
    #[error("{origin} is not a valid configuration:\n{toml}")]
    Parse {
        /// Which file or recipe, with its overrides.
        origin: String,
        /// Why. Not called `source`, since the message shows it already.
        toml: Box<toml::de::Error>,
    },
    /// `--set` without a value, or with a key that leads nowhere.
    #[error("--set {text}: {reason}")]
    Override {
        /// What was given.
        text: String,
        /// Why it can't be used.
        reason: String,
    },
    /// A value that can't work.
    #[error("{key}: {reason}")]
    Value {
        /// The dotted key.
        key: &'static str,
        /// Why it can't work.
        reason: String,
    },
    /// No such recipe.
    #[error("there is no recipe '{name}'; the recipes are {known}")]
    UnknownRecipe {
        /// What was given.
        name: String,
        /// All that exist.
        known: String,
    },
}

/// One `--set a.b=value`.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    key: String,
    value: toml::Value,
}

impl FromStr for Override {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error =
            |reason: &str| ConfigError::Override { text: text.into(), reason: reason.into() };
        let (key, value) = text
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
            .ok_or_else(|| error("expected KEY=VALUE, such as train.lr=0.005"))?;
        // A bare word is a string: `backbone.wiring=large` needs no quotes.
        let parsed = toml::from_str::<toml::Table>(&format!("v = {value}"))
            .ok()
            .and_then(|mut table| table.remove("v"))
            .unwrap_or_else(|| toml::Value::String(value.trim().into()));
        Ok(Self { key: key.trim().into(), value: parsed })
    }
}

impl Override {
    /// `key = value`, for flags of the command line that are short for a `--set`.
    pub fn new(key: &str, value: impl Into<toml::Value>) -> Self {
        Self { key: key.into(), value: value.into() }
    }

    /// `input.resize = resize`.
    pub fn resize(resize: Resize) -> Self {
        Self::new("input.resize", toml::Value::try_from(resize).expect("a plain enum becomes TOML"))
    }

    /// The same for a value of several keys.
    ///
    /// # Panics
    /// If it is none that TOML can hold: plain structs are.
    pub fn of(key: &str, value: &impl serde::Serialize) -> Self {
        let value = toml::Value::try_from(value).expect("plain structs become TOML");
        Self { key: key.into(), value }
    }

    /// What is wrong with it by itself, without the names of Rust's types.
    fn refused(&self, error: &toml::de::Error) -> ConfigError {
        let mut reason = error.message().trim().to_owned();
        for (kind, words) in [
            ("expected usize", "expected a whole number"),
            ("expected u64", "expected a whole number"),
            ("expected i64", "expected a whole number"),
            ("expected f64", "expected a number"),
            ("expected f32", "expected a number"),
            ("expected struct", "expected the section"),
        ] {
            reason = reason.replace(kind, words);
        }
        ConfigError::Override { text: self.to_string(), reason }
    }

    fn apply(&self, table: &mut toml::Table) -> Result<(), ConfigError> {
        let text = || self.to_string();
        let mut at = table;
        let mut parts = self.key.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                at.insert(part.into(), self.value.clone());
                return Ok(());
            }
            let Some(toml::Value::Table(inner)) = at.get_mut(part) else {
                let reason = format!("there is no section '{part}'");
                return Err(ConfigError::Override { text: text(), reason });
            };
            at = inner;
        }
        Err(ConfigError::Override { text: text(), reason: "the key is empty".into() })
    }
}

impl std::fmt::Display for Override {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

/// A recipe in today's form; what is none, or not TOML, stays for the reader to complain about.
fn of_today(text: &str) -> Cow<'_, str> {
    let Ok(mut json) = toml::from_str::<serde_json::Value>(text) else { return text.into() };
    if !upgrade::is_old(&json) {
        return text.into();
    }
    upgrade::upgrade(&mut json);
    toml::to_string(&json).map_or(text.into(), Into::into)
}

impl Config {
    /// The recipe as text.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("plain structs become TOML")
    }

    /// Reads a recipe file and applies `overrides` in order.
    pub fn from_file(path: &Path, overrides: &[Override]) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::from_toml(&text, &path.display().to_string(), overrides)
    }

    /// Reads a recipe; `origin` names it in errors.
    pub fn from_toml(
        text: &str,
        origin: &str,
        overrides: &[Override],
    ) -> Result<Self, ConfigError> {
        let parse = |source: toml::de::Error, origin: String| ConfigError::Parse {
            origin,
            toml: Box::new(source),
        };
        let text = &*of_today(text);
        // The text itself first, so that a mistake in the file is shown with its line.
        let plain: Self = toml::from_str(text).map_err(|e| parse(e, origin.into()))?;
        let config = if overrides.is_empty() {
            plain
        } else {
            let table: toml::Table = toml::from_str(text).map_err(|e| parse(e, origin.into()))?;
            let with = |overrides: &[Override]| -> Result<Result<Self, _>, ConfigError> {
                let mut table = table.clone();
                for change in overrides {
                    change.apply(&mut table)?;
                }
                // Through the text, for errors that quote what is wrong.
                let text = toml::to_string(&table).expect("a parsed table can be written");
                Ok(toml::from_str::<Self>(&text))
            };
            match with(overrides)? {
                Ok(config) => config,
                Err(error) => {
                    for change in overrides {
                        if let Err(error) = with(std::slice::from_ref(change))? {
                            return Err(change.refused(&error));
                        }
                    }
                    let keys: Vec<&str> = overrides.iter().map(|o| o.key.as_str()).collect();
                    return Err(parse(error, format!("{origin} with {} changed", keys.join(", "))));
                }
            }
        };
        config.check()?;
        Ok(config)
    }
}

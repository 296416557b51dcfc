//! Which source credentials are read from.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    Scheme,
    dir::DirectorySource,
    env::{EnvironmentSource, Variables},
    source::CredentialSource,
};
use crate::secret::Secret;

/// Where credentials come from, and of which scheme they have to be. Nothing has been read yet.
#[derive(Clone, Debug)]
pub struct Config {
    /// The source (`[credentials]`).
    pub source: SourceConfig,
    /// The scheme (`auth.scheme`); `None` for that of the values that are there.
    pub scheme: Option<Scheme>,
}

/// What makes a source.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// Variables of the environment, or the files that they name. Values that are variables never change; files may.
    Environment(Variables),
    /// The files of this directory: a mounted Secret.
    Directory(PathBuf),
}

impl SourceConfig {
    /// The credentials' variables of `environment`.
    pub fn environment(environment: &BTreeMap<String, Secret<String>>) -> Self {
        Self::Environment(Variables::new(environment))
    }

    /// The source. Nothing is read before its first load.
    pub fn open(&self) -> Box<dyn CredentialSource> {
        match self {
            Self::Environment(variables) => Box::new(EnvironmentSource::new(variables.clone())),
            Self::Directory(path) => Box::new(DirectorySource::new(path.clone())),
        }
    }
}

//! Loads the configuration, then the credentials from their source.
//!
//! The problems of both are reported in one list.

use super::preflight::{self, Findings};
use crate::{
    config::{self, Config, Inputs, InvalidConfig, Problem, Problems},
    credentials::{self, CredentialSource, Credentials, NOT_SET, Scheme, operator_outline},
    telemetry::logging::scrubber,
};

/// The configuration and the credentials that the process starts with.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The source of the credentials, which is followed for changes.
    pub source: Box<dyn CredentialSource>,
    /// The credentials; `None` if reading them needs the network, which may be down for any time.
    pub credentials: Option<Credentials>,
}

impl Loaded {
    /// Takes the credentials. If they have not been read because that needs the network, reads them now.
    ///
    /// # Errors
    ///
    /// Fails when they cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn read_credentials(&mut self) -> Result<Credentials, Problems> {
        match self.credentials.take() {
            Some(credentials) => Ok(credentials),
            None => read(self.source.as_mut(), self.config.credentials.scheme).await,
        }
    }
}

/// A configuration that is valid as far as can be checked without the network.
#[derive(Debug)]
pub struct Checked {
    /// The configuration.
    pub config: Config,
    /// The source of the credentials, worded to follow "from".
    pub source: String,
    /// The credentials; `None` if reading them needs the network.
    pub credentials: Option<Credentials>,
    /// The values that are set in the source, one line each.
    pub found: Vec<String>,
    /// Notes for the operator that do not prevent startup.
    pub notes: Vec<String>,
}

/// Loads the configuration, then the credentials from their source, unless that needs the network. Registers the credentials with the
/// scrubber.
///
/// # Errors
///
/// All problems of the configuration, of credentials on this machine, and of this machine's listeners and directories.
pub async fn load(inputs: &Inputs) -> Result<Loaded, Problems> {
    let config = configuration(inputs).await?;
    let mut source = config.credentials.source.open();
    let credentials = read_offline(source.as_mut(), config.credentials.scheme).await;
    let scheme = scheme_of(&credentials);
    let credentials = with_problems(credentials, preflight::inspect(&config, scheme).problems)?;
    Ok(Loaded { config, source, credentials })
}

/// Like [`load`], for `check`: returns a description of the credentials' source, and notes. Uses no network.
///
/// # Errors
///
/// The same as for [`load`].
pub async fn check(inputs: &Inputs) -> Result<Checked, Problems> {
    let config = configuration(inputs).await?;
    let mut source = config.credentials.source.open();
    let credentials = read_offline(source.as_mut(), config.credentials.scheme).await;
    let scheme = scheme_of(&credentials);
    let Findings { problems, notes } = preflight::inspect(&config, scheme);
    let credentials = with_problems(credentials, problems)?;
    let outline = source.outline().into_iter().chain(operator_outline(inputs.environment.variables()));
    let found = outline.filter(|line| !line.ends_with(NOT_SET)).collect();
    Ok(Checked { config, source: source.description(), credentials, found, notes })
}

/// The scheme of the credentials, if they have been read.
fn scheme_of(credentials: &Result<Option<Credentials>, Problems>) -> Option<Scheme> {
    credentials.as_ref().ok()?.as_ref().map(|credentials| credentials.scheme)
}

/// Adds the problems in `more` to `outcome`.
fn with_problems<T>(outcome: Result<T, Problems>, more: Vec<Problem>) -> Result<T, Problems> {
    match outcome {
        Ok(value) if more.is_empty() => Ok(value),
        Ok(_) => Err(Problems(more)),
        Err(Problems(mut problems)) => {
            problems.extend(more);
            Err(Problems(problems))
        }
    }
}

/// Loads the configuration. If it is invalid, also reports the problems of the credentials, unless reading them needs the network.
async fn configuration(inputs: &Inputs) -> Result<Config, Problems> {
    let InvalidConfig { mut problems, credentials } = match config::load(inputs) {
        Ok(config) => return Ok(config),
        Err(invalid) => invalid,
    };
    if let Some(credentials) = credentials {
        let more = read_offline(credentials.source.open().as_mut(), credentials.scheme).await.err();
        problems.0.extend(more.into_iter().flat_map(|more| more.0));
    }
    Err(problems)
}

async fn read(source: &mut dyn CredentialSource, scheme: Option<Scheme>) -> Result<Credentials, Problems> {
    let credentials = credentials::load(source, scheme).await?;
    scrubber().register("the credentials", credentials.secrets());
    Ok(credentials)
}

/// Reads the credentials. `None` if that needs the network.
async fn read_offline(
    source: &mut dyn CredentialSource,
    scheme: Option<Scheme>,
) -> Result<Option<Credentials>, Problems> {
    if source.uses_network() {
        return Ok(None);
    }
    read(source, scheme).await.map(Some)
}

#[cfg(test)]
mod tests {
    use std::future;

    use futures_util::future::BoxFuture;

    use super::*;
    use crate::credentials::{Field, Problem as CredentialProblem, Values};

    /// A source without values.
    #[derive(Debug)]
    struct Empty {
        uses_network: bool,
    }

    impl CredentialSource for Empty {
        fn kind(&self) -> &'static str {
            "empty"
        }

        fn description(&self) -> String {
            "nowhere".to_owned()
        }

        fn uses_network(&self) -> bool {
            self.uses_network
        }

        fn load(&mut self) -> BoxFuture<'_, Result<Values, CredentialProblem>> {
            Box::pin(future::ready(Ok(Values::new())))
        }

        fn missing(&self, field: Field) -> CredentialProblem {
            CredentialProblem::Missing(field.file_name().to_owned(), "add it".to_owned())
        }

        fn changed(&mut self) -> BoxFuture<'_, Result<(), CredentialProblem>> {
            Box::pin(future::pending())
        }
    }

    #[tokio::test]
    async fn a_check_reads_no_network_source() {
        assert!(read_offline(&mut Empty { uses_network: true }, None).await.unwrap().is_none());
        let problems = read_offline(&mut Empty { uses_network: false }, None).await.unwrap_err();
        assert_eq!(problems.0.len(), 3, "{problems}");
    }

    #[tokio::test]
    async fn problems_of_credentials_and_keys_are_one_list() {
        let environment = [("FINICITY__AUTH__SCOPE", "\t"), ("FINICITY_ADMIN_TOKEN", "short")].into_iter().collect();
        let inputs = Inputs { environment, ..Inputs::default() };
        for problems in [load(&inputs).await.unwrap_err(), check(&inputs).await.unwrap_err()] {
            let text = problems.to_string();
            assert_eq!(text.lines().count(), 5, "{text}");
            for part in [
                "auth.scope",
                "FINICITY_ADMIN_TOKEN has fewer",
                "FINICITY_CLIENT_ID is not set",
                "FINICITY_CLIENT_SECRET is not set",
                "FINICITY_APP_KEY is not set",
            ] {
                assert!(text.contains(part), "{part} is not in\n{text}");
            }
        }
    }

    #[tokio::test]
    async fn an_incomplete_source_does_not_fall_back_to_another() {
        let environment = [("FINICITY__CREDENTIALS__SOURCE", "dir")].into_iter().collect();
        let problems = load(&Inputs { environment, ..Inputs::default() }).await.unwrap_err().to_string();
        assert!(problems.starts_with("credentials.dir (set by ") && problems.lines().count() == 1, "{problems}");
    }
}

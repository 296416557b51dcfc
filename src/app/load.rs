//! From the operator's inputs to what the process starts with: the configuration first, then the credentials from their source.
//!
//! Both are reported together: all that is wrong with either is one list of problems.

use super::preflight::{self, Findings};
use crate::{
    config::{self, Config, Inputs, InvalidConfig, Problem, Problems},
    credentials::{self, CredentialSource, Credentials, NOT_SET, Scheme, operator_outline},
    telemetry::logging::scrubber,
};

/// What the process starts with.
#[derive(Debug)]
pub struct Loaded {
    /// What was configured.
    pub config: Config,
    /// Where the credentials came from, to be followed from now on.
    pub source: Box<dyn CredentialSource>,
    /// The credentials of this moment; `None` where reading them uses a network, which may take as long as that is down.
    pub credentials: Option<Credentials>,
}

impl Loaded {
    /// The credentials, which are read now where that uses a network.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is lost when it is dropped.
    pub async fn read_credentials(&mut self) -> Result<Credentials, Problems> {
        match self.credentials.take() {
            Some(credentials) => Ok(credentials),
            None => read(self.source.as_mut(), self.config.credentials.scheme).await,
        }
    }
}

/// A configuration that can run, as far as that can be known without a network.
#[derive(Debug)]
pub struct Checked {
    /// What was configured.
    pub config: Config,
    /// Where the credentials come from, as it follows the word "from".
    pub source: String,
    /// The credentials; `None` where reading them would need a network.
    pub credentials: Option<Credentials>,
    /// Which values are set in the source, one line each.
    pub found: Vec<String>,
    /// What an operator should know although it keeps nothing from starting.
    pub notes: Vec<String>,
}

/// Loads the configuration, and then the credentials from their source, unless that uses a network. From then on no output of this
/// process shows them.
///
/// # Errors
///
/// All problems at once, of the configuration, of credentials on this machine, and of what the start needs of this machine.
pub async fn load(inputs: &Inputs) -> Result<Loaded, Problems> {
    let config = configuration(inputs).await?;
    let mut source = config.credentials.source.open();
    let credentials = read_offline(source.as_mut(), config.credentials.scheme).await;
    let scheme = scheme_of(&credentials);
    let credentials = with_problems(credentials, preflight::inspect(&config, scheme).problems)?;
    Ok(Loaded { config, source, credentials })
}

/// As [`load`], without any network: credentials on this machine are read, and others are not.
///
/// # Errors
///
/// As those of [`load`].
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

/// The scheme of the credentials, as far as they have been read.
fn scheme_of(credentials: &Result<Option<Credentials>, Problems>) -> Option<Scheme> {
    credentials.as_ref().ok()?.as_ref().map(|credentials| credentials.scheme)
}

/// `outcome`, or an error where there are `more` problems.
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

/// The configuration. Where it cannot run, what is wrong with the credentials is added to its problems, unless that takes a network.
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

/// The credentials, or `None` where reading them would use a network.
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

    /// A source that uses a network, or does not. It holds nothing.
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
    async fn a_check_reads_no_source_that_uses_a_network() {
        assert!(read_offline(&mut Empty { uses_network: true }, None).await.unwrap().is_none());
        let problems = read_offline(&mut Empty { uses_network: false }, None).await.unwrap_err();
        assert_eq!(problems.0.len(), 3, "{problems}");
    }

    #[tokio::test]
    async fn credentials_and_keys_are_reported_together() {
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
    async fn no_other_source_is_read_for_one_that_is_not_named() {
        let environment = [("FINICITY__CREDENTIALS__SOURCE", "dir")].into_iter().collect();
        let problems = load(&Inputs { environment, ..Inputs::default() }).await.unwrap_err().to_string();
        assert!(problems.starts_with("credentials.dir (set by ") && problems.lines().count() == 1, "{problems}");
    }
}

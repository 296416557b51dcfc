//! `sandbox`: runs only the sandbox of the Finicity API, for a proxy in another process.

use std::{
    fs,
    net::SocketAddr,
    path::{self, Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use clap::Args;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::Value;

use super::{Sources, output::print};
use crate::{
    process::signal::StopSignals,
    sandbox::{CREDENTIALS, Config, Credentials, Sandbox},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:3443")]
    listen: SocketAddr,
    /// Host name for the certificate, in addition to localhost; the printed URL uses the first one; may be repeated
    #[arg(long, value_name = "HOST")]
    name: Vec<String>,
    /// Keep the CA in this directory and reuse it after a restart
    #[arg(long, value_name = "DIR", conflicts_with = "ca_file")]
    ca_dir: Option<PathBuf>,
    /// File to write the CA certificate to
    #[arg(long, value_name = "FILE", default_value = "sandbox-ca.pem")]
    ca_file: PathBuf,
    /// Lifetime of each token
    #[arg(long, default_value = "2h", value_parser = humantime::parse_duration)]
    token_lifetime: Duration,
    /// Number from which identifiers and histories are derived
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Load initial records from this file, in the format of `GET /sandbox/fixtures`
    #[arg(long, value_name = "FILE")]
    fixtures: Option<PathBuf>,
    /// Inject this fault from the start, in the format of `POST /sandbox/faults`; may be repeated
    #[arg(long, value_name = "JSON", value_parser = parse_json)]
    fault: Vec<Value>,
    /// Trust these CAs for webhook receivers, in addition to the public ones
    #[arg(long, value_name = "FILE")]
    webhook_ca_file: Option<PathBuf>,
}

fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("invalid JSON: {error}"))
}

/// Runs until a stop signal.
pub(super) async fn run(sources: Sources, arguments: Arguments) -> anyhow::Result<()> {
    sources.command_line_only("sandbox", &[])?;
    let mut signals = StopSignals::catch()?;
    let sandbox = Sandbox::start(&config(&arguments)?).await?;
    let ca_file = match &arguments.ca_dir {
        Some(folder) => absolute("--ca-dir", &folder.join("ca.pem"))?,
        None => {
            let file = absolute("--ca-file", &arguments.ca_file)?;
            fs::write(&file, sandbox.ca_pem())
                .with_context(|| format!("--ca-file: cannot write {}", file.display()))?;
            file
        }
    };
    print(introduction(&sandbox, arguments.name.first().map(String::as_str), &ca_file));
    signals.next().await;
    Ok(())
}

fn config(arguments: &Arguments) -> anyhow::Result<Config> {
    let read =
        |flag: &str, file: &Path| fs::read(file).with_context(|| format!("{flag}: cannot read {}", file.display()));
    let fixtures = arguments.fixtures.as_ref().map(|file| {
        let text = read("--fixtures", file)?;
        serde_json::from_slice(&text).with_context(|| format!("--fixtures: invalid JSON in {}", file.display()))
    });
    let webhook_roots = arguments.webhook_ca_file.as_ref().map_or(Ok(Vec::new()), |file| {
        let text = read("--webhook-ca-file", file)?;
        CertificateDer::pem_slice_iter(&text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| anyhow!("--webhook-ca-file: invalid PEM in {}", file.display()))
    })?;
    Ok(Config {
        listen: arguments.listen,
        token_lifetime: arguments.token_lifetime,
        names: arguments.name.clone(),
        ca_dir: arguments.ca_dir.clone(),
        seed: arguments.seed,
        fixtures: fixtures.transpose()?,
        faults: arguments.fault.clone(),
        webhook_roots,
    })
}

fn absolute(flag: &str, path: &Path) -> anyhow::Result<PathBuf> {
    path::absolute(path).with_context(|| format!("{flag}: invalid path {}", path.display()))
}

/// Shell commands that configure a proxy for `sandbox` by either scheme. `ca_file` holds the sandbox's CA; `name` is the host name for a
/// proxy on another machine. When all `export` lines are run, the last scheme applies.
fn introduction(sandbox: &Sandbox, name: Option<&str>, ca_file: &Path) -> String {
    let Credentials { client_id, client_secret, app_key } = CREDENTIALS;
    let export = |variables: &[(&str, &str)]| {
        let assignments: Vec<_> = variables.iter().map(|(name, value)| format!("{name}={}", quote(value))).collect();
        format!("export {}", assignments.join(" "))
    };
    let url = name.map_or_else(|| sandbox.url(), |name| format!("https://{name}:{}", sandbox.address().port()));
    format!(
        "the sandbox listens on {}; to use it, configure a proxy with\n\n{}\n{}\n\nand, for OAuth 2.0,\n\n{}\n\nor, for partner \
         authentication,\n\n{}\n\nthen run\n\nfinicity-proxy serve\n",
        sandbox.address(),
        export(&[("FINICITY__UPSTREAM__URL", &url), ("FINICITY_APP_KEY", app_key)]),
        export(&[("FINICITY__UPSTREAM__CA_FILE", &ca_file.display().to_string())]),
        export(&[
            ("FINICITY__AUTH__SCHEME", "oauth2"),
            ("FINICITY_CLIENT_ID", client_id),
            ("FINICITY_CLIENT_SECRET", client_secret),
        ]),
        export(&[
            ("FINICITY__AUTH__SCHEME", "partner"),
            ("FINICITY_PARTNER_ID", client_id),
            ("FINICITY_PARTNER_SECRET", client_secret),
        ]),
    )
}

/// `text` as one word of a POSIX shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

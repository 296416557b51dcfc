//! `demo`: runs the proxy in front of the sandbox, so that a newcomer can watch it and send requests.

mod transcript;

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use tokio::select;

use super::{Sources, output::print, serve};
use crate::{
    app::{self, App, Loaded},
    config::{Environment, Inputs},
    process::signal::StopSignals,
    sandbox::{self, CREDENTIALS, Sandbox},
    server::Address,
    telemetry::logging::{self, Output},
    token::TokenReader,
};

/// Short enough that the first refresh happens within a minute.
const TOKEN_LIFETIME: Duration = Duration::from_secs(40);

/// The sections that `--set` accepts keys of. The demo itself sets everything about credentials, the upstream and the administrator.
const SECTIONS: [&str; 7] = ["guard", "limits", "listen", "log", "policy", "runtime", "shutdown"];

/// Any free port, for `--once`: the demo itself is the only client.
const ANY_PORT: &str = "127.0.0.1:0";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Send three requests, show what each side received, and exit
    #[arg(long)]
    once: bool,
    /// Authentication scheme by which the proxy obtains tokens
    #[arg(long, value_enum, default_value_t = Scheme::Oauth2)]
    scheme: Scheme,
}

/// The values of `auth.scheme`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scheme {
    Oauth2,
    Partner,
}

/// Runs until Ctrl-C, or with `--once` until it has sent its own requests.
///
/// Uses the credentials and the address of the sandbox. Reads neither the environment nor a configuration file, so the user's
/// credentials are never used.
pub(super) async fn run(sources: Sources, arguments: Arguments) -> anyhow::Result<()> {
    let mut inputs = sources.command_line_only("demo", &SECTIONS)?;
    let mut signals = StopSignals::catch()?;
    let sandbox =
        Sandbox::start(&sandbox::Config { token_lifetime: TOKEN_LIFETIME, ..sandbox::Config::default() }).await?;
    if arguments.once {
        for key in ["listen.proxy", "listen.ops", "listen.admin"] {
            inputs.flags.insert(0, (key.to_owned(), ANY_PORT.to_owned()));
        }
    }
    let loaded = configure(inputs, &sandbox, &arguments).await?;
    logging::init(&loaded.config.log, Output::Stderr)?;
    let app = App::start(loaded).await?;
    app.token().wait().await.context("cannot obtain a token from the sandbox")?;

    if arguments.once {
        let tcp = app.addresses().proxy.iter().find_map(Address::tcp);
        let proxy = tcp.context("`demo --once` sends its requests over TCP: set listen.proxy to a TCP address")?;
        let is_as_expected = transcript::three_calls(proxy, &sandbox, arguments.scheme).await?;
        app.run(std::future::ready("done"), std::future::pending()).await?;
        return if is_as_expected { Ok(()) } else { Err(anyhow!("the demo did not run as expected")) };
    }
    print(introduction(&app));
    let token = app.token().clone();
    select! {
        outcome = serve::run_until_stopped(app, &mut signals) => outcome,
        never = print_refreshes(token) => never,
    }
}

async fn configure(mut inputs: Inputs, sandbox: &Sandbox, arguments: &Arguments) -> anyhow::Result<Loaded> {
    let (scheme, id, secret) = match arguments.scheme {
        Scheme::Oauth2 => ("oauth2", "FINICITY_CLIENT_ID", "FINICITY_CLIENT_SECRET"),
        Scheme::Partner => ("partner", "FINICITY_PARTNER_ID", "FINICITY_PARTNER_SECRET"),
    };
    inputs.environment = Environment::from_iter([
        (id, CREDENTIALS.client_id),
        (secret, CREDENTIALS.client_secret),
        ("FINICITY_APP_KEY", CREDENTIALS.app_key),
    ]);
    inputs.flags.push(("auth.scheme".to_owned(), scheme.to_owned()));
    inputs.flags.insert(0, ("log.format".to_owned(), "human".to_owned()));
    if arguments.once {
        // Log lines would interrupt the transcript.
        inputs.flags.insert(0, ("log.level".to_owned(), "warn".to_owned()));
    }
    inputs.flags.push(("upstream.url".to_owned(), sandbox.url()));
    let mut loaded = app::load(&inputs).await?;
    loaded.config.is_demo = true;
    loaded.config.tls.public_roots = false;
    loaded.config.tls.extra_roots.push(sandbox.ca());
    Ok(loaded)
}

/// Prints a line for every new token. Never ends.
async fn print_refreshes(mut token: TokenReader) -> anyhow::Result<()> {
    let mut version = token.version();
    loop {
        token.changed().await;
        if token.version() > version {
            version = token.version();
            print(format_args!("*** token refreshed in the background: now version {version}; no request waited"));
        }
    }
}

fn introduction(app: &App) -> String {
    let first = |addresses: &[Address]| match &addresses[0] {
        Address::Tcp(address) => format!("http://{address}"),
        Address::Unix(path) => format!("--unix-socket {} http://localhost", path.display()),
    };
    let (proxy, ops, admin) =
        (first(&app.addresses().proxy), first(&app.addresses().ops), first(&app.addresses().admin));
    let lifetime = TOKEN_LIFETIME.as_secs();
    format!(
        "\nThe proxy runs in front of a sandbox of the Finicity API. In another terminal, without credentials:

  curl {proxy}/aggregation/v1/customers
  curl {proxy}/aggregation/v1/customers/1005061234/accounts
  curl -X POST {proxy}/aggregation/v2/customers/testing -d '{{\"username\":\"me\"}}'

and, for operators:

  curl '{ops}/readyz?verbose'
  curl {ops}/metrics
  curl {admin}/api/status

Tokens expire after {lifetime} s here. The output below shows the first refresh within a minute, and one line for each request.
Press Ctrl-C to stop.
"
    )
}

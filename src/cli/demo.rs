//! `demo`: the main job on the sandbox, for a newcomer to see and to type at.

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

/// Short enough that a refresh is seen within the first minute.
const TOKEN_LIFETIME: Duration = Duration::from_secs(40);

/// The sections whose keys `--set` may set. Whatever concerns credentials, the upstream or the administrator is the demo's own.
const SECTIONS: [&str; 7] = ["guard", "limits", "listen", "log", "policy", "runtime", "shutdown"];

/// Any free port: what `--once` listens on, since it is its own caller.
const ANY_PORT: &str = "127.0.0.1:0";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Make three calls, show what each side saw, and exit
    #[arg(long)]
    once: bool,
    /// How the proxy obtains its tokens
    #[arg(long, value_enum, default_value_t = Scheme::Oauth2)]
    scheme: Scheme,
}

/// The schemes, as `auth.scheme` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scheme {
    Oauth2,
    Partner,
}

/// Runs until Ctrl-C, or with `--once` until its own calls are made.
///
/// Credentials and upstream are the sandbox's. Neither the environment nor a configuration file is read, so that nothing of the
/// user's is touched.
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
    app.token().wait().await.context("the sandbox gave no token")?;

    if arguments.once {
        let tcp = app.addresses().proxy.iter().find_map(Address::tcp);
        let proxy = tcp.context("demo --once makes its calls over TCP: listen.proxy names no such address")?;
        let is_as_expected = transcript::three_calls(proxy, &sandbox, arguments.scheme).await?;
        app.run(std::future::ready("done"), std::future::pending()).await?;
        return if is_as_expected { Ok(()) } else { Err(anyhow!("the demo did not go as it should")) };
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
        // Log lines between those of the transcript would make it unreadable.
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
            print(format_args!(
                "*** the token was refreshed in the background: this is version {version}; no request waited"
            ));
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
        "\nThe proxy runs in front of a fake Finicity. In another terminal, without any credential:

  curl {proxy}/aggregation/v1/customers
  curl {proxy}/aggregation/v1/customers/1005061234/accounts
  curl -X POST {proxy}/aggregation/v2/customers/testing -d '{{\"username\":\"me\"}}'

and what an operator looks at:

  curl '{ops}/readyz?verbose'
  curl {ops}/metrics
  curl {admin}/api/status

A token lives {lifetime} s here; below you see it being refreshed within the first minute, and a line for each request.
Ctrl-C ends the demo.
"
    )
}

//! The page of a link: choose a bank, agree, then Done or Cancel. Plain forms, no JavaScript.

use serde_json::Value;

use super::super::{
    institutions::BANKS,
    received::Received,
    reply::{Before, HTML, Reply, escape},
    state::SandboxState,
    value::Record as _,
};
use super::{bank_of, complete, usable, visit};

/// Handles a visit of the page and its form. Webhooks are sent before the response, so they are delivered when the browser loads the
/// next page.
pub(in super::super) fn respond(state: &SandboxState, received: &Received) -> Reply {
    let query = received.query();
    let value = |name: &str| query.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
    let (seed, signature) = (value("seed"), value("signature"));
    let form: Vec<(String, String)> = match received.parts.method == http::Method::POST {
        true => form_urlencoded::parse(&received.bytes).into_owned().collect(),
        false => Vec::new(),
    };
    let field = |name: &str| form.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let step = state.with(seed, |world| {
        let link = match usable(world, signature) {
            Ok(link) => link,
            Err(reason) => return (message(403, "This link cannot be used", reason), Vec::new()),
        };
        match field("action") {
            None => {
                let webhooks = visit(world, signature, &link);
                (choose(&link, received.parts.uri.query().unwrap_or(""), None), webhooks)
            }
            Some("cancel") => (finished(&link, "cancel"), Vec::new()),
            Some(_) => {
                let bank = bank_of(world, &link, field("institution"));
                match bank {
                    Some(bank) if field("consent").is_some() => {
                        let completed = complete(world, signature, &link, bank);
                        (finished(&link, "complete"), completed.webhooks)
                    }
                    Some(_) => (form_with(&link, received, "Please agree to share the data."), Vec::new()),
                    None => (form_with(&link, received, "Please choose a bank."), Vec::new()),
                }
            }
        }
    });
    match step {
        Ok((reply, webhooks)) => Reply { before: Before::Events { webhooks, body: None }, ..reply },
        Err(error) => message(400, "This link cannot be used", error),
    }
}

fn form_with(link: &Value, received: &Received, problem: &str) -> Reply {
    choose(link, received.parts.uri.query().unwrap_or(""), Some(problem))
}

/// The response at the end of a flow: a redirect to `redirectUri` if the link has one, else a closing page.
fn finished(link: &Value, reason: &str) -> Reply {
    match link.at("redirectUri").as_str().filter(|uri| !uri.is_empty()) {
        Some(uri) => {
            let separator = if uri.contains('?') { '&' } else { '?' };
            let code = if reason == "complete" { 200 } else { 100 };
            Reply {
                status: 303,
                location: Some(format!("{uri}{separator}code={code}&reason={reason}")),
                ..Reply::default()
            }
        }
        None if reason == "complete" => message(200, "Done", "The accounts are connected. You can close this page."),
        None => message(200, "Cancelled", "Nothing was connected. You can close this page."),
    }
}

/// The form, with the banks to choose from unless the link determines the bank.
fn choose(link: &Value, query: &str, problem: Option<&str>) -> Reply {
    let banks = if link.at("kind") == "aggregation" {
        let rows = BANKS.iter().map(|bank| {
            format!(
                "<label><input type=\"radio\" name=\"institution\" value=\"{}\"> {}</label>\n",
                bank.id,
                escape(bank.name)
            )
        });
        format!("<fieldset><legend>Your bank</legend>\n{}</fieldset>", rows.collect::<String>())
    } else {
        String::new()
    };
    let problem = problem
        .map(|problem| format!("<p role=\"alert\"><strong>{}</strong></p>", escape(problem)))
        .unwrap_or_default();
    let body = format!(
        "{problem}<form method=\"post\" action=\"/sandbox/connect?{}\">\n{banks}\n<p><label><input type=\"checkbox\" name=\"consent\" \
         value=\"yes\"> I agree to share the data of my accounts.</label></p>\n<p><button name=\"action\" value=\"done\">Done</button> \
         <button name=\"action\" value=\"cancel\">Cancel</button></p>\n</form>",
        escape(query)
    );
    page(200, "Connect your accounts", &body)
}

fn message(status: u16, title: &str, text: &str) -> Reply {
    page(status, title, &format!("<p>{}</p>", escape(text)))
}

fn page(status: u16, title: &str, body: &str) -> Reply {
    let title = escape(title);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:3rem auto;padding:0 1rem}}\
         label{{display:block}}</style></head>\n<body><h1>{title}</h1>\n{body}\n<p><small>finicity-proxy sandbox. No bank is called.\
         </small></p></body></html>\n"
    );
    Reply::bytes(status, HTML, html.into_bytes())
}

//! `docs/configuration.md`.

use super::{super::Definition, as_text, example};

const INTRODUCTION: &str = r#"# Configuration

<!-- Made from config/default.toml and src/config by `UPDATE=1 cargo test --lib definition`; edit those. -->

Every key has a default, so set only what differs. A key can be set in these places, in increasing order of precedence:

1. the built-in default;
2. a default of the container image: `FINICITY_IMAGE__LIMITS__QUEUE=256`;
3. a TOML file, named by `--config FILE` or by `FINICITY_CONFIG`;
4. the environment: `FINICITY__LIMITS__QUEUE=256`, with two underscores between the parts of the key;
5. the command line: `--set limits.queue=256`.

Outside TOML, list items are separated by commas. A duration is a number with a unit (`500ms`, `30s`, `5m`, `2h`). Line breaks at the end
of a value are ignored. If a key is unknown, or a value has the wrong type or is out of bounds, the proxy does not start: it prints all
errors and exits with 78.

| command | what it does |
|---|---|
| `finicity-proxy config init` | writes `finicity-proxy.toml` with every key commented out, and its description |
| `finicity-proxy config explain limits.queue` | shows one key as below, with its current value and the source that set it |
| `finicity-proxy config` | shows the effective configuration, with the source of each value |
| `finicity-proxy config --changed` | shows only the keys that differ from their defaults |
| `finicity-proxy check` | validates the configuration, the credentials and this machine without calling the vendor |

[config.schema.json](config.schema.json) is a JSON Schema for the TOML file. Editors with the Taplo language server use it if the file
begins with `#:schema` and the path or URL of the schema. It checks names, types and bounds; the bounds of a duration only if it consists
of one number and one unit. The proxy checks more, such as whether a URL has a host.

Secrets are not configuration keys. `credentials.source` selects where they come from; the head of
[`config/default.toml`](../config/default.toml) lists their names.
"#;

/// The page.
pub(super) fn markdown(definitions: &[Definition]) -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut last = "";
    for one in definitions {
        let (section, _) = one.key.rsplit_once('.').unwrap();
        if section != last {
            page += &format!("\n## `[{section}]`\n");
            last = section;
        }
        let example = example(one);
        page += &format!(
            "\n### `{}`\n\n{}\n\n- type: {}\n- default: `{}`\n- example: `{}`\n- variable: `{}={}`\n",
            one.key,
            escaped(&one.doc),
            escaped(&one.kind.to_string()),
            one.default,
            one.example.as_ref().unwrap_or(&one.default),
            one.variable(),
            as_text(&example),
        );
    }
    page
}

/// `text` with Markdown's special characters escaped, except inside backticks.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    let mut is_code = false;
    for character in text.chars() {
        is_code ^= character == '`';
        if !is_code && matches!(character, '*' | '_' | '<' | '[' | ']') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

//! `docs/configuration.md`.

use super::{super::Definition, as_text, example};

const INTRODUCTION: &str = r#"# Configuration

<!-- Made from config/default.toml and src/config by `UPDATE=1 cargo test --lib definition`; edit those. -->

Every key has a default, so a configuration holds only what differs. A key is set in one of these places; a later one overrides an
earlier one:

1. the built-in default;
2. a default of the container image: `FINICITY_IMAGE__LIMITS__QUEUE=256`;
3. a TOML file, named by `--config FILE` or by `FINICITY_CONFIG`;
4. the environment: `FINICITY__LIMITS__QUEUE=256`, with two underscores between the parts of the key;
5. the command line: `--set limits.queue=256`.

Lists are separated by commas outside TOML. A duration is a number with a unit (`500ms`, `30s`, `5m`, `2h`). Line breaks at the end of
a value are ignored. An unknown key, a wrong type and a value out of bounds are errors: the proxy does not start, exits with 78 and
lists all of them.

| command | what it does |
|---|---|
| `finicity-proxy config init` | writes `finicity-proxy.toml` with every key and its comment, in which no key is set |
| `finicity-proxy config explain limits.queue` | shows one key as below, and its present value with the place that set it |
| `finicity-proxy config` | shows every key in effect with the place that set it |
| `finicity-proxy config --changed` | shows only the keys that differ from their defaults |
| `finicity-proxy check` | checks the configuration, the credentials and this machine without calling the vendor |

[config.schema.json](config.schema.json) is a JSON Schema of the TOML file. Editors with the Taplo language server use it when the
file begins with `#:schema` and the schema's path or URL. It checks names, types and bounds; the proxy checks more, such as whether a
URL has a host. The schema checks the bounds of durations of one number and one unit.

Secrets are no keys. `credentials.source` says where they come from, and [`config/default.toml`](../config/default.toml) what they are called.
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

/// `text` without the meaning that its characters have in Markdown, but for code in backticks.
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

//! What the files say: inventory, checks, playbooks. Pure and synchronous.

pub mod axis;
pub mod check;
pub mod document;
pub mod endpoint;
pub mod inventory;
pub mod lint;
pub mod load;
pub mod near;
pub mod note;
pub mod playbook;
pub mod template;
pub mod text_file;

pub use axis::Axis;
pub use check::{CheckDef, ExpectDef};
pub use document::{Document, Finding};
pub use endpoint::Endpoint;
pub use inventory::Inventory;
pub use load::{Catalog, Sources};
pub use playbook::{Cause, Playbook};
pub use template::Template;

use crate::check::Scope;

/// Fills `${..}` in the arguments of a probe; a template that is a single expression keeps the expression's type.
pub(crate) fn load_with(with: &toml::Table, scope: &Scope) -> Result<toml::Table, String> {
    with.iter()
        .map(|(key, value)| Ok((key.clone(), fill(value, scope).map_err(|e| format!("{key}: {e}"))?)))
        .filter(|r| !matches!(r, Ok((_, toml::Value::String(s))) if s == ABSENT))
        .collect()
}

/// Stands for an argument whose expression is null: it is left out, so that the probe's default applies.
const ABSENT: &str = "\u{0}absent";

fn fill(value: &toml::Value, scope: &Scope) -> Result<toml::Value, String> {
    match value {
        toml::Value::String(text) => to_toml(Template::plan(text)?.value(scope)?),
        toml::Value::Array(items) => items.iter().map(|v| fill(v, scope)).collect::<Result<_, _>>().map(toml::Value::Array),
        other => Ok(other.clone()),
    }
}

fn to_toml(value: serde_json::Value) -> Result<toml::Value, String> {
    if value.is_null() {
        return Ok(toml::Value::String(ABSENT.to_owned()));
    }
    toml::Value::try_from(value).map_err(|e| e.to_string())
}

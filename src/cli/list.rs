//! `fathom list`: checks, playbooks and probe kinds.

use super::session::load;
use super::{Common, Format, OutputArgs, output};
use crate::def::Catalog;
use crate::probe::KINDS;
use crate::report::layer_name;
use anyhow::Result;
use serde_json::json;
use std::fmt::Write;

pub(super) fn run(common: &Common, how: OutputArgs) -> Result<u8> {
    let catalog = load(common)?;
    let text = if how.format() == Format::Human { human(&catalog)? } else { format!("{:#}\n", as_json(&catalog)) };
    output::print(&text)?;
    Ok(0)
}

fn human(catalog: &Catalog) -> Result<String> {
    let mut out = String::new();
    for layer in 1..=4 {
        writeln!(out, "Layer {layer}: {}", layer_name(layer))?;
        for check in catalog.checks.iter().filter(|c| c.layer == layer) {
            writeln!(out, "  {:<24} {:<11} {}", check.id, check.kind.name, check.title_text)?;
        }
    }
    writeln!(out, "Playbooks")?;
    for playbook in &catalog.playbooks {
        writeln!(out, "  {:<24} {}", playbook.id, playbook.title)?;
        for cause in &playbook.causes {
            writeln!(out, "    {:<32} {}", cause.code, cause.title_text)?;
        }
    }
    writeln!(out, "Probe kinds")?;
    for kind in KINDS {
        writeln!(out, "  {:<24} {}", kind.name, kind.about)?;
    }
    Ok(out)
}

fn as_json(catalog: &Catalog) -> serde_json::Value {
    json!({
        "checks": catalog.checks.iter().map(|c| json!({"id": c.id, "layer": c.layer, "kind": c.kind.name, "title": c.title_text})).collect::<Vec<_>>(),
        "playbooks": catalog.playbooks.iter().map(|p| json!({
            "id": p.id, "title": p.title, "causes": p.causes.iter().map(|c| &c.code).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "kinds": KINDS.iter().map(|k| json!({
            "name": k.name, "about": k.about, "facts": k.facts.iter().map(|f| json!({"path": f.path, "unit": f.unit, "about": f.about})).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    })
}

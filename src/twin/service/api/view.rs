//! In what form objects are given out: whole, their metadata, or as rows of a table (`Accept: ..;as=Table`).

use super::table;
use crate::twin::cluster::Resource;
use serde_json::{Value, json};

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// The objects as they are.
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
    /// `Table`.
    Table(Include),
}

/// What a row of a table carries of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl View {
    /// The first form of an `Accept` header that is known.
    pub(super) fn of(accept: &str, include: Option<&str>) -> Self {
        let form = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            if !matches!(parts.next(), Some("application/json" | "*/*")) {
                return None;
            }
            match parts.find_map(|p| p.strip_prefix("as=")) {
                None => Some(Self::Whole),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Some(Self::Metadata),
                Some("Table") => Some(Self::Table(match include {
                    Some("None") => Include::Nothing,
                    Some("Object") => Include::Object,
                    _ => Include::Metadata,
                })),
                Some(_) => None,
            }
        };
        accept.split(',').find_map(form).unwrap_or(Self::Whole)
    }

    /// A list.
    pub(super) fn list(self, resource: Resource, metadata: &Value, objects: Vec<Value>) -> Value {
        let list =
            |kind: &str, api: &str, items: Vec<Value>| json!({"kind": kind, "apiVersion": api, "metadata": metadata, "items": items});
        match self {
            Self::Whole => list(&format!("{}List", resource.kind()), resource.api_version(), objects),
            Self::Metadata => {
                list("PartialObjectMetadataList", "meta.k8s.io/v1", objects.into_iter().map(|object| partial(&object, false)).collect())
            }
            Self::Table(include) => as_table(resource, metadata, objects.into_iter().map(|o| row(resource, o, include)).collect()),
        }
    }

    /// One object, by itself or in an event.
    pub(super) fn one(self, resource: Resource, object: Value) -> Value {
        match self {
            Self::Whole => typed(resource, &object),
            Self::Metadata => partial(&object, true),
            Self::Table(include) => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                as_table(resource, &metadata, vec![row(resource, object, include)])
            }
        }
    }

    /// The object of a bookmark: nothing but a version.
    pub(super) fn bookmark(self, resource: Resource, version: u64) -> Value {
        let metadata = json!({"resourceVersion": version.to_string(), "creationTimestamp": null});
        match self {
            Self::Table(_) => as_table(resource, &metadata, Vec::new()),
            Self::Metadata => partial(&json!({"metadata": metadata}), true),
            Self::Whole => typed(resource, &json!({"metadata": metadata})),
        }
    }
}

/// An object with its kind in front.
fn typed(resource: Resource, object: &Value) -> Value {
    let mut whole = json!({"kind": resource.kind(), "apiVersion": resource.api_version()});
    if let (Some(whole), Some(object)) = (whole.as_object_mut(), object.as_object()) {
        whole.extend(object.clone());
    }
    whole
}

fn partial(object: &Value, alone: bool) -> Value {
    let mut partial = if alone { json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}) } else { json!({}) };
    partial["metadata"] = object["metadata"].clone();
    partial
}

fn row(resource: Resource, object: Value, include: Include) -> Value {
    let mut row = json!({"cells": table::cells(resource, &object, chrono::Utc::now())});
    match include {
        Include::Nothing => {}
        Include::Metadata => row["object"] = partial(&object, true),
        Include::Object => row["object"] = typed(resource, &object),
    }
    row
}

fn as_table(resource: Resource, metadata: &Value, rows: Vec<Value>) -> Value {
    let column = |(name, priority): &(&str, u8)| {
        let format = if *name == "Name" { "name" } else { "" };
        json!({"name": name, "type": "string", "format": format, "description": "", "priority": priority})
    };
    let columns: Vec<Value> = table::columns(resource).iter().map(column).collect();
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows})
}

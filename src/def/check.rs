//! Check files: one check each, `checks/LAYER/ID.toml`.

use super::axis::Axis;
use super::document::{Document, Finding, Step};
use super::template::Template;
use crate::check::{Expr, Grade};
use crate::probe::Kind;
use serde::Deserialize;
use std::time::Duration;

/// A check as its file defines it, expressions compiled.
#[derive(Clone, Debug)]
pub struct CheckDef {
    /// Stable id.
    pub id: String,
    /// Title; `${..}` filled in per instance.
    pub title: Template,
    /// Title as written.
    pub title_text: String,
    /// Layer, 1 to 4.
    pub layer: u8,
    /// The kind of probe.
    pub kind: &'static Kind,
    /// What it is multiplied by.
    pub each: Vec<Axis>,
    /// Vantage id to run from.
    pub from: Template,
    /// Vantage id of the witness, if it wants one.
    pub witness: Option<Template>,
    /// Whether an instance is meaningful.
    pub when: Option<Expr>,
    /// The reason given where it is not.
    pub skip: Option<Template>,
    /// Why it runs only when it is asked for by name, if it does: what it would disturb.
    pub on_request: Option<String>,
    /// Instances that must pass first.
    pub needs: Vec<Template>,
    /// Why it matters.
    pub why: String,
    /// How a person would look.
    pub by_hand: Option<Template>,
    /// Where the documents state it.
    pub source: Option<String>,
    /// Deadline of the probe.
    pub timeout: Duration,
    /// Arguments of the probe, `${..}` not yet filled in.
    pub with: toml::Table,
    /// Expectations.
    pub expects: Vec<ExpectDef>,
    /// The file it came from.
    pub document: Document,
}

/// An expectation as written.
#[derive(Clone, Debug)]
pub struct ExpectDef {
    /// What must hold.
    pub that: Expr,
    /// Stable code.
    pub code: String,
    /// The sentence for when it does not hold.
    pub say: Template,
    /// Fail or warn.
    pub grade: Grade,
}

/// A list that may be written as a single element.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    pub(super) fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(x) => vec![x],
            Self::Many(xs) => xs,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    id: String,
    title: String,
    layer: u8,
    kind: String,
    each: Option<OneOrMany<Axis>>,
    from: String,
    witness: Option<String>,
    when: Option<String>,
    skip: Option<String>,
    on_request: Option<String>,
    #[serde(default)]
    needs: Vec<String>,
    why: String,
    by_hand: Option<String>,
    source: Option<String>,
    timeout_s: Option<f64>,
    #[serde(default)]
    with: toml::Table,
    expect: Vec<RawExpect>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawExpect {
    that: String,
    code: String,
    say: String,
    #[serde(default)]
    grade: Grade,
}

/// Longest deadline a check may ask for.
const MOST_SECONDS: f64 = 60.0;

impl CheckDef {
    /// Decodes a check file.
    pub fn decode(document: &Document) -> Result<Self, Vec<Finding>> {
        let raw: Raw = document.decode().map_err(|f| vec![f])?;
        let mut findings = Vec::new();
        let check = Self::build(raw, document, &mut findings);
        match check {
            Some(check) if findings.is_empty() => Ok(check),
            _ => Err(findings),
        }
    }

    fn build(raw: Raw, doc: &Document, findings: &mut Vec<Finding>) -> Option<Self> {
        let mut wrong = |steps: &[Step<'_>], message: String| findings.push(doc.finding(doc.line_of(steps), message));
        if !(1..=4).contains(&raw.layer) {
            wrong(&[Step::Key("layer")], format!("layer {} does not exist: layers are 1 to 4", raw.layer));
        }
        if raw.expect.is_empty() {
            wrong(&[Step::Key("expect")], "a check without expectations can never fail".into());
        }
        if raw.timeout_s.is_some_and(|s| !(0.1..=MOST_SECONDS).contains(&s)) {
            wrong(&[Step::Key("timeout_s")], format!("timeout_s must lie between 0.1 and {MOST_SECONDS}"));
        }
        let kind = Kind::find(&raw.kind);
        if kind.is_none() {
            let known: Vec<_> = crate::probe::KINDS.iter().map(|k| k.name).collect();
            wrong(&[Step::Key("kind")], format!("unknown probe kind `{}`; known are {}", raw.kind, known.join(", ")));
        }
        let mut template = |key: &'static str, text: &str| Template::plan(text).map_err(|e| wrong(&[Step::Key(key)], e)).ok();
        let title = template("title", &raw.title);
        let from = template("from", &raw.from);
        let witness = raw.witness.as_deref().map(|t| template("witness", t));
        let skip = raw.skip.as_deref().map(|t| template("skip", t));
        let by_hand = raw.by_hand.as_deref().map(|t| template("by_hand", t));
        let needs: Vec<_> = raw.needs.iter().filter_map(|t| template("needs", t)).collect();
        let when = raw.when.as_deref().and_then(|w| Expr::compile(w).map_err(|e| wrong(&[Step::Key("when")], e)).ok());
        let expects = build_expects(raw.expect, doc, findings);
        Some(Self {
            id: raw.id,
            title: title?,
            title_text: raw.title,
            layer: raw.layer,
            kind: kind?,
            each: raw.each.map(OneOrMany::into_vec).unwrap_or_default(),
            from: from?,
            witness: witness.flatten(),
            when,
            skip: skip.flatten(),
            on_request: raw.on_request,
            needs,
            why: raw.why,
            by_hand: by_hand.flatten(),
            source: raw.source,
            timeout: Duration::from_secs_f64(raw.timeout_s.unwrap_or(10.0).clamp(0.1, MOST_SECONDS)),
            with: raw.with,
            expects,
            document: doc.clone(),
        })
    }
}

fn build_expects(raw: Vec<RawExpect>, doc: &Document, findings: &mut Vec<Finding>) -> Vec<ExpectDef> {
    let mut expects = Vec::new();
    for (n, expect) in raw.into_iter().enumerate() {
        let mut wrong = |key: &str, message: String| {
            findings.push(doc.finding(doc.line_of(&[Step::Key("expect"), Step::At(n), Step::Key(key)]), message));
        };
        let that = Expr::compile(&expect.that).map_err(|e| wrong("that", e)).ok();
        let say = Template::say(&expect.say).map_err(|e| wrong("say", e)).ok();
        if let (Some(that), Some(say)) = (that, say) {
            expects.push(ExpectDef { that, code: expect.code, say, grade: expect.grade });
        }
    }
    expects
}

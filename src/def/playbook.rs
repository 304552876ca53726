//! Playbook files: a documented issue with its symptoms, checks, causes, fixes and verification.

use super::axis::Axis;
use super::check::OneOrMany;
use super::document::{Document, Finding, Step};
use super::template::Template;
use crate::check::Expr;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A playbook as its file defines it.
#[derive(Clone, Debug)]
pub struct Playbook {
    /// Stable id.
    pub id: String,
    /// Title.
    pub title: String,
    /// Where the documents describe it.
    pub source: String,
    /// Texts that users see: `fathom diagnose` matches them.
    pub symptoms: Vec<String>,
    /// Ids of its checks, in the order a person would look.
    pub checks: Vec<String>,
    /// Where the document is wrong, and what is right.
    pub corrections: Vec<String>,
    /// Causes.
    pub causes: Vec<Cause>,
    /// The file it came from.
    pub document: Document,
}

/// A hypothesis with supporting and refuting expressions over facts.
#[derive(Clone, Debug)]
pub struct Cause {
    /// Stable code; a heading of the fault catalogue where that names it.
    pub code: String,
    /// Title; `${..}` filled in per instance.
    pub title: Template,
    /// Title as written.
    pub title_text: String,
    /// Layer, 1 to 4.
    pub layer: u8,
    /// What it is multiplied by.
    pub each: Vec<Axis>,
    /// Whether an instance is meaningful.
    pub when: Option<Expr>,
    /// Names of check instances whose facts the expressions read.
    pub facts: BTreeMap<String, Template>,
    /// What must hold for its evidence to tell anything. Where one does not hold, the cause is untested, not refuted: something
    /// else stands before it.
    pub needs: Vec<Claim>,
    /// All must hold.
    pub supports: Vec<Claim>,
    /// Any one kills it.
    pub refutes: Vec<Claim>,
    /// Instances that fail because of it; `*` stands for any text.
    pub explains: Vec<Template>,
    /// What to do.
    pub fix: Vec<FixDef>,
    /// Checks that must pass afterwards.
    pub verify: Vec<Template>,
}

/// An expression with what it means.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The expression.
    pub that: Expr,
    /// What it means when it holds; for what a cause needs, when it does not.
    pub say: Template,
}

/// One step of a fix.
#[derive(Clone, Debug)]
pub struct FixDef {
    /// What to do.
    pub say: Template,
    /// The command.
    pub run: Option<Template>,
    /// Where.
    pub at: Option<Template>,
    /// What it may disturb.
    pub risk: Option<Template>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    id: String,
    title: String,
    source: String,
    symptoms: Vec<String>,
    checks: Vec<String>,
    #[serde(default)]
    corrections: Vec<String>,
    cause: Vec<RawCause>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCause {
    code: String,
    title: String,
    layer: u8,
    each: Option<OneOrMany<Axis>>,
    when: Option<String>,
    facts: BTreeMap<String, String>,
    #[serde(default)]
    needs: Vec<RawClaim>,
    supports: Vec<RawClaim>,
    #[serde(default)]
    refutes: Vec<RawClaim>,
    explains: Vec<String>,
    fix: Vec<RawFix>,
    verify: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClaim {
    that: String,
    say: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFix {
    say: String,
    run: Option<String>,
    at: Option<String>,
    risk: Option<String>,
}

impl Playbook {
    /// Decodes a playbook file.
    pub fn decode(document: &Document) -> Result<Self, Vec<Finding>> {
        let raw: Raw = document.decode().map_err(|f| vec![f])?;
        let mut reader = Reader { doc: document, findings: Vec::new(), cause: 0 };
        let causes = raw.cause.into_iter().enumerate().filter_map(|(n, c)| reader.cause(n, c)).collect();
        if !reader.findings.is_empty() {
            return Err(reader.findings);
        }
        Ok(Self {
            id: raw.id,
            title: raw.title,
            source: raw.source,
            symptoms: raw.symptoms,
            checks: raw.checks,
            corrections: raw.corrections,
            causes,
            document: document.clone(),
        })
    }
}

/// Compiles the causes of one file, collecting findings.
struct Reader<'a> {
    doc: &'a Document,
    findings: Vec<Finding>,
    cause: usize,
}

impl Reader<'_> {
    fn wrong(&mut self, key: &str, index: Option<usize>, message: String) {
        let mut steps = vec![Step::Key("cause"), Step::At(self.cause), Step::Key(key)];
        steps.extend(index.map(Step::At));
        self.findings.push(self.doc.finding(self.doc.line_of(&steps), message));
    }

    fn cause(&mut self, n: usize, raw: RawCause) -> Option<Cause> {
        self.cause = n;
        if !(1..=4).contains(&raw.layer) {
            self.wrong("layer", None, format!("layer {} does not exist: layers are 1 to 4", raw.layer));
        }
        if raw.supports.is_empty() {
            self.wrong("supports", None, format!("cause `{}` has no support: it would be claimed without evidence", raw.code));
        }
        if raw.explains.is_empty() {
            self.wrong("explains", None, format!("cause `{}` explains nothing", raw.code));
        }
        let title = self.plan("title", None, &raw.title);
        let when = raw.when.as_deref().and_then(|w| Expr::compile(w).map_err(|e| self.wrong("when", None, e)).ok());
        let facts = raw.facts.iter().filter_map(|(k, t)| Some((k.clone(), self.plan("facts", None, t)?))).collect();
        let needs = self.claims("needs", raw.needs);
        let supports = self.claims("supports", raw.supports);
        let refutes = self.claims("refutes", raw.refutes);
        let explains = self.plans("explains", &raw.explains);
        let verify = self.plans("verify", &raw.verify);
        let fix = raw.fix.into_iter().enumerate().filter_map(|(i, f)| self.fix(i, &f)).collect();
        Some(Cause {
            code: raw.code,
            title: title?,
            title_text: raw.title,
            layer: raw.layer,
            each: raw.each.map(OneOrMany::into_vec).unwrap_or_default(),
            when,
            facts,
            needs,
            supports,
            refutes,
            explains,
            fix,
            verify,
        })
    }

    fn plan(&mut self, key: &str, index: Option<usize>, text: &str) -> Option<Template> {
        Template::plan(text).map_err(|e| self.wrong(key, index, e)).ok()
    }

    fn plans(&mut self, key: &str, texts: &[String]) -> Vec<Template> {
        texts.iter().enumerate().filter_map(|(i, t)| self.plan(key, Some(i), t)).collect()
    }

    fn claims(&mut self, key: &str, raw: Vec<RawClaim>) -> Vec<Claim> {
        let mut claims = Vec::new();
        for (i, claim) in raw.into_iter().enumerate() {
            let that = Expr::compile(&claim.that).map_err(|e| self.wrong(key, Some(i), e)).ok();
            let say = Template::say(&claim.say).map_err(|e| self.wrong(key, Some(i), e)).ok();
            if let (Some(that), Some(say)) = (that, say) {
                claims.push(Claim { that, say });
            }
        }
        claims
    }

    fn fix(&mut self, i: usize, raw: &RawFix) -> Option<FixDef> {
        let mut part = |text: &Option<String>| text.as_deref().map(|t| Template::say(t).map_err(|e| self.wrong("fix", Some(i), e)).ok());
        let (run, at, risk) = (part(&raw.run), part(&raw.at), part(&raw.risk));
        let say = part(&Some(raw.say.clone()));
        Some(FixDef { say: say??, run: run.flatten(), at: at.flatten(), risk: risk.flatten() })
    }
}

//! The command line behind `:`: the name of any key, or a command with a word of its own.

use super::go::{enter, go_to_layer};
use super::{Effect, act};
use crate::report::LAYERS;
use crate::tui::keys::KEYS;
use crate::tui::model::{Model, Screen};

/// Commands that take a word; the others are the names of the key table.
pub static COMMANDS: &[(&str, &str, &str)] = &[
    ("check", "ID", "to a check"),
    ("layer", "N", "to the checks of a layer"),
    ("search", "WORDS", "the check list, narrowed"),
    ("save", "DIRECTORY", "write run and report there"),
    ("measure", "SERVER", "measure that model server; asks first"),
];

fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|c| c.0).chain(KEYS.iter().map(|k| k.name))
}

/// The one name that a beginning stands for.
fn resolve(word: &str) -> Result<&'static str, String> {
    if let Some(name) = names().find(|name| *name == word) {
        return Ok(name);
    }
    let fitting: Vec<&str> = names().filter(|name| name.starts_with(word)).collect();
    match fitting.as_slice() {
        [one] => Ok(one),
        [] => Err(format!("there is no command `{word}`; ? lists them")),
        several => Err(format!("`{word}` may be {}", several.join(", "))),
    }
}

/// The longest text that all names with this beginning share.
pub(super) fn complete(typed: &str) -> String {
    let mut fitting = names().filter(|name| name.starts_with(typed));
    let Some(first) = fitting.next() else { return typed.to_owned() };
    let shared = fitting.fold(first, |shared, name| {
        let same = shared.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
        &shared[..same]
    });
    let whole = COMMANDS.iter().any(|c| c.0 == shared);
    if whole { format!("{shared} ") } else { shared.to_owned() }
}

/// Does what was typed.
pub(super) fn perform(model: &mut Model, typed: &str) -> Vec<Effect> {
    let (word, rest) = typed.trim().split_once(' ').map_or((typed.trim(), ""), |(word, rest)| (word, rest.trim()));
    if word.is_empty() {
        return Vec::new();
    }
    let name = match resolve(word) {
        Ok(name) => name,
        Err(why) => {
            model.notice = Some(why);
            return Vec::new();
        }
    };
    match KEYS.iter().find(|key| key.name == name) {
        Some(key) if rest.is_empty() => act(model, key.action),
        Some(_) => {
            model.notice = Some(format!("`{name}` takes no word"));
            Vec::new()
        }
        None => with_word(model, name, rest).unwrap_or_else(|why| {
            model.notice = Some(why);
            Vec::new()
        }),
    }
}

fn with_word(model: &mut Model, name: &str, word: &str) -> Result<Vec<Effect>, String> {
    if word.is_empty() {
        let takes = COMMANDS.iter().find(|c| c.0 == name).map_or("a word", |c| c.1);
        return Err(format!("`{name}` needs {takes}"));
    }
    match name {
        "check" => to_check(model, word)?,
        "layer" => {
            let layer = word.parse().ok().filter(|n| LAYERS.iter().any(|(number, _)| number == n));
            go_to_layer(model, layer.ok_or_else(|| format!("there is no layer `{word}`"))?);
        }
        "search" => {
            model.places.truncate(1);
            enter(model, Screen::Checks(None));
            model.filter = word.to_owned();
        }
        "save" => return Ok(vec![Effect::Write(Some(word.to_owned()))]),
        "measure" => return Ok(super::measure::ask(model, Some(word.to_owned()))),
        _ => {}
    }
    Ok(Vec::new())
}

/// By id, or by the beginning of one.
fn to_check(model: &mut Model, word: &str) -> Result<(), String> {
    let ids = || model.run.planned.iter().map(|p| p.id.as_str());
    let id = ids().find(|id| *id == word).or_else(|| ids().find(|id| id.starts_with(word)));
    let id = id.ok_or_else(|| format!("no check of this run begins with `{word}`"))?.to_owned();
    model.chosen = Some(id.clone());
    enter(model, Screen::Check(id));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_for_itself_and_beginnings_for_what_is_clear() {
        for name in names() {
            assert_eq!(resolve(name), Ok(name));
            assert_eq!(names().filter(|n| *n == name).count(), 1, "{name}");
        }
        assert_eq!(resolve("matr"), Ok("matrix"));
        assert!(resolve("ma").unwrap_err().contains("markdown"));
        assert!(resolve("nothing").unwrap_err().contains("no command"));
    }

    #[test]
    fn completion_goes_as_far_as_it_is_clear() {
        for (typed, whole) in [("matr", "matrix"), ("mat", "matrix"), ("chec", "check "), ("ma", "ma"), ("zzz", "zzz"), ("page", "page-")] {
            assert_eq!(complete(typed), whole);
        }
    }
}

//! Text on a grid of cells: measuring, cutting and wrapping with the width that a terminal gives each character.

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Cells that a text takes on a terminal.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Splits before the first character that no longer fits into `cells`. Takes at least one character, so that a loop
/// over the rest always ends.
pub fn split_at(text: &str, cells: usize) -> (&str, &str) {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > cells && at > 0 {
            return text.split_at(at);
        }
    }
    (text, "")
}

/// At most `cells` cells of a text; `…` says that something is missing.
pub fn cut(text: &str, cells: usize) -> String {
    if width(text) <= cells {
        return text.to_owned();
    }
    match cells {
        0 => String::new(),
        1 => "…".to_owned(),
        _ => {
            let (head, _) = split_at(text, cells - 1);
            if width(head) < cells { format!("{head}…") } else { "…".to_owned() }
        }
    }
}

/// A text cut or filled with spaces to exactly `cells` cells.
pub fn fit(text: &str, cells: usize) -> String {
    let text = cut(text, cells);
    let fill = cells.saturating_sub(width(&text));
    format!("{text}{}", " ".repeat(fill))
}

/// Prose in lines of at most `cells` cells, broken at spaces; a longer word is broken anywhere.
pub fn wrap(text: &str, cells: usize) -> Vec<String> {
    text.split('\n').flat_map(|line| wrap_line(line, cells.max(1))).collect()
}

fn wrap_line(line: &str, cells: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split_whitespace() {
        let used = lines.last().map_or(0, |l| width(l));
        match lines.last_mut() {
            Some(last) if used > 0 && used + 1 + width(word) <= cells => {
                last.push(' ');
                last.push_str(word);
            }
            Some(last) if used == 0 && width(word) <= cells => last.push_str(word),
            _ => {
                lines.extend(fold(word, cells));
                lines.retain(|l| !l.is_empty());
            }
        }
    }
    lines
}

/// Raw text in lines of at most `cells` cells, its own line breaks and spaces kept; broken after a space if one is near.
pub fn fold(text: &str, cells: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for mut rest in text.split('\n') {
        loop {
            let (mut head, mut tail) = split_at(rest, cells.max(1));
            if let Some(space) = head.rfind(' ').filter(|at| !tail.is_empty() && *at > head.len() / 2) {
                (head, tail) = rest.split_at(space + 1);
            }
            lines.push(head.to_owned());
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
    }
    lines
}

/// A shell command in lines of at most `cells` cells, broken at spaces outside of quotes and continued with a backslash.
/// A word that is longer is broken anywhere: there is no better way.
pub fn wrap_command(command: &str, cells: usize) -> Vec<String> {
    let room = cells.saturating_sub(2).max(1);
    let mut lines: Vec<String> = Vec::new();
    for (n, line) in command.split('\n').enumerate() {
        let mut starts = true;
        for word in shell_words(line) {
            match lines.last_mut() {
                Some(last) if !starts && width(last) + 1 + width(word) <= room => {
                    last.push(' ');
                    last.push_str(word);
                }
                last => {
                    if let Some(last) = last.filter(|_| !starts) {
                        last.push_str(" \\");
                    }
                    lines.extend(fold(word, cells));
                }
            }
            starts = false;
        }
        if starts && n > 0 {
            lines.push(String::new());
        }
    }
    lines
}

/// Words of a command, split at spaces that no quote protects.
fn shell_words(line: &str) -> Vec<&str> {
    let mut quote = None;
    line.split(|c: char| {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            _ => {}
        }
        c == ' ' && quote.is_none()
    })
    .filter(|word| !word.is_empty())
    .collect()
}

/// A fact's value as people write it: text without quotes, an unknown one with its reason.
pub fn value(value: &Value) -> String {
    match (value, unknown(value)) {
        (Value::String(text), _) => text.clone(),
        (_, Some(reason)) => format!("unknown: {reason}"),
        (other, None) => other.to_string(),
    }
}

/// Why a fact is unknown, if it is.
pub fn unknown(fact: &Value) -> Option<&str> {
    fact.as_object().filter(|map| map.len() == 1)?.get("unknown")?.as_str()
}

/// Milliseconds as a short duration: `38 ms`, `3.0 s`, `2 min 05 s`.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {:02} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

/// The nearest thing to a character on a terminal that only has ASCII. One cell stays one cell.
pub fn ascii(c: char) -> char {
    match c {
        c if c.is_ascii() => c,
        '✓' => '+',
        '✗' | '×' => 'x',
        '⊘' => '#',
        '…' => '~',
        '→' | '›' | '▸' | '▌' => '>',
        '←' => '<',
        '·' | '•' | '–' | '—' | '─' => '-',
        '│' | '▏' => '|',
        '↑' => '^',
        '↓' => 'v',
        _ => '?',
    }
}

/// A whole text in ASCII, as wide as before.
pub fn to_ascii(text: &str) -> String {
    text.chars().flat_map(|c| std::iter::repeat_n(ascii(c), if c.is_ascii() { 1 } else { c.width().unwrap_or(0) })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("日本語", 2), "…");
        assert_eq!(fit("日本", 7), "日本   ");
        assert_eq!(to_ascii("✓ 日→"), "+ ??>");
    }

    #[test]
    fn prose_breaks_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrap("one two  three", 7), ["one two", "three"]);
        assert_eq!(wrap("a abcdefgh b", 4), ["a", "abcd", "efgh", "b"]);
        assert_eq!(wrap("a\n\nb", 4), ["a", "", "b"]);
        assert_eq!(wrap("日本語", 1), ["日", "本", "語"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn no_line_is_wider_than_asked() {
        let text = "recvmsg on flannel.1: deadline 日本語日本語日本語 passed_with_a_very_long_word and more";
        for cells in 2..30 {
            assert!(wrap(text, cells).iter().chain(&fold(text, cells)).all(|l| width(l) <= cells));
            assert!(width(&cut(text, cells)) <= cells);
        }
    }

    #[test]
    fn raw_text_keeps_its_spaces() {
        assert_eq!(fold("a  b\n  c", 3), ["a  ", "b", "  c"]);
    }

    #[test]
    fn commands_stay_copyable() {
        let command = "nft insert rule inet filter input iifname 'a b c' accept";
        assert_eq!(wrap_command(command, 80), [command]);
        assert_eq!(wrap_command(command, 24), ["nft insert rule inet \\", "filter input iifname \\", "'a b c' accept"]);
        assert_eq!(wrap_command("one\ntwo", 24), ["one", "two"]);
    }

    #[test]
    fn durations() {
        assert_eq!([duration(38), duration(3012), duration(125_000)], ["38 ms", "3.0 s", "2 min 05 s"]);
    }
}

//! Samples of the Prometheus text format, version 0.0.4.

/// Name and value of every sample; lines that are none, and values that are not finite, are left out.
pub(crate) fn samples(text: &str) -> impl Iterator<Item = (&str, f64)> {
    text.lines().filter_map(sample)
}

/// `name{label="value",...} value [timestamp]`; the labels may be missing.
fn sample(line: &str) -> Option<(&str, f64)> {
    let line = line.trim();
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with('#') {
        return None;
    }
    let rest = if rest.starts_with('{') { &rest[end_of_labels(rest)?..] } else { rest };
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some((name, value))
}

/// Position after the closing brace. Label values are quoted, with backslash escapes, and may contain braces.
fn end_of_labels(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_samples_and_leaves_out_the_rest() {
        let text = "# HELP a b\n# TYPE a counter\na 1\nb{x=\"} 9\\\" {\",y=\"\"} 2.5 1795404487\n  c{} 1e3\nd NaN\ne +Inf\n";
        assert_eq!(samples(text).collect::<Vec<_>>(), [("a", 1.0), ("b", 2.5), ("c", 1000.0)]);
    }

    #[test]
    fn hostile_lines_are_no_samples() {
        for line in ["", "a", "a{", "a{x=\"", "a{x=\"\\", "a{x=\"}\" 1", "{} 1", "a x", "é{\u{301}}", "a{é=\"é\"}é 1", "#{} 1"] {
            assert_eq!(samples(line).next(), None, "{line}");
        }
    }
}

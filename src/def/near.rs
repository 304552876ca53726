//! What somebody may have meant who mistyped a name.

/// ` (did you mean `NAME`?)` for the nearest name, or nothing if none is near.
pub fn hint<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, names).map_or_else(String::new, |name| format!(" (did you mean `{name}`?)"))
}

/// The name with the fewest typing errors between it and the word: one for every three letters at most.
fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let typed: Vec<char> = word.to_lowercase().chars().take(LONGEST + 1).collect();
    if typed.len() > LONGEST {
        return None;
    }
    let near = |name: &'a str| {
        let meant: Vec<char> = name.to_lowercase().chars().take(LONGEST).collect();
        let errors = distance(&typed, &meant);
        (errors * 3 <= typed.len().min(meant.len())).then_some((errors, name))
    };
    // Of equally near ones the first: the result does not depend on chance.
    names.into_iter().filter_map(near).min_by_key(|(errors, _)| *errors).map(|(_, name)| name)
}

/// Longest word that is compared: the table of distances grows with its square.
const LONGEST: usize = 64;

/// Letters to insert, leave out or replace.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (row, x) in a.iter().enumerate() {
        let mut here = vec![row + 1];
        for (column, y) in b.iter().enumerate() {
            let replaced = above[column] + usize::from(x != y);
            here.push(replaced.min(above[column + 1] + 1).min(here[column] + 1));
        }
        above = here;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_is_suggested() {
        let names = ["ip-forward", "ip-forward-zero", "dns", "calypso", "coredns"];
        let hint = |word: &str| hint(word, names);
        assert_eq!(hint("ip-foward"), " (did you mean `ip-forward`?)");
        assert_eq!(hint("IP-Forward"), " (did you mean `ip-forward`?)");
        assert_eq!(hint("ip-forward-zer"), " (did you mean `ip-forward-zero`?)");
        assert_eq!(hint("calypos"), " (did you mean `calypso`?)");
        for far in ["", "atlantis", "no-such-check", "d", &"x".repeat(1_000_000)] {
            assert_eq!(hint(far), "", "{far:.20}");
        }
    }
}

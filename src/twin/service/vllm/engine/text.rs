//! What the model writes, token by token.

use super::super::request::Work;

/// The text that the model writes, in tokens.
const PAGE: &[&str] = &[
    "#",
    " Vessel",
    " register",
    "\n\n",
    "|",
    " Name",
    " |",
    " Flag",
    " |",
    " IM",
    "O",
    " |",
    "\n",
    "|",
    "---",
    "|",
    "---",
    "|",
    "---",
    "|",
    "\n",
    "|",
    " Ocean",
    "ia",
    " |",
    " NO",
    " |",
    " ",
    "912",
    "345",
    "6",
    " |",
    "\n",
    "|",
    " Calyp",
    "so",
    " |",
    " PA",
    " |",
    " ",
    "987",
    "654",
    "3",
    " |",
    "\n",
];

/// One token, as the engine reports it to a request.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Token {
    /// Its text.
    pub(in super::super) text: &'static str,
    /// On the last token, why it is the last.
    pub(in super::super) finish: Option<&'static str>,
    /// The engine died here: this is no token.
    pub(in super::super) died: bool,
}

/// The token at an index. The end of the text is an empty token with reason `stop`, as the end-of-sequence token is.
pub(super) fn token(index: u32, work: &Work) -> Token {
    let index = index as usize;
    let last = index + 1 == work.max_tokens as usize;
    if index >= PAGE.len() && !work.ignore_eos {
        return Token { text: "", finish: Some("stop"), died: false };
    }
    Token { text: PAGE[index % PAGE.len()], finish: last.then_some("length"), died: false }
}

/// The same few tokens for ever, after a beginning that is right.
pub(super) fn repeated(index: u32, work: &Work) -> Token {
    const LOOP: &[&str] = &["|", " Name", " |", " Flag", " |", "\n"];
    let last = index + 1 == work.max_tokens;
    Token { text: LOOP[index as usize % LOOP.len()], finish: last.then_some("length"), died: false }
}

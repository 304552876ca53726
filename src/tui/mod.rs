//! What a person sees.

#[cfg(test)]
pub(crate) mod fixture;

//! What a person sees.

pub mod filter;
#[cfg(test)]
pub(crate) mod fixture;
pub mod keys;
pub mod model;
#[cfg(test)]
mod tests;
pub mod theme;
pub mod update;
pub mod view;

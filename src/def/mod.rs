//! What the files say: inventory, checks, playbooks. Pure and synchronous.

pub mod inventory;

pub use inventory::Inventory;

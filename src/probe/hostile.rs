//! What comes from the other side is hostile: answers that hang, drip, never end or are no answers, commands that flood, packets
//! that are garbage. Every probe must be done in bounded time, take bounded memory, and say that it does not know.

mod command;
mod local_api;
mod packets;

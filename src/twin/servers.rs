//! Which servers run on which host of the twin.

use super::cluster::Cluster;
use super::service::api::{self, ApiHandle};
use super::service::pki::{Authority, Validity};
use super::topology::{Hosts, pod_host};
use crate::def::Inventory;
use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

/// Addresses of servers on the internet that the twin's internet router stands for.
pub fn public_addresses(inv: &Inventory) -> Vec<Ipv4Addr> {
    let mut all = inv.dns.upstream.clone();
    all.extend(names(inv).into_values());
    all.sort_unstable();
    all.dedup();
    all
}

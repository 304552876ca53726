//! What the documents say of the outside: how the cluster gets there, and what it calls there.

use crate::def::Endpoint;
use crate::vantage::VantageKind;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};

/// How the cluster reaches the outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// The one source address that the outside must see.
    pub address: Ipv4Addr,
    /// The IPv6 addresses that the outside may see, if any: by default nothing may leave over IPv6.
    #[serde(default)]
    pub ipv6: Vec<Ipv6Addr>,
    /// Services that answer with the caller's address, as text.
    pub echoes: Vec<String>,
    /// The same over IPv6, if the others have no IPv6 address.
    #[serde(default)]
    pub echoes_ipv6: Vec<String>,
    /// STUN servers, `HOST:PORT`, asked for the same thing over UDP.
    #[serde(default)]
    pub stun: Vec<Endpoint>,
}

/// A database outside.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// A short name.
    pub name: String,
    /// Host name.
    pub host: String,
    /// Address that the host name must have, where documented.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// Port.
    pub port: u16,
    /// Whether TLS is required.
    pub tls: bool,
    /// Source ranges that the database admits.
    #[serde(default)]
    pub allowlist: Vec<AllowlistEntry>,
}

/// One entry of a database's allowlist.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowlistEntry {
    /// Source range.
    pub cidr: Ipv4Net,
    /// What it is for.
    #[serde(default)]
    pub about: String,
    /// Documented as waiting for its removal.
    #[serde(default)]
    pub pending_removal: bool,
}

/// An HTTP endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpEndpoint {
    /// A short name.
    pub name: String,
    /// URL.
    pub url: String,
    /// Status that means it works.
    #[serde(default = "two_hundred")]
    pub status: u16,
    /// Kinds of vantage that must reach it: `node`, `pod`, `workstation`, `ci`.
    pub from: Vec<VantageKind>,
    /// What it is for, with the document's line.
    #[serde(default)]
    pub about: String,
}

fn two_hundred() -> u16 {
    200
}

/// An OpenAI-compatible model server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vllm {
    /// A short name.
    pub name: String,
    /// Host address.
    pub address: Ipv4Addr,
    /// API port.
    pub port: u16,
    /// Where `/metrics` is served. The document says 8002; vLLM serves it on the API port (see the contradictions).
    pub metrics_port: u16,
    /// Model name.
    pub model: String,
    /// Longest sequence, in tokens.
    #[serde(default)]
    pub max_model_len: Option<u32>,
    /// GPU, as documented.
    #[serde(default)]
    pub gpu: Option<String>,
    /// The systemd unit that runs it on its host.
    #[serde(default)]
    pub unit: Option<String>,
    /// Vantages that have a path to it.
    pub from: Vec<String>,
}

/// A Cloudflare Worker and what it calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// The URL that it fetches.
    pub fetches: String,
    /// It passes PDF files where the model server takes images.
    #[serde(default)]
    pub sends_pdf_as_image: bool,
    /// What it is for, with the document's line.
    #[serde(default)]
    pub about: String,
}

//! `http-proxy`: whether the proxy variables of an environment send requests for the cluster to a proxy, and what comes of it.
//!
//! kubectl, K3s and most programs in Go read them as `golang.org/x/net/http/httpproxy` does, and so does this. fathom itself never
//! uses a proxy: it would test another network than it names. Here it asks one, because a request of others would be sent there.

mod rules;

use super::http_get::{self, HttpUrl};
use super::http1;
use super::lookup::{How, lookup};
use super::net;
use super::resolv::ResolvConf;
use super::{Context, Kind, Probe, decode, fact};
use crate::check::secret::mask;
use crate::check::{Observation, clean};
use crate::vantage::{Transport, Vantage};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use rules::Rules;
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Whether the proxy variables of an environment send requests for the cluster to a proxy, and what comes of it.
pub(super) static KIND: Kind = Kind {
    name: "http-proxy",
    root: "http_proxy",
    about: "Whether the proxy variables of an environment send requests for the cluster to a proxy, and what comes of it",
    privilege: None,
    args: &[
        ("urls", "URLs inside of the cluster, `http` or `https`; at most 32"),
        ("nameserver", "where names are looked up for the request without a proxy (absent: the vantage's resolver)"),
    ],
    facts: &[
        fact("set", "list of text", "proxy variables that are set, by name"),
        fact("proxies", "list of text", "the proxies that they name, without user and password"),
        fact("no_proxy", "list of text", "entries of NO_PROXY"),
        fact("takes", "list of text", "host:port of the URLs that would go to a proxy"),
        fact("asked", "text", "the first of them: it was asked for through the proxy, and straight"),
        fact("status", "HTTP status", "the answer through the proxy (to CONNECT for https); 0 if none came"),
        fact("error", "text", "errno word, `dns: ..` or `not HTTP` where none came"),
        fact("by", "text", "what the answer says of who made it: its Via, or else its Server header"),
        fact("direct_ok", "bool", "the same server answers without the proxy: 2xx or 3xx; for https it takes the connection"),
    ],
    decode: decode::<HttpProxy>,
};

/// URLs that are looked at.
const MOST_URLS: usize = 32;
/// Why there is nothing about an answer.
const NOBODY_ASKED: &str = "no URL goes to a proxy";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpProxy {
    urls: Vec<HttpUrl>,
    #[serde(default)]
    nameserver: Option<Ipv4Addr>,
}

/// What came back through a proxy.
#[derive(Debug, Default)]
struct Through {
    status: u16,
    error: String,
    by: String,
}

#[async_trait]
impl Probe for HttpProxy {
    async fn observe(&self, cx: &Context) -> Observation {
        let rules = match environment(&cx.vantage) {
            Ok(text) => Rules::parse(&text),
            Err(reason) => return Observation::could_not_look(reason),
        };
        let mut seen = Observation::default();
        let shown = |texts: Vec<String>| texts.iter().map(|t| clean(&mask(t), 200)).collect::<Vec<_>>();
        let taken: Vec<_> = self.urls.iter().take(MOST_URLS).filter_map(|url| Some((url, rules.proxy(url)?))).collect();
        let takes: Vec<String> = taken.iter().map(|(url, _)| format!("{}:{}", url.host(), url.port())).collect();
        let set = rules.set.iter().map(|name| (*name).to_owned()).collect();
        seen.facts
            .set("set", shown(set))
            .set("proxies", shown(rules.proxies()))
            .set("no_proxy", shown(rules.no_proxy.clone()))
            .set("takes", shown(takes));
        let Some((url, proxy)) = taken.first() else {
            seen.rest_unknown(&KIND, NOBODY_ASKED);
            return seen;
        };
        let (through, direct) = tokio::join!(through(cx, proxy, url), self.direct(cx, url));
        seen.note("proxy", format!("{url} by {}: {} {} {}", mask(proxy), through.status, through.error, through.by));
        seen.facts.set("asked", url.to_string()).set("status", through.status).set("error", through.error).set("by", through.by);
        match direct {
            Ok(ok) => _ = seen.facts.set("direct_ok", ok),
            Err(reason) => _ = seen.facts.unknown("direct_ok", reason),
        }
        seen
    }

    fn target(&self) -> String {
        "proxy variables".to_owned()
    }
}

impl HttpProxy {
    /// Whether the server answers without the proxy.
    async fn direct(&self, cx: &Context, url: &HttpUrl) -> Result<bool, String> {
        let nameserver = self.nameserver.map(|ip| SocketAddrV4::new(ip, 53));
        if url.https() {
            let address = resolve(cx, url.host(), nameserver).await?;
            return Ok(net::connect(&cx.vantage.net, SocketAddrV4::new(address, url.port()), cx.deadline).await.is_ok());
        }
        let exchange = http_get::get(&cx.vantage, url, nameserver, cx.deadline).await?;
        Ok((200..400).contains(&exchange.status))
    }
}

/// Sends the request that a client with these variables sends. User and password of the proxy are left out: they are not ours to use.
async fn through(cx: &Context, proxy: &str, url: &HttpUrl) -> Through {
    let failed = |error: String| Through { error: clean(&error, 120), ..Through::default() };
    let proxy = match HttpUrl::try_from(proxy.to_owned()) {
        Ok(proxy) if !proxy.https() => proxy,
        Ok(_) => return failed("a proxy that is asked over TLS: not tried".to_owned()),
        Err(error) => return failed(error),
    };
    let address = match resolve(cx, proxy.host(), None).await {
        Ok(address) => SocketAddrV4::new(address, proxy.port()),
        Err(word) => return failed(word),
    };
    let stream = match net::connect(&cx.vantage.net, address, cx.deadline).await {
        Ok((stream, _)) => stream,
        Err(error) => return failed(error.word),
    };
    let host = format!("{}:{}", url.host(), url.port());
    let (method, target) = if url.https() { (Method::CONNECT, host.clone()) } else { (Method::GET, url.absolute()) };
    let request = match http1::request(method, &target, &host).body(Full::<Bytes>::default()) {
        Ok(request) => request,
        Err(error) => return failed(error.to_string()),
    };
    match http1::send(stream, request, cx.deadline).await {
        Ok(answer) => {
            let header = |name: &str| answer.head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            let by = header("via").or_else(|| header("server")).unwrap_or_default();
            Through { status: answer.head.status.as_u16(), error: String::new(), by: clean(&by, 120) }
        }
        Err(error) => failed(error.word),
    }
}

async fn resolve(cx: &Context, host: &str, nameserver: Option<SocketAddrV4>) -> Result<Ipv4Addr, String> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let conf = nameserver.map_or_else(|| ResolvConf::of(&cx.vantage), |server| Ok(ResolvConf::only(server)))?;
    let found = lookup(&cx.vantage.net, &conf, host, How::default(), cx.deadline).await?;
    found.address().ok_or_else(|| format!("dns: {}", found.rcode()))
}

/// For fuzzers: names and entries that are kept of an environment.
pub(super) fn kept(text: &str) -> usize {
    let rules = Rules::parse(text);
    let urls = ["http://argilla.apps.svc.cluster.local:80/", "https://10.43.0.1/"];
    let taken = urls.into_iter().filter_map(|url| rules.proxy(&HttpUrl::try_from(url.to_owned()).ok()?)).count();
    rules.set.len() + rules.no_proxy.len() + taken
}

/// Variables as `NAME=VALUE`, a line each. Those of this process are those of whoever works at this machine or in this pod; those of
/// another namespace are nobody's.
fn environment(vantage: &Vantage) -> Result<String, String> {
    match (&vantage.files.environment, vantage.transport) {
        (Some(source), _) => source.read(),
        (None, Transport::Local) => {
            let named = |name: &&&str| std::env::var_os(name).is_some();
            let line = |name: &&str| format!("{name}={}\n", std::env::var_os(name).unwrap_or_default().to_string_lossy());
            Ok(rules::NAMES.iter().filter(named).map(line).collect())
        }
        (None, _) => Err("the environment of programs in another namespace is not known".to_owned()),
    }
}

#[cfg(test)]
mod tests;

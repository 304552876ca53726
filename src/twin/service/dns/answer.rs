//! From a question to the packet that answers it.

use hickory_resolver::net::runtime::Time;
use hickory_resolver::net::xfer::Protocol;
use hickory_resolver::proto::op::{Edns, Header, HeaderCounts, Metadata, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr};

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// The name, as the client wrote it.
    pub(super) name: Name,
    /// The name in lower case without the trailing dot.
    pub(super) text: String,
    /// The record type.
    pub(super) kind: RecordType,
    /// Whether it came by TCP.
    pub(super) tcp: bool,
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// The response code.
    pub(super) code: ResponseCode,
    /// AA.
    pub(super) authoritative: bool,
    /// RA.
    pub(super) recursion_available: bool,
    /// The answer section.
    pub(super) answers: Vec<Record>,
    /// The authority section.
    pub(super) authorities: Vec<Record>,
    /// The additional section, without OPT.
    pub(super) additionals: Vec<Record>,
}

impl Answer {
    /// An answer without records.
    pub(super) fn empty(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }

    /// Adds an address record for the question's name.
    pub(super) fn address(mut self, question: &Question, address: Ipv4Addr, ttl: u32) -> Self {
        self.answers.push(Record::from_rdata(question.name.clone(), ttl, RData::A(A(address))));
        self
    }

    /// Adds an IPv6 address record for the question's name.
    pub(super) fn address_six(mut self, question: &Question, address: Ipv6Addr, ttl: u32) -> Self {
        self.answers.push(Record::from_rdata(question.name.clone(), ttl, RData::AAAA(AAAA(address))));
        self
    }

    /// Adds a pointer for the question's name; a target that is no name is left out.
    pub(super) fn pointer(mut self, question: &Question, target: &str, ttl: u32) -> Self {
        if let Ok(target) = name(target) {
            self.answers.push(Record::from_rdata(question.name.clone(), ttl, RData::PTR(PTR(target))));
        }
        self
    }

    /// Adds a start of authority.
    pub(super) fn soa(mut self, zone: &str, data: Option<SOA>, ttl: u32) -> Self {
        if let (Ok(zone), Some(data)) = (name(zone), data) {
            self.authorities.push(Record::from_rdata(zone, ttl, RData::SOA(data)));
        }
        self
    }

    /// Adds a record of any type for the question's name.
    pub(super) fn record(mut self, question: &Question, data: RData, ttl: u32) -> Self {
        self.answers.push(Record::from_rdata(question.name.clone(), ttl, data));
        self
    }

    /// Adds the address of a name that a record points to; a text that is no name is left out.
    pub(super) fn glue(mut self, target: &str, address: Ipv4Addr, ttl: u32) -> Self {
        if let Ok(target) = name(target) {
            self.additionals.push(Record::from_rdata(target, ttl, RData::A(A(address))));
        }
        self
    }

    /// Sets AA.
    pub(super) fn authoritative(mut self) -> Self {
        self.authoritative = true;
        self
    }
}

/// An absolute name.
pub(super) fn name(text: &str) -> Result<Name, hickory_resolver::proto::ProtoError> {
    let mut name = Name::from_ascii(text)?;
    name.set_fqdn(true);
    Ok(name)
}

/// Something that answers questions.
pub(super) trait Answers: Send + Sync + Unpin + 'static {
    /// Answers one.
    fn answer(&self, question: &Question) -> impl Future<Output = Answer> + Send;
}

/// The packets around [`Answers`].
pub(super) struct Handler<A>(pub(super) A);

#[async_trait::async_trait]
impl<A: Answers> RequestHandler for Handler<A> {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut out: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let answer = match request.request_info() {
            Err(_) => Answer::empty(ResponseCode::FormErr),
            Ok(info) => {
                let original = info.query.original().name().clone();
                let text = original.to_ascii().trim_end_matches('.').to_ascii_lowercase();
                let tcp = info.protocol == Protocol::Tcp;
                self.0.answer(&Question { name: original, text, kind: info.query.query_type(), tcp }).await
            }
        };
        metadata.response_code = answer.code;
        metadata.authoritative = answer.authoritative;
        metadata.recursion_available = answer.recursion_available;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload()).set_version(0);
            edns
        });
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let response = builder.build(metadata, answer.answers.iter(), answer.authorities.iter(), [].iter(), answer.additionals.iter());
        // The client may be gone; nobody reads this information.
        out.send_response(response).await.unwrap_or_else(|_| ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() }))
    }
}

//! Reviews as typed Go clients post them (`kubectl auth`): protobuf in the envelope of apimachinery, `k8s\0` and a `runtime.Unknown`. Read
//! as far as the reviews need it; field numbers are those of the `generated.proto` files of k8s.io/apimachinery and k8s.io/api.

use serde_json::{Value, json};

const MAGIC: &[u8] = b"k8s\0";

/// The review as JSON; `None` if it is none.
pub(super) fn review(body: &[u8]) -> Option<Value> {
    let envelope = Message(body.strip_prefix(MAGIC)?);
    let meta = envelope.message(1)?;
    let (api_version, kind) = (meta.text(1)?, meta.text(2)?);
    let spec = envelope.message(2)?.message(2).unwrap_or_default();
    let spec = match kind {
        "SelfSubjectAccessReview" => access(spec),
        "SelfSubjectRulesReview" => json!({"namespace": spec.text(1).unwrap_or_default()}),
        "SelfSubjectReview" => json!({}),
        _ => return None,
    };
    Some(json!({"kind": kind, "apiVersion": api_version, "spec": spec}))
}

fn access(spec: Message<'_>) -> Value {
    let named = |message: Message<'_>, names: &[&str]| {
        let pairs = names.iter().zip(1..).filter_map(|(name, number)| Some(((*name).to_owned(), json!(message.text(number)?))));
        Value::Object(pairs.filter(|(_, value)| *value != "").collect())
    };
    if let Some(path) = spec.message(2) {
        return json!({"nonResourceAttributes": named(path, &["path", "verb"])});
    }
    let names = ["namespace", "verb", "group", "version", "resource", "subresource", "name"];
    json!({"resourceAttributes": named(spec.message(1).unwrap_or_default(), &names)})
}

/// A message; what is not well-formed ends it.
#[derive(Clone, Copy, Default)]
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    /// The last value with a number, as the encoding has it.
    fn bytes(self, number: u64) -> Option<&'a [u8]> {
        let mut rest = self.0;
        std::iter::from_fn(|| field(&mut rest)).filter(|(n, _)| *n == number).last().map(|(_, value)| value)
    }

    fn message(self, number: u64) -> Option<Self> {
        self.bytes(number).map(Self)
    }

    fn text(self, number: u64) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(number)?).ok()
    }
}

/// Number and bytes of the next field; those of a number are not looked at.
fn field<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let tag = varint(rest)?;
    let length = match tag & 7 {
        0 => {
            varint(rest)?;
            0
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (value, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((tag >> 3, value))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

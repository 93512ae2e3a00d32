//! Takes any text for a request of the JSON gateway. It is refused, or it is a message; and that is the
//! same message after it was written as JSON and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use retcd_proto::etcdserverpb::{TxnRequest, WatchRequest};
use retcd_proto::json::{Encoder, Method, Schema, Values, decode, first_value};

fuzz_target!(|text: &[u8]| {
    let first = first_value(text).ok().flatten();
    // The same value, however it arrives.
    let mut values = Values::default();
    let mut streamed = None;
    for piece in text.chunks(7) {
        values.push(piece);
        streamed = streamed.or_else(|| values.next_value().ok().flatten());
    }
    let streamed = streamed.or_else(|| values.last_value().ok().flatten());
    if let Some(value) = first {
        assert_eq!(streamed.as_deref(), Some(value));
        for path in ["/etcdserverpb.KV/Txn", "/etcdserverpb.Watch/Watch"] {
            let method = Method::of_path(path).expect("the method exists");
            if let Ok(encoded) = decode(method.request, value) {
                check(method.request, path, &encoded);
            }
        }
    }
});

fn check(schema: &'static Schema, path: &str, encoded: &[u8]) {
    // Members of JSON may stand in any order.
    let canonical = match path.ends_with("Txn") {
        true => TxnRequest::decode(encoded).map(|message| message.encode_to_vec()),
        false => WatchRequest::decode(encoded).map(|message| message.encode_to_vec()),
    };
    let canonical = canonical.expect("what is a message in JSON is one in protobuf");
    assert_eq!(canonical.len(), encoded.len());
    if path.ends_with("Txn") {
        let mut json = Vec::new();
        let mut encoder = Encoder::new(schema, &mut json);
        canonical
            .chunks(5)
            .for_each(|piece| encoder.push(piece, &mut json));
        encoder.finish(&mut json);
        assert_eq!(decode(schema, &json).as_deref(), Ok(canonical.as_slice()));
    }
}

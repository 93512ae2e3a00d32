//! What etcd 3.7.1 makes of JSON.

use bytes::Bytes;
use prost::{Message, Name};

use super::*;
use crate::etcdserverpb::{Compare, RangeRequest, RangeResponse, TxnRequest, WatchRequest};
use crate::etcdserverpb::{ResponseHeader, TxnResponse, compare, watch_request};
use crate::mvccpb::KeyValue;

fn schema<T: Name>() -> &'static Schema {
    Schema::of(&T::full_name()).unwrap()
}

/// The first message of a body, as a unary method reads it.
fn read<T: Message + Name + Default>(body: &[u8]) -> Result<T, String> {
    let mut values = Values::default();
    values.push(body);
    let streamed = values.last_value();
    let value = first_value(body);
    assert_eq!(
        streamed,
        value.clone().map(|value| value.map(Bytes::copy_from_slice))
    );
    let value = value.map_err(|error| error.to_string())?.unwrap_or(b"{}");
    let encoded = decode(schema::<T>(), value).map_err(|error| error.to_string())?;
    let message = T::decode(encoded.as_slice()).unwrap();
    assert_eq!(message.encode_to_vec().len(), encoded.len(), "{body:?}");
    Ok(message)
}

fn range(body: &str) -> RangeRequest {
    read(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn write<T: Message + Name>(message: &T) -> String {
    let whole = write_in_pieces(message, usize::MAX);
    for piece_bytes in [1, 2, 7] {
        assert_eq!(write_in_pieces(message, piece_bytes), whole);
    }
    whole
}

fn write_in_pieces<T: Message + Name>(message: &T, piece_bytes: usize) -> String {
    let mut json = Vec::new();
    let mut encoder = Encoder::new(schema::<T>(), &mut json);
    for piece in message.encode_to_vec().chunks(piece_bytes) {
        encoder.push(piece, &mut json);
    }
    encoder.finish(&mut json);
    String::from_utf8(json).unwrap()
}

#[test]
fn names_have_two_spellings_and_values_several() {
    let expected = RangeRequest {
        key: "foo".into(),
        limit: 1,
        sort_order: 2,
        serializable: true,
        ..Default::default()
    };
    for body in [
        r#"{"key":"Zm9v","limit":"1","sort_order":"DESCEND","serializable":true}"#,
        r#"{"key":"Zm9v","limit":1.0,"sortOrder":2,"serializable":true}"#,
        r#" {"\u006bey" : "Zm9v" , "limit":10e-1,"sortOrder":2,"serializable":true} trailing"#,
        r#"{"a":{"b":[1,{"c":null}]},"key":"Zm9v","limit":"1,","sortOrder":2,"serializable":true}{}"#,
        r#"{"key":"Zm\n9v","limit":1,"sort_order":2,"serializable":true,"sort_target":"NONE","count_only":false,"revision":null}"#,
    ] {
        assert_eq!(range(body), expected, "{body}");
    }
    assert_eq!(range(""), RangeRequest::default());
    assert_eq!(range(" \n"), RangeRequest::default());
}

#[test]
fn bytes_are_base64_of_four_kinds() {
    for (text, expected) in [
        ("_-8=", &b"\xff\xef"[..]),
        ("/+8=", b"\xff\xef"),
        ("_-8", b"\xff\xef"),
        ("/+8", b"\xff\xef"),
        ("Zh==", b"f"),
        ("", b""),
    ] {
        let key = range(&format!(r#"{{"key":"{text}"}}"#)).key;
        assert_eq!(key, expected, "{text}");
    }
    for text in ["_+8=", "Zg=", "Zg", "Zg===", "Z", "!!", "Zm\\n9v="] {
        let read = read::<RangeRequest>(format!(r#"{{"key":"{text}"}}"#).as_bytes());
        assert_eq!(read.is_err(), text != "Zg", "{text}");
    }
}

#[test]
fn refusals_have_gos_texts() {
    for (body, expected) in [
        ("{", "unexpected EOF"),
        ("nul", "unexpected EOF"),
        ("xx", "invalid character 'x' looking for beginning of value"),
        (
            "nulx",
            "invalid character 'x' in literal null (expecting 'l')",
        ),
        ("{\"a\" 1}", "invalid character '1' after object key"),
        (
            "{\"a\":1 1}",
            "invalid character '1' after object key:value pair",
        ),
        ("[1 1]", "invalid character '1' after array element"),
        (
            "{1}",
            "invalid character '1' looking for beginning of object key string",
        ),
        (
            "{\"a\":1,}",
            "invalid character '}' looking for beginning of object key string",
        ),
        (
            "{\"a\":01}",
            "invalid character '1' after object key:value pair",
        ),
        ("{\"a\":-}", "invalid character '}' in numeric literal"),
        (
            "{\"a\":1.}",
            "invalid character '}' after decimal point in numeric literal",
        ),
        (
            "{\"a\":1e}",
            "invalid character '}' in exponent of numeric literal",
        ),
        ("\"\\x\"", "invalid character 'x' in string escape code"),
        (
            "\"\\u12g\"",
            "invalid character 'g' in \\u hexadecimal character escape",
        ),
        ("\"\n\"", "invalid character '\\n' in string literal"),
        (
            "'",
            "invalid character '\\'' looking for beginning of value",
        ),
        ("[]", "proto: syntax error (line 1:1): unexpected token ["),
        (
            "null",
            "proto: syntax error (line 1:1): unexpected token null",
        ),
        ("5 ", "proto: syntax error (line 1:1): unexpected token 5"),
        (
            r#"{"key":"!!"}"#,
            r#"proto: (line 1:8): invalid value for bytes field key: "!!""#,
        ),
        (
            r#"{"key":5}"#,
            "proto: (line 1:8): invalid value for bytes field key: 5",
        ),
        (
            "{\"key\":\"Zm9v\",\n \"limit\":\"x\"}",
            r#"proto: (line 2:10): invalid value for int64 field limit: "x""#,
        ),
        (
            r#"{"sort_order":1.5}"#,
            "proto: (line 1:15): invalid value for enum field sortOrder: 1.5",
        ),
        (
            r#"{"key":"Zm9v","key":"Zm9vMg=="}"#,
            r#"proto: (line 1:15): duplicate field "key""#,
        ),
        (
            r#"{"sort_order":null,"sortOrder":1}"#,
            r#"proto: (line 1:20): duplicate field "sortOrder""#,
        ),
        (r#"{"key":"\ud800"}"#, "proto: unexpected EOF"),
        (
            r#"{"key":"\ud800\u0041"}"#,
            r#"proto: syntax error (line 1:8): invalid escape code "\\u0041" in string"#,
        ),
        (
            r#"{"key":"\ud800","a":1}"#,
            r#"proto: syntax error (line 1:8): invalid escape code "\",\"a\":" in string"#,
        ),
    ] {
        assert_eq!(
            read::<RangeRequest>(body.as_bytes()),
            Err(expected.to_owned()),
            "{body}"
        );
    }
    let twice = br#"{"success":[{"request_put":{},"request_range":{}}]}"#;
    assert_eq!(
        read::<TxnRequest>(twice),
        Err(
            "proto: (line 1:31): error parsing \"request_range\", oneof etcdserverpb.RequestOp.request is already set"
                .to_owned()
        )
    );
    let not_utf8 = read::<RangeRequest>(b"{\"x\":\"\xff\"}");
    assert_eq!(
        not_utf8,
        Err("proto: syntax error (line 1:6): invalid UTF-8 in string".to_owned())
    );
}

#[test]
fn messages_lie_within_each_other() {
    let body = br#"{"compare":[{"key":"Zm9v","target":"VALUE","value":""},{"version":"0"}],
        "success":[{"request_txn":{"success":[{"request_put":{"key":"YQ=="}},{}]}}],"failure":[]}"#;
    let txn: TxnRequest = read(body).unwrap();
    let unions: Vec<_> = txn.compare.iter().map(|c| c.target_union.clone()).collect();
    let expected = [
        compare::TargetUnion::Value(Bytes::new()),
        compare::TargetUnion::Version(0),
    ];
    assert_eq!(unions, expected.map(Some));
    assert_eq!(
        txn.compare[1],
        Compare {
            target_union: unions[1].clone(),
            ..Default::default()
        }
    );
    let text = r#"{"compare":[{"target":"VALUE","key":"Zm9v","value":""},{"version":"0"}],"success":[{"request_txn":{"success":[{"request_put":{"key":"YQ=="}},{}]}}]}"#;
    assert_eq!(write(&txn), text);

    let body = br#"{"create_request":{"filters":[1,"NOPUT","NOSUCH"]}}"#;
    let watch: WatchRequest = read(body).unwrap();
    let Some(watch_request::RequestUnion::CreateRequest(create)) = watch.request_union else {
        panic!("{watch:?}");
    };
    assert_eq!(create.filters, [1, 0]);
}

#[test]
fn answers_are_written_as_by_go() {
    let header = ResponseHeader {
        cluster_id: u64::MAX,
        revision: -1,
        ..Default::default()
    };
    let kv = KeyValue {
        key: "\u{ff}".into(),
        version: 1,
        ..Default::default()
    };
    let range = RangeResponse {
        header: Some(header),
        kvs: vec![kv, KeyValue::default()],
        more: true,
        count: 7,
    };
    assert_eq!(
        write(&range),
        r#"{"header":{"cluster_id":"18446744073709551615","revision":"-1"},"kvs":[{"key":"w78=","version":"1"},{}],"more":true,"count":"7"}"#
    );
    assert_eq!(write(&RangeResponse::default()), "{}");
    let txn = TxnResponse {
        header: Some(ResponseHeader::default()),
        ..Default::default()
    };
    assert_eq!(write(&txn), r#"{"header":{}}"#);
    let mut text = Vec::new();
    quote("a\"\\\n\u{1}\u{e9}<", &mut text);
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "\"a\\\"\\\\\\n\\u0001\u{e9}<\""
    );
}

#[test]
fn values_of_a_stream_are_told_apart() {
    let stream = "{\"a\":1}[2]\n3 \"x{\" true\tnull{}";
    for piece_bytes in [1, 3, 100] {
        let mut values = Values::default();
        let mut found = Vec::new();
        for piece in stream.as_bytes().chunks(piece_bytes) {
            values.push(piece);
            while let Some(value) = values.next_value().unwrap() {
                found.push(String::from_utf8(value.to_vec()).unwrap());
            }
        }
        assert_eq!(values.last_value(), Ok(None));
        assert_eq!(
            found,
            ["{\"a\":1}", "[2]", "3", "\"x{\"", "true", "null", "{}"]
        );
    }
    let mut values = Values::default();
    values.push(b" 12");
    assert_eq!(values.next_value(), Ok(None));
    assert_eq!(values.last_value(), Ok(Some("12".into())));
}

/// Nothing recurses, and nothing takes quadratic time.
#[test]
fn nesting_is_bounded_by_the_syntax_alone() {
    let levels = NESTING_MAX / 3;
    let open = r#"{"success":[{"request_txn":"#.repeat(levels);
    let body = format!("{open}{{}}{}", "}]}".repeat(levels));
    let txn = read::<TxnRequest>(body.as_bytes()).unwrap();
    let text = write_in_pieces(&txn, usize::MAX);
    assert_eq!(text, body);
    let bomb = "[".repeat(NESTING_MAX + 1);
    let refused = read::<TxnRequest>(bomb.as_bytes());
    assert_eq!(
        refused,
        Err("invalid character '[' exceeded max depth".to_owned())
    );
    let unknown = format!(r#"{{"x":{}{}}}"#, "[".repeat(9_999), "]".repeat(9_999));
    assert_eq!(read(unknown.as_bytes()), Ok(TxnRequest::default()));
}

#[test]
fn methods_know_their_messages() {
    let range = Method::of_path("/etcdserverpb.KV/Range").unwrap();
    assert_eq!(range.request.name, RangeRequest::full_name());
    assert_eq!(range.response.name, RangeResponse::full_name());
    assert!(Method::of_path("/etcdserverpb.KV/Nope").is_none());
}

/// Any text is refused or is a message, and that is the same after it was JSON once more.
#[test]
fn texts_that_were_changed_at_random_are_read_or_refused() {
    let texts = [
        r#"{"compare":[{"key":"Zm9v","target":"VALUE","result":3,"value":"YmFy"},{"key":"_-8","lease":"-5"}],"success":[{"request_put":{"key":"\u005am9v","prevKv":true}},{"requestTxn":{"success":[{}]}}],"failure":null}"#,
        r#" {"failure" : [ {"request_range":{"key":"AA==","limit":1.50e1,"sort_order":"DESCEND","x":[1,{"y":"\ud83d\ude00"}]}} ] } "#,
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    let mut read_count = 0;
    for _ in 0..20_000 {
        let mut text = texts[rng.usize(..texts.len())].as_bytes().to_vec();
        for _ in 0..rng.usize(..4) {
            let (from, to) = (rng.usize(..text.len()), rng.usize(..text.len()));
            match rng.u8(..3) {
                0 => text[from] = rng.u8(..),
                1 => {
                    drop(text.drain(from.min(to)..(from.min(to) + rng.usize(..9)).min(text.len())))
                }
                _ => text.insert(from, b"{}[],:\"\\0e.-u"[rng.usize(..13)]),
            }
        }
        if let Ok(txn) = read::<TxnRequest>(&text) {
            let json = write_in_pieces(&txn, 5);
            assert_eq!(read(json.as_bytes()), Ok(txn));
            read_count += 1;
        }
    }
    assert!(
        (1_000..19_000).contains(&read_count),
        "{read_count} are messages"
    );
}
